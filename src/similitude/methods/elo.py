"""Evolving Losses: many tasks over several sensors at once (Piergiovanni et al., 2020, 2002.12177).

    h_s = towers_s(x_s)                                   frames, flow, sound ...
    loss = sum over tasks of weight * loss of the task    weights in [0, 1], found by evolution

    reconstruct_s     |D(h_s) - x_s|^2
    predict_s         |D(h_s) - the frames that follow|^2
    transfer_s_t      |D(h_s) - x_t|^2
    order_s           are the frames in order?            cross-entropy, of some clips shuffled
    direction_s       does time run forward?              the same, of the others reversed
    align_s_t         are both of one video?              the same, with the sound of another
    contrast_s_t      |z_s - z_t|^2 + max(0, margin - |z_s - z_t'|^2)
    distill_s_k       |M_k - L_k|^2                       stage k of the kept network, L of another

Only the network of the first kept sensor is used afterwards. Differs from the paper: decoders are
two layers and give a small picture, not every pixel; projections have unit length, so that the
margin has one scale; what is distilled does not move towards the kept network; a pair of videos is
a sample and the next of its batch. Of sensors without time three tasks are left out.
"""

from collections.abc import Mapping
from itertools import combinations, permutations
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from similitude.devices import moved
from similitude.distributed import gather, mean_over_processes, rank
from similitude.errors import UserError, did_you_mean
from similitude.method import (
    SENSORS_NEEDED,
    Batch,
    Method,
    MethodConfig,
    Progress,
    StepOutput,
    Width,
)
from similitude.multimodal.inputs import SensorInputs
from similitude.multimodal.networks import Towers
from similitude.multimodal.views import SensorViewConfig
from similitude.nets import worst_readings
from similitude.nets.backbone import Backbone
from similitude.randomness import uniforms
from similitude.sample import AnyView, MultiView

Weight = Annotated[float, Field(ge=0.0, le=1.0)]
DECODED_FRAMES = 4


class ELoConfig(MethodConfig):
    """Equal weights until an evolution has found others.

    Attributes:
        view: Of all sensors, which see one place at one time.
        weights: Of the tasks, by name; those that are not named have ``weight``.
        weight: Of every other task.
        projection_dim: Of what contrast compares.
        hidden_dim: Of decoders, and of what tells whether two belong together.
        margin: Of contrast; unrelated unit vectors are at a squared distance of 2.
        future: Frames at the end of a clip that networks do not see, and predict.
        decoded_side: Pixels of the picture that decoders give.
    """

    name: Literal["elo"] = "elo"
    view: AnyView = SensorViewConfig(aligned=True)
    weights: dict[str, Weight] = Field(default_factory=dict)
    weight: Weight = 0.5
    projection_dim: Width = 128
    hidden_dim: Width = 512
    margin: float = Field(default=2.0, gt=0)
    future: int = Field(default=4, ge=1)
    decoded_side: int = Field(default=8, ge=1)

    title: ClassVar[str] = "ELo"
    compares_sensors: ClassVar[bool] = True
    searched: ClassVar[tuple[str, ...]] = ("weights",)

    def for_network(self, network: nn.Module) -> "ELoConfig":
        """With the weight of every task that its sensors have.

        Raises:
            UserError: a weight is of no task.
        """
        known = tasks_of(_towers(network))
        for name in self.weights:
            if name not in known:
                raise UserError(
                    f"method.weights has no task {name!r} here: {did_you_mean(name, known)}"
                )
        return self.changed(weights={name: self.weights.get(name, self.weight) for name in known})


def tasks_of(towers: Towers) -> list[str]:
    """The names of all tasks that the sensors have; of the first kept one all distill into it."""
    networks: Mapping[str, Any] = dict(towers.inner.networks.named_children())
    pictures = [name for name, network in networks.items() if not _reads_tokens(network)]
    timed = [name for name, network in networks.items() if _sees_time(network)]
    pairs = list(combinations(networks, 2))
    main = towers.kept[0]
    return [
        *(f"reconstruct_{s}" for s in pictures),
        *(f"{task}_{s}" for task in ("predict", "order", "direction") for s in timed),
        *(f"transfer_{s}_{t}" for s, t in permutations(networks, 2) if t in pictures),
        *(f"{task}_{s}_{t}" for task in ("align", "contrast") for s, t in pairs),
        *(f"distill_{s}_{k}" for s in networks if s != main for k in _shared(towers, s)),
    ]


def _shared(towers: Towers, sensor: str) -> range:
    """Stages of the kept network, from 1, which another sensor's last stages stand beside."""
    own, other = len(towers.stage_widths[towers.kept[0]]), len(towers.stage_widths[sensor])
    return range(own - min(own, other) + 1, own + 1)


def _sees_time(network: nn.Module) -> bool:
    return getattr(network, "sees_time", False)


