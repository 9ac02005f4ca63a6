"""Draws docs/methods/images/NAME.svg, the idea of each method as its code runs: `make pictures`.

Nothing is typed in. One loss of a tiny copy in float64 is computed again and again (as in
similitude.methods.anatomy), each time with something changed: a view, what a network gave, a
memory. What changes with it tells which views pass which networks, what of them reaches the loss,
and whether a gradient comes back.
"""

import html
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass
from functools import wraps
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from similitude.method import Method
from similitude.methods import CONFIGS, anatomy, build_method
from similitude.multimodal.networks import Towers

PICTURES = Path(__file__).parents[1] / "docs" / "methods" / "images"
SHIFT, NOTHING = 1e-5, 1e-9
MOST_ROWS = 4  # with more of them, the networks of one name are one box

Node = tuple[int, int]  # a call of a network, and the view whose rows in it are meant


@dataclass
class Row:
    """One way from views to the loss.

    Attributes:
        networks: By name, in order.
        is_stopped: The loss depends on its end, and no gradient comes back.
        views: Which go this way, from 1.
        ends: The calls that the loss reads.
    """

    networks: tuple[str, ...]
    is_stopped: bool
    views: set[int]
    ends: set[Node]


@dataclass
class Idea:
    """What a picture shows.

    Attributes:
        name, title: Of the method.
        rows: The ways to the loss.
        learns: Networks that a gradient reaches.
        follows: From a network to the one whose moving average it is.
        memories: What is kept from step to step and read by the loss; the rows that fill each.
        tables: Weights that the loss reads as they are, such as DIET's.
        losses: The functions of ``similitude.losses`` that a gradient passes.
        negatives: Where other samples come from that are pushed away.
        is_exchanged: The two views go both ways, in two terms of the loss; each is drawn once.
        is_of_sensors: What it calls views are what several sensors tell of a sample.
    """

    name: str
    title: str
    rows: list[Row]
    learns: set[str]
    follows: dict[str, str]
    memories: dict[str, list[int]]
    tables: list[str]
    losses: list[str]
    negatives: str
    is_exchanged: bool
    is_of_sensors: bool


# --- measuring ---------------------------------------------------------------------------------


def networks(method: Method) -> Iterator[tuple[str, nn.Module]]:
    """The parts of a method by name; of a collection its members."""
    for name, child in method.named_children():
        inner = child.inner.networks if isinstance(child, Towers) else child
        if isinstance(inner, nn.ModuleList | nn.ModuleDict):
            yield from ((f"{name} {i}", part) for i, part in enumerate(inner.children(), 1))
        else:
            yield name, child


