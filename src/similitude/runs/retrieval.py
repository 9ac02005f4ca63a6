"""What a run that compares sensors finds: entries of one by those of another, classes by words."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import permutations
from typing import Any

import torch
from jaxtyping import Int
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from torch import Tensor, nn

from similitude.errors import UserError, visible
from similitude.evaluation.comparison import PRETRAINED_BACKBONE, RANDOM_BACKBONE
from similitude.evaluation.retrieval import KS, Retrieval, retrieval, zero_shot
from similitude.files.writing import write_text
from similitude.listener import Listener
from similitude.method import Method
from similitude.methods import build_method
from similitude.runs.run import Run
from similitude.sample import Samples

_AT_ONCE = 256  # samples


@dataclass(frozen=True)
class RetrievalTable:
    """What was asked of a run and of random weights.

    Attributes:
        data: What was searched.
        rows: One for each direction and each of both.
        zero_shot: Share of samples whose class was named by its description, by row; empty without
            labels or texts.
        prompts: The descriptions, with {} for the class.
    """

    data: str
    rows: list[Retrieval]
    zero_shot: dict[str, float] = field(default_factory=dict)
    prompts: list[str] = field(default_factory=list)

    def render(self) -> Group:
        """For the terminal."""
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
        for name in ("found among", "by", "weights"):
            table.add_column(name, overflow="fold")
        for name in (*(f"first {k}, %" for k in KS), "median rank"):
            table.add_column(name, justify="right")
        for row in self.rows:
            shares = [f"{100 * row.recall[k]:.1f}" if k in row.recall else "-" for k in KS]
            among = f"{row.candidates:,} of {visible(row.found)}"
            table.add_row(among, visible(row.asked), row.row, *shares, f"{row.median_rank:g}")
        said = [
            f"Classes by their description, {row}: {100 * share:.1f} %"
            for row, share in self.zero_shot.items()
        ]
        return Group(f"{visible(self.data)}", table, *said)


def retrieve_run(
    run: Run, data: object, prompts: Sequence[str], listener: Listener
) -> RetrievalTable:
    """Ask a run, and the same networks with random weights; write ``retrieval.json``.

    Args:
        run: Of a method that brings sensors into one space.
        data: Where it has a test part, that is asked about.
        prompts: Descriptions of a class, with ``{}`` for its name.
        listener: Hears how it goes.

    Raises:
        UserError: the method compares no sensors, or the data has not two of them.
    """
    trained = _method_of(run)
    if bad := [prompt for prompt in prompts if "{}" not in prompt]:
        raise UserError(f"--prompt {bad[0]!r} has no {{}} in the place of the class")
    source = run.modality.open_parts(data, run.recipe.data)[-1]
    samples: Any = run.load_source(source, listener)
    where = getattr(samples, "where", {})
    if len(where) < 2:
        raise UserError(f"{source.name} has entries of one sensor alone: give a table with two")
    rows, zero = [], {}
    for name, method in ((RANDOM_BACKBONE, _untrained(run)), (PRETRAINED_BACKBONE, trained)):
        z = _embedded(method, samples, run.facts)
        for asked, found in permutations(where, 2):
            both = (where[asked] >= 0) & (where[found] >= 0)
            if not bool(both.any()):
                continue
            question, q = _entries(where[asked][both])
            candidate, c = _entries(where[found][both])
            # any row with an entry has its embedding
            asking, answers = z[asked][both][question], z[found][both][candidate]
            rows.append(retrieval(name, (asked, found), asking, answers, torch.stack([q, c])))
        if prompts and samples.labels is not None:
            share = _zero_shot(run, method, samples, z, prompts)
            if share is not None:
                zero[name] = share
    table = RetrievalTable(source.name, rows, zero, list(prompts))
    write_text(run.path / "retrieval.json", json.dumps(asdict(table), indent=2))
    return table


def _entries(at: Int[Tensor, " N"]) -> tuple[Int[Tensor, " E"], Int[Tensor, " N"]]:
    """A row for each entry, and the number of the entry of each row."""
    _, number = torch.unique(at, return_inverse=True)
    row = torch.empty(int(number.max()) + 1, dtype=torch.int64)
    row[number] = torch.arange(len(number))
    return row, number


def _zero_shot(
    run: Run, method: Any, samples: Any, z: dict[str, Tensor], prompts: Sequence[str]
) -> float | None:
    classes = samples.class_names
    texts = [prompt.replace("{}", name) for name in classes for prompt in prompts]
    described = run.modality.load(
        run.modality.of_texts("the prompts", texts, run.recipe.data), run.recipe.data
    )
    found = _embedded(method, described, run.facts)
    (words,) = found
    order = [described.names.index(visible(text)) for text in texts]
    each = found[words][order].view(len(classes), len(prompts), -1)
    kept = next((name for name in z if name != words), None)
    return None if kept is None else zero_shot(z[kept], each, samples.labels)


def _embedded(method: Any, samples: Samples[Any], facts: Any) -> dict[str, Tensor]:
    """The projections of every sensor's entries."""
    parts: dict[str, list[Tensor]] = {}
    with torch.inference_mode():
        for first in range(0, len(samples), _AT_ONCE):
            rows = samples.take(slice(first, first + _AT_ONCE))
            for name, z in method.embeddings(samples.clean(rows, facts)).items():
                parts.setdefault(name, []).append(z.float())
    return {name: torch.cat(found) for name, found in parts.items()}


def _method_of(run: Run) -> Method:
    """The whole method in evaluation mode."""
    method = build_method(run.recipe.method, run.recipe.backbone.build())
    if not hasattr(method, "embeddings"):
        raise UserError(
            f"{run.recipe.method.name} brings no sensors into one space, as clip does: there is "
            "nothing to find"
        )
    method.load_state_dict(run.checkpoint.method)
    return method.eval()


def _untrained(run: Run) -> nn.Module:
    """The same with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.recipe.seed)
        return build_method(run.recipe.method, run.recipe.backbone.build()).eval()