def _reads_tokens(network: nn.Module) -> bool:
    return getattr(network, "reads_tokens", False)


def _towers(network: nn.Module) -> Towers:
    if not isinstance(network, Towers) or len(network.widths) < 2:
        raise UserError(f"elo compares sensors: {SENSORS_NEEDED}")
    return network


class ELo(Method):
    """See the module's docstring."""

    def __init__(self, backbone: Backbone, config: ELoConfig) -> None:
        super().__init__()
        self.backbone: Towers = _towers(backbone)
        self.config = config = config.for_network(self.backbone)
        self.timed = [n for n, net in self.backbone.inner.networks.items() if _sees_time(net)]
        self.main = self.backbone.kept[0]
        self.on = {name: weight for name, weight in config.weights.items() if weight > 0}
        if not self.on:
            raise UserError("all of method.weights are 0: nothing would be learned")
        widths, hidden, dim = self.backbone.widths, config.hidden_dim, config.projection_dim
        heads: dict[str, nn.Module] = {}
        for name in self.on:
            task, sensors = self._of(name)
            width = widths[sensors[0]]
            if task in ("reconstruct", "predict", "transfer"):
                heads[name] = _two_layers(width, hidden, self._decoded(sensors[-1]))
            elif task in ("order", "direction"):
                heads[name] = nn.Linear(width, 1)
            elif task == "align":
                heads[name] = _two_layers(sum(widths[s] for s in sensors), hidden, 1)
            elif task == "distill":
                own, other = self._distilled_widths(name)
                heads[name] = nn.Identity() if own == other else nn.Linear(own, other)
        self.heads = nn.ModuleDict(heads)
        contrasted = {
            s for name in self.on if name.startswith("contrast") for s in self._of(name)[1]
        }
        self.projectors = nn.ModuleDict(
            {s: nn.Linear(width, dim) for s, width in widths.items() if s in contrasted}
        )

    def views(self, facts: Any) -> MultiView:
        return MultiView(self.config.view.on(facts))

    def training_loss(self, batch: Batch, progress: Progress) -> StepOutput:
        inputs: SensorInputs = batch.views[0]
        seen, coming = self._seen(inputs)
        stages, changed, shuffled = self._stages(seen, batch, progress)
        h = {name: outputs[-1] for name, outputs in stages.items()}
        z = {name: F.normalize(p(h[name]), dim=1) for name, p in self.projectors.items()}
        there = inputs.present
        targets = {n: self._target(x) for n, x in seen.of.items() if x.is_floating_point()}
        losses: dict[str, Tensor] = {}
        for name in self.on:
            task, (s, *others) = self._of(name)
            valid = there[s] if not others else there[s] & there[others[0]]
            if task == "contrast":
                t = others[0]
                apart = (z[s] - _next(z[t])).square().sum(1)
                each = (z[s] - z[t]).square().sum(1)
                each = each + (self.config.margin - apart).clamp_min(0) * _next(there[t])
                losses[name] = _mean_where(each, valid)
                continue
            head = self.heads[name]
            if task in ("reconstruct", "predict", "transfer"):
                target = self._target(coming[s]) if task == "predict" else targets[[s, *others][-1]]
                each = (head(h[s]) - target).square().mean(1)
            elif task in ("order", "direction"):
                each = _told_apart(head(h[s]), head(changed[s]))
                valid = valid & (shuffled if task == "order" else ~shuffled)
            elif task == "align":
                t = others[0]
                other, known = _next(h[t]), _next(there[t])
                each = _told_apart(
                    head(torch.cat([h[s], h[t]], dim=1)), head(torch.cat([h[s], other], dim=1))
                )
                valid = valid & known
            else:
                own, other = self._distilled(name, stages)
                valid = there[self.main] & there[s]
                each = (head(own) - other.detach()).square().mean(1)
            losses[name] = _mean_where(each, valid)
        loss = torch.stack([self.on[name] * value for name, value in losses.items()]).sum()
        kept = torch.cat([h[name].detach() for name in self.backbone.kept], dim=1)
        return StepOutput(loss, kept, {**self._metrics(losses), **_spread(list(z.values()))})

    def _seen(self, inputs: SensorInputs) -> tuple[SensorInputs, dict[str, Tensor]]:
        """What networks are given, and the frames that follow."""
        last = self.config.future
        if not any(name.startswith("predict_") for name in self.on):
            return inputs, {}
        for name in self.timed:
            if inputs.of[name].shape[2] <= last:
                raise UserError(
                    f"{name} has clips of {inputs.of[name].shape[2]} frames, of which the last "
                    f"{last} are predicted: set method.future to fewer"
                )
        coming = {name: inputs.of[name][:, :, -last:] for name in self.timed}
        before = {name: inputs.of[name][:, :, :-last] for name in self.timed}
        return SensorInputs({**inputs.of, **before}, inputs.present), coming

    def _stages(
        self, seen: SensorInputs, batch: Batch, progress: Progress
    ) -> tuple[dict[str, list[Tensor]], dict[str, Tensor], Bool[Tensor, " N"]]:
        """Outputs of all stages, the features of changed clips, and which of them are shuffled.

        The others are reversed. In one batch with the clips as they are: statistics of a batch
        that was all changed would tell it.
        """
        kinds = {k for k in ("order", "direction") if any(n.startswith(f"{k}_") for n in self.on)}
        n, device = len(seen), seen.device
        drawn = uniforms(
            0, progress.step, batch.index, 0, {"which": 1, "order": self._frames(seen)}
        )
        shuffled = moved(drawn["which"][:, 0] < 0.5, device)
        if len(kinds) < 2:
            shuffled = torch.full_like(shuffled, "order" in kinds)
        if not kinds:
            return self.backbone.stages(seen), {}, shuffled
        of = dict(seen.of)
        for name in self.timed:
            clips = of[name]
            time = torch.arange(clips.shape[2], device=device)
            order = moved(drawn["order"][:, : len(time)].argsort(dim=1), device)
            order = torch.where(shuffled[:, None], order, time.flip(0))
            rows = torch.arange(n, device=device)[:, None]
            of[name] = clips.transpose(1, 2)[rows, order].transpose(1, 2)
        stages = self.backbone.stages(SensorInputs.joined([seen, SensorInputs(of, seen.present)]))
        first = {name: [x[:n] for x in outputs] for name, outputs in stages.items()}
        return first, {name: stages[name][-1][n:] for name in self.timed}, shuffled

    def _frames(self, seen: SensorInputs) -> int:
        return max((seen.of[name].shape[2] for name in self.timed), default=0)

    def _target(self, x: Tensor) -> Float[Tensor, "N _"]:
        """A small picture of an input, as decoders give it."""
        side = self.config.decoded_side
        if x.ndim == 5:
            return F.adaptive_avg_pool3d(x, (DECODED_FRAMES, side, side)).flatten(1)
        if x.ndim == 4:
            return F.adaptive_avg_pool2d(x, side).flatten(1)
        return F.adaptive_avg_pool1d(x, side * side).flatten(1)

    def _decoded(self, sensor: str) -> int:
        """Numbers of such a picture."""
        network: Any = self.backbone.inner.networks[sensor]
        origin = getattr(network, "built_from", None)
        pixels = self.config.decoded_side**2 * (DECODED_FRAMES if _sees_time(network) else 1)
        return pixels * getattr(origin, "input_channels", 3)

    def _of(self, name: str) -> tuple[str, list[str]]:
        """The task of a name, and its sensors, whose names may have any letters."""
        task, _, rest = name.partition("_")
        sensors = list(self.backbone.widths)
        if task == "distill":
            return task, [rest.rpartition("_")[0]]
        if rest in sensors:
            return task, [rest]
        return task, next([s, t] for s, t in permutations(sensors, 2) if rest == f"{s}_{t}")

    def _distilled(self, name: str, stages: Mapping[str, list[Any]]) -> tuple[Any, Any]:
        """What stands for a stage of the kept network, and for that of the other beside it."""
        sensor, _, number = name.removeprefix("distill_").rpartition("_")
        own, other = stages[self.main], stages[sensor]
        return own[int(number) - 1], other[len(other) - len(own) + int(number) - 1]

    def _distilled_widths(self, name: str) -> tuple[int, int]:
        widths = {s: list(w) for s, w in self.backbone.stage_widths.items()}
        return self._distilled(name, widths)

    def _metrics(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The mean loss of each kind of task."""
        kinds: dict[str, list[Tensor]] = {}
        for name, loss in losses.items():
            kinds.setdefault(name.partition("_")[0], []).append(loss.detach())
        return {f"loss_{kind}": torch.stack(values).mean() for kind, values in kinds.items()}


def _two_layers(given: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(given, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, out))


def _next(x: Tensor) -> Tensor:
    """Of each sample the next one of the batch of all processes."""
    everyone = gather(x)
    rows = torch.arange(len(x), device=x.device) + rank() * len(x) + 1
    return everyone[rows % len(everyone)]


def _told_apart(right: Float[Tensor, "N 1"], wrong: Float[Tensor, "N 1"]) -> Float[Tensor, " N"]:
    """Cross-entropy of telling one from the other; log 2 by chance."""
    return (F.softplus(-right) + F.softplus(wrong))[:, 0] / 2


def _mean_where(each: Float[Tensor, " N"], valid: Bool[Tensor, " N"]) -> Float[Tensor, ""]:
    """The mean over the valid samples of all processes; 0 where there is none."""
    valid = valid.to(each)
    return (each * valid).mean() / mean_over_processes(valid.mean()).clamp_min(1e-9)


def _spread(z: list[Tensor]) -> dict[str, Tensor]:
    return worst_readings(z) if z else {}