def tensors(value: Any) -> list[Tensor]:
    """The floats in a tensor, a tuple or an object that holds some."""
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, list | tuple):
        return [tensor for part in value for tensor in tensors(part)]
    return tensors(list(getattr(value, "__dict__", {}).values()))


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A tensor, or tuples of some, changed."""
    if isinstance(value, Tensor):
        return change(value)
    return type(value)(mapped(part, change) for part in value)


class Run:
    """One computation of the loss. What networks give may be played back in place of computed."""

    def __init__(
        self, method: Method, views: list[Tensor], played: list[Any] | None = None
    ) -> None:
        self.method, self.played, self.depth = deepcopy(method), played, 0
        self.names: list[str] = []
        self.inputs: list[list[Tensor]] = []
        self.outputs: list[Any] = []
        for name, network in networks(self.method):
            for module in network.modules():  # of some networks only layers are called
                if not isinstance(network, nn.Identity):
                    module.register_forward_pre_hook(self._enter)
                    module.register_forward_hook(self._leaving(name))
        batch = anatomy.as_batch(self.method, views)
        self.loss = self.method.training_loss(batch, anatomy.STEP).loss

    def _enter(self, *_: Any) -> None:
        self.depth += 1

    def _leaving(self, name: str) -> Callable[..., Any]:
        def leave(_: nn.Module, inputs: Any, output: Any) -> Any:
            self.depth -= 1
            if self.depth:  # inside a network that is called as a whole
                return None
            self.names.append(name)
            self.inputs.append(tensors(inputs))
            self.outputs.append(output)
            return None if self.played is None else self.played[len(self.names) - 1]

        return leave

    def learns(self, call: int) -> bool:
        """Whether a gradient passes what this call gave."""
        return any(tensor.requires_grad for tensor in tensors(self.outputs[call]))


def changed(a: list[Tensor], b: list[Tensor]) -> bool:
    return any(bool((x - y).abs().max() > NOTHING) for x, y in zip(a, b, strict=True))


class Wiring:
    """Which call of a network reads which, and which are read by the loss."""

    def __init__(self, method: Method) -> None:
        self.method, self.views = method, anatomy.noise_views(method, 0)
        self.run = Run(method, self.views)
        self.rows: dict[Node, list[Tensor]] = {}  # of each output, 1 where it is of the view
        for i in range(len(self.views)):
            noise = torch.randn_like(self.views[i])
            moved = [v + noise if i == j else v for j, v in enumerate(self.views)]
            for call, output in enumerate(Run(method, moved).outputs):
                pairs = zip(tensors(output), tensors(self.run.outputs[call]), strict=True)
                rows = [((a - b).detach().abs() > NOTHING).double() for a, b in pairs]
                if any(bool(row.any()) for row in rows):
                    self.rows[call, i] = rows
        self.noise = [[torch.randn_like(t) for t in tensors(o)] for o in self.run.outputs]

    def playback(self, *nodes: Node, by: float = SHIFT) -> Run:
        """All calls as they were, what these gave for their view moved a little."""
        played = [mapped(output, Tensor.detach) for output in self.run.outputs]
        for call, view in nodes:
            steps = iter(zip(self.rows[call, view], self.noise[call], strict=True))
            played[call] = mapped(
                played[call], lambda t, steps=steps: t + by * torch.mul(*next(steps))
            )
        return Run(self.method, self.views, played)

    def slope(self, node: Node) -> float:
        """Of the loss itself, where nothing that comes after this call changes with it."""
        up, down = (self.playback(node, by=by).loss.item() for by in (SHIFT, -SHIFT))
        return (up - down) / (2 * SHIFT)

    def told_slope(self, node: Node) -> float:
        """The same as autograd says."""
        call, _ = node
        if not self.run.learns(call):
            return 0.0
        played = [mapped(output, Tensor.detach) for output in self.run.outputs]
        played[call] = mapped(played[call], Tensor.requires_grad_)
        loss = Run(self.method, self.views, played).loss
        leaves = tensors(played[call])
        if not loss.requires_grad:
            return 0.0
        slopes = torch.autograd.grad(loss, leaves, allow_unused=True)
        told = zip(slopes, self.rows[node], self.noise[call], strict=True)
        return sum(float((s * r * n).sum()) for s, r, n in told if s is not None)

    def endings(self, node: Node) -> set[bool]:
        """How the loss reads this call itself: without a gradient (True), with one (False)."""
        true, told = self.slope(node), self.told_slope(node)
        if abs(true) < NOTHING:
            return set()
        if abs(true - told) < 1e-4 * abs(true):
            return {False}
        return {True} if abs(told) < NOTHING else {True, False}

    def readers(self, node: Node) -> list[Node]:
        """The calls that read this one directly."""
        run, (call, view) = self.playback(node, by=1e-3), node
        return [
            (later, view)
            for later in range(call + 1, len(run.names))
            if (later, view) in self.rows and changed(run.inputs[later], self.run.inputs[later])
        ]

    def ways(self) -> list[Row]:
        """The ways to the loss; those of a kind are one."""
        readers = {node: self.readers(node) for node in self.rows}
        read = {node for nodes in readers.values() for node in nodes}
        endings = {node: self.endings(node) for node in self.rows}
        found: dict[tuple[tuple[str, ...], bool], Row] = {}

        def follow(node: Node, before: tuple[str, ...]) -> None:
            name = self.run.names[node[0]]
            way = before if before[-1:] == (name,) else (*before, name)
            for stopped in sorted(endings[node]):
                row = found.setdefault((way, stopped), Row(way, stopped, set(), set()))
                row.views.add(node[1] + 1)
                row.ends.add(node)
            for reader in readers[node]:
                follow(reader, way)

        for node in self.rows:
            if node not in read:
                follow(node, ())
        return sorted(found.values(), key=lambda row: (row.is_stopped, -len(row.networks)))

    def meet(self, a: Node, b: Node) -> bool:
        """Whether one term of the loss reads both: a mixed second difference that is not 0."""
        both, first, second, none = (
            self.playback(*nodes, by=1e-2).loss.item() for nodes in ((a, b), (a,), (b,), ())
        )
        return abs(both - first - second + none) > NOTHING


def gathered(rows: list[Row]) -> list[Row]:
    """Fewer rows: those whose networks bear the same names but for their numbers are one."""
    found: dict[tuple[tuple[str, ...], bool], list[Row]] = {}
    for row in rows:
        names = tuple(name.split()[0] for name in row.networks)
        found.setdefault((names, row.is_stopped), []).append(row)
    return [
        Row(
            tuple(f"{name.removesuffix('s')}s" for name in names)
            if len(same) > 1
            else same[0].networks,
            is_stopped,
            {view for row in same for view in row.views},
            {end for row in same for end in row.ends},
        )
        for (names, is_stopped), same in found.items()
    ]


def followed(method: Method) -> dict[str, str]:
    """Which network moves with which other one after a step."""

    def after(moved: str) -> dict[str, list[Tensor]]:
        twin = deepcopy(method)
        for name, part in networks(twin):
            for parameter in part.parameters():
                if name == moved and parameter.requires_grad:
                    parameter.data.add_(1.0)
        twin.after_step(anatomy.STEP)
        return {name: [p.data for p in part.parameters()] for name, part in networks(twin)}

    still = after("")
    return {
        other: name
        for name in still
        for other, now in after(name).items()
        if other != name and changed(now, still[other])
    }


def losses_called(method: Method, views: list[Tensor]) -> list[str]:
    """The losses that a gradient passes."""
    called: list[str] = []

    def watched(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def watching(*arguments: Any, **options: Any) -> Any:
            result = function(*arguments, **options)
            if any(tensor.requires_grad for tensor in tensors(result)) and name not in called:
                called.append(name)
            return result

        return watching

    modules = {sys.modules[kind.__module__] for kind in type(method).__mro__}
    with ExitStack() as stack:
        for module in modules:
            for name, value in list(vars(module).items()):
                of_losses = getattr(value, "__module__", "").startswith("similitude.losses.")
                # mean_...: over the parts of something large
                if of_losses and not name.startswith("mean_"):
                    stack.enter_context(patch.object(module, name, watched(name, value)))
        Run(method, views)
    return called


def memories(method: Method, wiring: Wiring, rows: list[Row]) -> dict[str, list[int]]:
    """What the loss reads of earlier batches, and which rows fill it."""

    def kept(of: Method, name: str) -> list[Tensor]:
        return [b for b in dict(networks(of))[name].buffers() if b.is_floating_point()]

    found = {}
    for name, part in networks(method):
        if name in wiring.run.names or not kept(method, name) or list(part.parameters()):
            continue
        twin = deepcopy(method)
        for buffer in kept(twin, name):
            buffer.add_(0.1 * torch.randn_like(buffer))
        if not changed([Run(twin, wiring.views).loss], [wiring.run.loss]):
            continue
        before = kept(wiring.run.method, name)
        found[name] = [
            number
            for number, row in enumerate(rows)
            if any(
                changed(kept(wiring.playback(end, by=1e-2).method, name), before)
                for end in row.ends
            )
        ]
    return found


def measured(name: str, **changes: Any) -> Idea:
    """Run a tiny copy of the method, with other settings if any are given, and look."""
    config = anatomy.small_config(name).changed(**changes)
    state = torch.get_rng_state()
    torch.manual_seed(0)
    network = anatomy.kind_of_data(config).tiny(name, anatomy.SIDE, anatomy.FEATURES)[1]
    method = build_method(config, network).double().eval()
    for _, part in networks(method):
        if not list(part.parameters()):
            part.train()  # a running mean moves only then
    for parameter in method.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    method.training_loss(anatomy.as_batch(method, anatomy.noise_views(method, 6)), anatomy.STEP)
    wiring = Wiring(method)
    rows = wiring.ways()
    if len(rows) > MOST_ROWS:
        rows = gathered(rows)
    parts = anatomy.measure(config)
    exchanged = parts.symmetric_loss and len(wiring.views) == 2
    exchanged = exchanged and [row.is_stopped for row in rows] == [False, True]
    exchanged = exchanged and not wiring.meet(*sorted(rows[0].ends))
    if exchanged:
        rows[0].views, rows[1].views = {1}, {2}
    wiring.run.loss.backward()
    reached = {
        label
        for label, part in networks(wiring.run.method)
        if any(p.grad is not None and bool(p.grad.abs().max() > 0) for p in part.parameters())
    }
    beside = anatomy.counts_copies(method) or anatomy.looks_beside(method)
    sources = [(beside, "the batch"), (anatomy.remembers(method), "the memory")]
    idea = Idea(
        name=name,
        title=config.title or name,
        rows=rows,
        learns=reached,
        follows=followed(method),
        memories=memories(method, wiring, rows),
        tables=sorted(reached - set(wiring.run.names)),
        losses=losses_called(method, wiring.views),
        negatives=" and ".join(of for is_one, of in sources if is_one and parts.negatives),
        is_exchanged=exchanged,
        is_of_sensors=isinstance(method.backbone, Towers),
    )
    torch.set_rng_state(state)
    return idea


# --- drawing -----------------------------------------------------------------------------------

BLUE, PURPLE, GREEN, RED, INK = "#3a6ecf", "#8a5bc4", "#1d8577", "#c2504b", "#76839a"
BOX, HIGH, COLUMN, LINE, LEFT = 128, 44, 158, 84, 196
CARD = 30


def views_of(row: Row, idea: Idea) -> str:
    kind = "sensor" if idea.is_of_sensors else "view"
    first, last = min(row.views), max(row.views)
    return f"{kind} {first}" if first == last else f"{kind}s {first}\u2013{last}"


def split(idea: Idea) -> list[Row]:
    """The rows as they are drawn: where there is but one, each of its views has its own."""
    if len(idea.rows) == 1 and len(idea.rows[0].views) == 2:
        one = idea.rows[0]
        return [Row(one.networks, one.is_stopped, {view}, one.ends) for view in one.views]
    return idea.rows


def arrow(points: str, color: str, *, more: str = "") -> str:
    head = {BLUE: "learns", PURPLE: "follows", INK: "stopped", GREEN: "kept"}[color]
    return f'<path d="{points}" stroke="{color}" marker-end="url(#{head})"{more}/>'


def word(x: float, y: float, text: str, *, kind: str = "note", anchor: str = "middle") -> str:
    place = f'x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}"'
    return f"<text {place}>{html.escape(text)}</text>"


def box(x: float, y: float, name: str, said: str, color: str) -> str:
    shape = f'<rect x="{x:g}" y="{y - HIGH / 2:g}" width="{BOX}" height="{HIGH}" rx="8"'
    middle = x + BOX / 2
    return (
        f'{shape} fill="{color}"/>'
        + word(middle, y - 2, name.replace("_", " "), kind="name")
        + word(middle, y + 13, said, kind="said")
    )


def cards(x: float, y: float, count: int) -> str:
    """One picture, or a pile."""
    pile = [
        f'<rect x="{x + 4 * k:g}" y="{y - CARD / 2 - 4 * k:g}" width="{CARD}" height="{CARD}" '
        f'rx="3" class="card"/>'
        for k in reversed(range(min(count, 3)))
    ]
    hill = f"M{x + 4:g} {y + 10:g}l8 -11 6 7 4 -4 5 8z"
    return "".join(pile) + f'<path d="{hill}" fill="{INK}" stroke="none"/>'


def drawn(idea: Idea) -> str:
    """The picture, readable on white and on black."""
    rows = split(idea)
    level = {id(row): 58 + LINE * i for i, row in enumerate(rows)}
    deepest = max(len(row.networks) for row in rows)
    loss_x = LEFT + COLUMN * deepest + 66
    shapes: list[str] = []
    boxes: dict[tuple[int, str], list[tuple[float, float]]] = {}  # by column and name
    ends: dict[int, tuple[float, float]] = {}

    def look(name: str) -> tuple[str, str]:
        if name in idea.follows:
            return "moving average", PURPLE
        is_reached = any(own.startswith(name.removesuffix("s")) for own in idea.learns)
        return ("learns", BLUE) if is_reached else ("does not learn", INK)

    def branch(group: list[Row], depth: int, x0: float, y0: float) -> None:
        """What follows on ``depth`` networks that these rows share, up to the loss."""
        following: dict[str, list[Row]] = {}
        for row in group:
            if len(row.networks) == depth:
                y, color = level[id(row)], INK if row.is_stopped else BLUE
                bend = x0 + 14 if y != y0 else x0
                shapes.append(arrow(f"M{x0:g} {y0:g}H{bend:g}V{y:g}H{loss_x - 4:g}", color))
                ends[id(row)] = (x0, y0)
                if row.is_stopped:
                    at = loss_x - 46
                    for k in (0, 6):
                        bar = f"M{at + k - 3:g} {y + 9:g}l6 -18"
                        shapes.append(f'<path d="{bar}" stroke="{RED}" stroke-width="2.5"/>')
                    shapes.append(word(at + 3, y - 14, "stop-gradient", kind="stop"))
            else:
                following.setdefault(row.networks[depth], []).append(row)
        for name, inner in following.items():
            x = LEFT + COLUMN * depth
            y = sum(level[id(row)] for row in inner) / len(inner)
            said, color = look(name)
            flow = INK if color == PURPLE or all(row.is_stopped for row in inner) else BLUE
            bend = x0 + 14
            shapes.append(arrow(f"M{x0:g} {y0:g}H{bend:g}V{y:g}H{x - 4:g}", flow))
            branch(inner, depth + 1, x + BOX, y)
            shapes.append(box(x, y, name, said, color))
            boxes.setdefault((depth, name), []).append((x, y))

    groups: dict[tuple[int, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(sorted(row.views)), []).append(row)
    middle = sum(level.values()) / len(level)
    for views, group in groups.items():
        y = sum(level[id(row)] for row in group) / len(group)
        shapes.append(f'<path d="M54 {middle:g}C84 {middle:g} 76 {y:g} 104 {y:g}" class="draw"/>')
        shapes.append(cards(106, y, len(views)))
        shapes.append(word(124, y + 32, views_of(group[0], idea)))
        branch(group, 0, 106 + CARD + 4 * min(len(views) - 1, 2) + 4, y)
    shapes.append(cards(20, middle, 1))
    shapes.append(word(35, middle + 32, "sample"))

    for (_, name), places in boxes.items():
        for (x, upper), (_, lower) in pairwise(places):
            if name in idea.learns:  # one network, not several of a kind
                shapes += [
                    f'<path d="M{x + BOX / 2 + k:g} {upper + HIGH / 2:g}V{lower - HIGH / 2:g}" '
                    f'stroke="{BLUE}" stroke-width="1.5"/>'
                    for k in (-2, 2)
                ]
                shapes.append(
                    word(x + BOX / 2 + 9, (upper + lower) / 2 + 4, "same weights", anchor="start")
                )
    for follower, leader in idea.follows.items():
        for column in range(deepest):
            if (column, follower) in boxes and (column, leader) in boxes:
                (x, upper), (_, lower) = boxes[column, leader][-1], boxes[column, follower][0]
                path = f"M{x + BOX / 2:g} {upper + HIGH / 2:g}V{lower - HIGH / 2 - 5:g}"
                shapes.append(arrow(path, PURPLE, more=' stroke-dasharray="5 4"'))
                shapes.append(word(x + BOX / 2 + 9, (upper + lower) / 2 + 4, "EMA", anchor="start"))

    bottom = max(level.values())
    side = loss_x - 66 - COLUMN
    for name in [*idea.memories, *idea.tables]:
        bottom += LINE
        y, is_kept = bottom, name in idea.memories
        color = GREEN if is_kept else BLUE
        shapes.append(box(side, y, name, "kept between steps" if is_kept else "learns", color))
        shapes.append(arrow(f"M{side + BOX:g} {y:g}H{loss_x - 4:g}", color))
        for number in idea.memories.get(name, []):
            x0, y0 = ends[id(rows[min(number, len(rows) - 1)])]
            x = x0 + 16 + 12 * number
            path = (
                f"M{x:g} {y0:g}V{y:g}H{side - 4:g}"
                if x < side
                else (f"M{x:g} {y0:g}V{y - LINE / 2 + 6:g}H{side + BOX / 2:g}V{y - HIGH / 2 - 5:g}")
            )
            shapes.append(arrow(path, GREEN, more=' stroke-dasharray="5 4"'))
    top = min(level.values()) - 30
    height = bottom + 30 - top
    center = top + height / 2
    width = max([120.0, *(6.6 * len(name) + 24 for name in idea.losses)])
    shapes.append(
        f'<rect x="{loss_x}" y="{top:g}" width="{width:g}" height="{height:g}" rx="8" '
        'class="loss"/>'
    )
    lines = [("loss", "name"), *((name, "said") for name in idea.losses)]
    for k, (text, kind) in enumerate(lines):
        y = center + 5 + 17 * (k - (len(lines) - 1) / 2)
        shapes.append(word(loss_x + width / 2, y, text, kind=kind))
    told = [f"Negatives come from {idea.negatives}." if idea.negatives else "No negatives."]
    if idea.is_exchanged:
        told.append("Each view goes both ways, in two terms of the loss; each way is drawn once.")
    caption = bottom + 56
    shapes.append(word(20, caption, " ".join(told), anchor="start"))
    heads = "".join(
        f'<marker id="{name}" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="6" '
        f'markerHeight="6" orient="auto"><path d="M0 0L8 4L0 8z" fill="{color}" '
        f'stroke="none"/></marker>'
        for name, color in [
            ("learns", BLUE),
            ("follows", PURPLE),
            ("stopped", INK),
            ("kept", GREEN),
        ]
    )
    whole = loss_x + width + 20
    return f"""<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{whole:g}"
viewBox="0 0 {whole:g} {caption + 20:g}">
<title>{html.escape(idea.title)}: which views pass which networks to the loss</title>
<style>
text {{ font: 12px system-ui, sans-serif; fill: {INK} }}
.name {{ font-weight: 600; font-size: 13px; fill: #fff }} .said {{ font-size: 11px; fill: #fff }}
.stop {{ fill: {RED} }} .card {{ fill: #dfe5ee; stroke: {INK} }} .loss {{ fill: #47546b }}
.draw {{ stroke: {INK}; stroke-dasharray: 2 4 }}
</style>
<defs>{heads}</defs>
<g fill="none" stroke-width="1.8">
{chr(10).join(shapes)}
</g>
</svg>
"""


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    for name in sys.argv[1:] or CONFIGS:
        (PICTURES / f"{name}.svg").write_text(drawn(measured(name)))
        print(PICTURES / f"{name}.svg")
