"""What a run that compares sensors finds: entries of one by those of another, classes by words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from similitude.errors import UserError, visible
from similitude.evaluation.comparison import PRETRAINED_BACKBONE, RANDOM_BACKBONE
from similitude.evaluation.retrieval import retrieval, zero_shot
from similitude.evaluation.retrieval_table import RetrievalTable
from similitude.files.writing import taking_turns, write_text, write_with
from similitude.listener import Listener
from similitude.method import Method
from similitude.methods import build_method
from similitude.nets.weights import fingerprint_of
from similitude.randomness import permutation
from similitude.runs.folder import is_held
from similitude.runs.gallery import THUMBNAIL_SIZE
from similitude.runs.run import Run
from similitude.sample import Samples

_AT_ONCE = 256  # samples
EXAMPLES = 24  # questions that the report shows, of all directions together
SHOWN = 5  # answers to each


@dataclass(frozen=True)
class _Direction:
    """Entries of one sensor that ask, and those of another that are ranked. Q, C: of each.

    Attributes:
        asked: The sensor.
        found: The other.
        questions: Position of each among the sensor's samples.
        candidates: Position of each among the other's.
        rows: A row of the table with each question, and one with each candidate.
        right: Pairs of a question and a candidate that belong together.
    """

    asked: str
    found: str
    questions: Int[Tensor, " Q"]
    candidates: Int[Tensor, " C"]
    rows: tuple[Int[Tensor, " Q"], Int[Tensor, " C"]]
    right: Int[Tensor, "2 E"]

    def of(self, z: Mapping[str, Tensor]) -> tuple[Float[Tensor, "Q P"], Float[Tensor, "C P"]]:
        """The embeddings of questions and candidates."""
        return z[self.asked][self.rows[0]], z[self.found][self.rows[1]]


def retrieve_run(
    run: Run, data: object, prompts: Sequence[str], listener: Listener
) -> RetrievalTable:
    """Ask a run, and the same networks with random weights; write ``retrieval.json`` and ``.npz``.

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
    kind: Any = run.modality  # of several sensors, as the method
    parts = kind.open_together(data, run.recipe.data)
    source = parts[-1]
    if len(parts) == 1:
        listener.say(
            f"{source.name} has no test part: what the run was trained on is found more easily"
        )
    samples: Any = run.load_source(source, listener)
    where = getattr(samples, "where", {})
    if len(where) < 2:
        known = ", ".join(run.recipe.data.sensors)  # type: ignore[attr-defined]
        raise UserError(
            f"{source.name} has entries of fewer than two of the run's sensors ({known}): give a "
            "table with columns of their names, or files with texts beside them"
        )
    if prompts and all(name.isdigit() for name in samples.class_names or ["?"]):
        listener.say(
            f"the classes are called {', '.join(samples.class_names[:3])}: descriptions need their "
            "names, which KEY.cls in tar files or class labels of Parquet files may hold"
        )
    directions = [found for pair in permutations(where, 2) if (found := _direction(where, *pair))]
    if not directions:
        raise UserError(f"no row of {source.name} has entries of two sensors: there is no pair")
    methods = {RANDOM_BACKBONE: _untrained(run), PRETRAINED_BACKBONE: trained}
    z = {name: _embedded(method, samples, run.facts) for name, method in methods.items()}
    rows = [
        retrieval(name, (one.asked, one.found), *one.of(z[name]), one.right)
        for one in directions
        for name in methods
    ]
    zero = {}
    if prompts and samples.labels is not None:
        shares = {n: _zero_shot(run, m, samples, z[n], prompts) for n, m in methods.items()}
        zero = {name: share for name, share in shares.items() if share is not None}
    weights = {PRETRAINED_BACKBONE: fingerprint_of(run.backbone.state_dict())}
    table = RetrievalTable(source.name, rows, zero, list(prompts), weights)
    if run.is_outdated:
        listener.say(
            f"{run.path} has trained on meanwhile: this is of step {run.checkpoint.step:,}, and is "
            "not kept"
        )
        return table
    if is_held(run.path):
        listener.say(
            f"{run.path} is trained still: this is of step {run.checkpoint.step:,}, and is removed "
            "when that ends"
        )
    examples: dict[str, Any] = _examples(
        directions, z[PRETRAINED_BACKBONE], samples.of, run.recipe.seed
    )
    place = run.path / "retrieval.npz"
    with taking_turns(run.path):  # both are of one table
        write_with(place, lambda path: np.savez_compressed(path, **examples))
        write_text(run.path / "retrieval.json", table.to_json())
    return table


def _direction(where: Mapping[str, Tensor], asked: str, found: str) -> _Direction | None:
    """Those of the samples with entries of both; None if there is none."""
    both = torch.nonzero((where[asked] >= 0) & (where[found] >= 0)).flatten()
    if not len(both):
        return None
    ends = []
    for name in (asked, found):
        at, number = torch.unique(where[name][both], return_inverse=True)
        row = torch.empty_like(at)
        row[number] = both  # any row with an entry has its embedding
        ends.append((at, row, number))
    (questions, asking, q), (candidates, answers, c) = ends
    rows = (asking, answers)
    return _Direction(asked, found, questions, candidates, rows, torch.stack([q, c]))


def _examples(
    directions: Sequence[_Direction],
    z: Mapping[str, Tensor],
    of: Mapping[str, Samples[Any]],
    seed: int,
) -> dict[str, np.ndarray]:
    """Some questions of each direction and what was found first: see ``report.read.Examples``."""
    each = max(2, EXAMPLES // len(directions))
    entries: dict[tuple[str, int], int] = {}  # number of each that is shown
    shown: dict[str, list[Any]] = {"asked": [], "found": [], "query": [], "answers": []}
    shown["right"] = []
    for one in directions:
        asking, answers = one.of(z)
        some = permutation(seed, -1, len(asking))[:each].sort().values
        first = (asking[some] @ answers.T).topk(min(SHOWN, len(answers))).indices
        right = set(map(tuple, one.right.T.tolist()))
        for question, found in zip(some.tolist(), first.tolist(), strict=True):
            query = (one.asked, int(one.questions[question]))
            picked = [(one.found, int(one.candidates[answer])) for answer in found]
            numbers = [entries.setdefault(entry, len(entries)) for entry in (query, *picked)]
            missing = SHOWN - len(found)
            shown["asked"].append(one.asked)
            shown["found"].append(one.found)
            shown["query"].append(numbers[0])
            shown["answers"].append(numbers[1:] + missing * [-1])
            belongs = [(question, answer) in right for answer in found]
            shown["right"].append(belongs + missing * [False])
    pictures = np.empty((len(entries), THUMBNAIL_SIZE, THUMBNAIL_SIZE, 3), np.uint8)
    for sensor, samples in of.items():
        own = {at: number for (name, at), number in entries.items() if name == sensor}
        if own:
            pictures[list(own.values())] = _squares(samples, torch.tensor(list(own)))
    return {
        **{name: np.array(values) for name, values in shown.items()},
        "names": np.array([of[sensor].names[at] for sensor, at in entries]),
        "is_text": np.array([of[sensor].is_text for sensor, _ in entries]),
        "thumbnails": pictures,
    }


def _squares(samples: Samples[Any], index: Int[Tensor, " M"]) -> np.ndarray:
    """Pictures of some, of one size whatever the sensor."""
    side = (THUMBNAIL_SIZE, THUMBNAIL_SIZE)
    pictures = map(Image.fromarray, samples.thumbnails_of(index, THUMBNAIL_SIZE))
    return np.stack([np.asarray(picture.resize(side)) for picture in pictures])


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
