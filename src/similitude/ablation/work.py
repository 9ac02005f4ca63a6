"""The runs of an ablation: trained, resumed or read, and scored."""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from similitude.ablation.findings import RunFinding
from similitude.ablation.grid import Planned
from similitude.errors import UserError
from similitude.evaluation import Score, ScoreTable, read_scores
from similitude.evaluation.comparison import PRETRAINED_BACKBONE
from similitude.experiment import FAILED, PROTOCOLS, is_finished, scorable, score, train_or_resume
from similitude.files.reading import damaged, read_json
from similitude.files.writing import write_text
from similitude.listener import Listener, Titled
from similitude.runs.folder import refuse_links
from similitude.runs.metrics import read_metrics
from similitude.runs.run import Run
from similitude.sample import Samples
from similitude.transfer import finetune

# Columns of metrics.csv that say where a run stands, not what came out.
NO_VALUES = {"step", "epoch", "lr", "images_per_second", "waiting_share", "feature_dim"}
NO_VALUES |= {"stopped_early", "chance_loss", "loss_floor"}


class Work:
    """Trains and scores one run after the other."""

    def __init__(
        self,
        folder: Path,
        images: Samples[Any],
        test: Samples[Any] | None,
        data: str,
        listener: Listener,
        total: int,
        *,
        label_fraction: float = 0.0,
        from_layer: int = 0,
    ) -> None:
        self.folder = folder
        self.images = images
        self.test = test
        self.data = data
        self.listener = listener
        self.total = total
        self.label_fraction = label_fraction  # that every run is fine-tuned on; 0: none is
        self.from_layer = from_layer
        self.done = 0
        self.failures: list[str] = []
        self.seconds: list[float] = []  # of the runs that were not only read
        # Raw pixels and random weights do not depend on what is ablated, unless these do.
        self.baselines: dict[tuple[Any, ...], dict[str, dict[str, Score]]] = {}
        self.table: ScoreTable | None = None

    def check(self, cells: Sequence[Planned], seeds: int) -> None:
        """Look at all places before anything is trained.

        Raises:
            UserError: a run with other settings is in one of them, or it leads elsewhere.
        """
        for cell in cells:
            for seed in range(seeds):
                refuse_links(self.folder, cell.folder, f"{cell.folder}/seed-{seed}")
                recipe = cell.recipe.changed(seed=seed)
                is_finished(self._folder(cell, seed), recipe)

    def finding(self, cell: Planned, seed: int) -> RunFinding | None:
        """What a run gave: read, resumed or trained; None if Ctrl-C stopped it."""
        start = time.perf_counter()
        self.done += 1
        folder = self._folder(cell, seed)
        recipe = cell.recipe.changed(seed=seed)
        was_there = is_finished(folder, recipe)
        title = f"{self.done}/{self.total} {cell.name}, seed {seed}"
        run = (
            Run(folder)
            if was_there
            else train_or_resume(
                self.images, self.data, recipe, folder, Titled(self.listener, title)
            )
        )
        if run is None:
            return None
        table = self._score(run) if scorable(self.images) else None
        found = _read(run, seed, table)
        if table is not None and self.label_fraction:
            accuracy = self._finetune(run, title)
            if accuracy is None:
                return None
            found.values["finetuned"] = accuracy
        self._tell(title, found, None if was_there else time.perf_counter() - start)
        return found

    def failure(self, cell: Planned, seed: int, error: Exception) -> RunFinding:
        """A run that ended with an error: told, and without numbers."""
        said = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        self.failures.append(f"{cell.name}, seed {seed}, failed: {said}")
        self.listener.say(self.failures[-1])
        return RunFinding(seed, self._folder(cell, seed), FAILED, False, 0.0, {})

    def _folder(self, cell: Planned, seed: int) -> Path:
        return self.folder / cell.folder / f"seed-{seed}"

    def _score(self, run: Run) -> ScoreTable | None:
        """Accuracies of the run beside the baselines, kept in its scores.json.

        They stand in evaluation.json too, for the report, until somebody evaluates that run.
        """
        path, recipe = run.path / "scores.json", run.recipe
        key = (recipe.backbone.model_dump_json(), repr(run.facts))
        table = read_scores(path)
        scored = {} if table is None else table.rows.get(PRETRAINED_BACKBONE, {})
        if table is not None and table.data == self.data and set(PROTOCOLS) <= scored.keys():
            return self._keep(key, table)
        known = self.baselines.get(key)
        table = score(run, self.images, self.test, self.data, baselines=known is None)
        if table is None:
            return None
        table = replace(table, rows={**(known or {}), **table.rows})
        for place in (run.path / "evaluation.json", path):  # the last one says that all is there
            write_text(place, json.dumps(table.to_json(), indent=2))
        return self._keep(key, table)

    def _finetune(self, run: Run, title: str) -> float | None:
        """Accuracy of the run with logits, trained on some labels; None if Ctrl-C stopped it."""
        place = run.path.with_name(f"{run.path.name}-finetuned")
        how: dict[str, Any] = {"resume": True}
        if not (place / "checkpoints" / "last.ckpt").exists():
            how = {"label_fraction": self.label_fraction, "from_layer": self.from_layer}
            how |= {"seed": run.recipe.seed, "overwrite": True}
        classifier = finetune(
            run.path,
            self.images if self.test is None else (self.images, self.test),
            out=place,
            listener=Titled(self.listener, f"{title}, on labels"),
            **how,
        )
        return None if classifier is None else classifier.test_accuracy

    def _keep(self, key: tuple[Any, ...], table: ScoreTable) -> ScoreTable:
        rows = {n: row for n, row in table.rows.items() if n != PRETRAINED_BACKBONE}
        if rows:
            self.baselines.setdefault(key, rows)
        self.table = self.table or table
        return table

    def _tell(self, title: str, found: RunFinding, seconds: float | None) -> None:
        parts = [
            f"{name} {100 * found.values[measure]:.1f}"
            for measure, name in (("knn", "kNN"), ("linear", "linear"), ("finetuned", "fine-tuned"))
            if measure in found.values
        ]
        parts.append(found.state + (", stopped early" if found.stopped_early else ""))
        if seconds is not None:
            self.seconds.append(seconds)
        left = (self.total - self.done) * sum(self.seconds) / max(1, len(self.seconds)) / 60
        if left:
            parts.append(f"about {math.ceil(left)} min left")
        self.listener.say(f"{title}: {', '.join(parts)}")

    def notes(self) -> list[str]:
        """What a reader of the table must know of images and scores."""
        notes = [*self.failures, f"{len(self.images):,} training images of {self.data}."]
        if self.table is None:
            return [*notes, "They have no labels, so nothing is scored."]
        notes.append(f"Scored on {self.table.num_test:,} test images.")
        if self.label_fraction:
            notes.append(f"Fine-tuned on {100 * self.label_fraction:g} % of the labels.")
        return [*notes, *self.table.notes]


def _read(run: Run, seed: int, table: ScoreTable | None) -> RunFinding:
    """Everything a finished run measured, and its scores."""
    rows = read_metrics(run.path / "metrics.csv")
    last = {name: value for row in rows for name, value in row.items()}
    values = {name: value for name, value in last.items() if name not in NO_VALUES}
    if "knn" in values:
        values["online_knn"] = values.pop("knn")
    if "feature_std" in last:
        values["relative_std"] = last["feature_std"] * math.sqrt(last["feature_dim"])
    if table is not None:
        scores = table.rows[PRETRAINED_BACKBONE]
        values |= {name: score.mean for name, score in scores.items()}
    path = run.path / "environment.json"
    environment = read_json(path)
    if not isinstance(environment, dict) or not isinstance(environment.get("seconds"), float):
        raise damaged(path, "it does not say how many seconds the run took")
    return RunFinding(
        seed, run.path, run.verdict.state, "stopped_early" in last, environment["seconds"], values
    )
