"""The rows of a decision: scored once, and kept in its folder.

Letters: N test samples, R draws of labels.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from similitude.decision import copies
from similitude.decision.parts import Parts
from similitude.decision.plan import OWN, RANDOM, SUPERVISED, Planned, minutes_of
from similitude.decision.training import Trainings, started_method
from similitude.evaluation import Features, KNNProbe, LinearProbe, centered, extract_features
from similitude.evaluation.evaluate import Entrant
from similitude.evaluation.few_labels import few_label_predictions
from similitude.files.reading import read_arrays
from similitude.files.writing import write_with
from similitude.listener import Listener, Titled
from similitude.modalities import chooser as chooser_of
from similitude.nets.start import Start
from similitude.recipes import touched_fields
from similitude.recipes.choose import set_num_samples
from similitude.runs.run import Run
from similitude.runs.scoring import entrant_of
from similitude.sample import DataConfig, Samples
from similitude.transfer.network import learned_method, random_method

DRAWS = 10
NEIGHBORS = 20
MOST_COPIES = 0.2  # of the test; where more are near to the training part, all data is so alike

Predicted = dict[str, Int[np.ndarray, "_ N"]]  # columns differ in R


@dataclass(frozen=True)
class Row:
    """What one way or several of a row say of the test samples.

    Attributes:
        predicted: Column -> class of each test sample, for each draw of labels.
        seconds: That it took.
        remark: A sentence on the training, where it went wrong; or empty.
    """

    predicted: Predicted
    seconds: float
    remark: str = ""


class Loaded(NamedTuple):
    """Training and test samples, as a config has them."""

    config: DataConfig
    train: Samples[Any]
    test: Samples[Any]


class Work:
    """Scores one row after the other.

    Attributes:
        parts: What it works on, less test samples that are copies of training samples.
        pairs: Names of those, and of the samples that they are copies of.
    """

    def __init__(
        self,
        folder: Path,
        parts: Parts,
        starts: Sequence[Start],
        everything: Sequence[Planned],
        minutes: float,
        settings: tuple[str, ...],
        seed: int,
        listener: Listener,
    ) -> None:
        self.folder = folder
        self.starts = {start.name: start for start in starts}
        self.everything = everything
        self.minutes = minutes
        self.seed = seed
        self.listener = listener
        self.known: list[Loaded] = []
        self.parts = parts
        chooser = chooser_of(parts.modality.kind)
        around = chooser.surroundings(parts.pool, parts.pool_size)
        self.trainings = Trainings(parts, around, settings, seed, listener)
        own = next(p for p in everything if p.row == OWN)
        self.chosen = self.trainings.choose(minutes_of(own, everything, minutes))
        train = self._readable(self.chosen.recipe.data)
        given = touched_fields(settings)
        recipe = chooser.fit(self.chosen.recipe, train, given, pixels=True, views=True)
        self.own = set_num_samples(recipe, self.chosen.samples)
        self.pairs = [] if train.seen_together else self._without_copies()
        self.trainings = replace(self.trainings, parts=self.parts)

    def row(self, planned: Planned) -> Row:
        """What a row gave: read, or scored now.

        Raises:
            KeyboardInterrupt: Ctrl-C ended its training, which is saved.
            UserError: It cannot be trained or scored, or its minutes are too few.
        """
        place = self.folder / "rows" / f"{slug(planned.title)}.npz"
        if place.exists():
            return _read(place)
        begin = time.perf_counter()
        do = {
            "plain": self._plain,
            "frozen": self._frozen,
            "pretrain": self._pretrained,
            "finetune": self._tuned,
        }
        predicted, remark = do[planned.task](planned)
        row = Row(predicted, time.perf_counter() - begin, remark)
        arrays: dict[str, Any] = {f"in {name}": array for name, array in row.predicted.items()}
        arrays |= {"seconds": np.array(row.seconds), "remark": np.array(row.remark)}
        write_with(place, lambda path: np.savez_compressed(path, **arrays))
        return row

    def tested_samples(self) -> Samples[Any]:
        """The test samples, as one's own network sees them."""
        return self._loaded(self.own.data)[1]

    def _readable(self, config: DataConfig) -> Samples[Any]:
        """The training samples; what cannot be read leaves both parts."""
        loaded, left = [], 0
        for place, name in enumerate(("train", "test")):
            self.listener.progress("reading", place, 2)
            part = getattr(self.parts, name)
            samples = self.parts.modality.load_some(part.source, part.positions, config)
            names = set(samples.names)
            mask = torch.tensor([n in names for n in part.names])
            left += int((~mask).sum())
            self.parts = self.parts.keeping(name, mask)
            loaded.append(samples.with_labels(part.y[mask], self.parts.class_names))
        self.listener.progress("reading", 2, 2)
        if left:
            self.parts.notes.append(f"{left} labeled samples cannot be read and are left out.")
        self.known = [Loaded(config, *loaded)]
        return loaded[0]

    def _without_copies(self) -> list[tuple[str, str]]:
        """Leave out test samples that nearly are training samples, and name both."""
        parts, config = self.parts, self._raw_config()
        train, test = self._loaded(config)
        raw = centered(_features(train, train.raw((test,))), _features(test, test.raw((train,))))
        seen = self._extracted(self._random(), self.own.data)
        found = copies.near_copies([(raw[1].x, raw[0].x), (seen[1].x, seen[0].x)])
        if not found:
            return []
        pairs = [(parts.test.names[p.sample], parts.train.names[p.other]) for p in found]
        mask = torch.ones(len(parts.test), dtype=torch.bool)
        mask[[p.sample for p in found]] = False
        shown = f"{pairs[0][0]} and {pairs[0][1]}"
        told = f"{len(found)} test {train.noun} are nearly training {train.noun} ({shown})"
        if len(found) > MOST_COPIES * len(parts.test):
            parts.notes.append(f"{told}: too many to leave out. --group keeps them on one side.")
        else:
            self.parts = parts.keeping("test", mask)
            self.parts.notes.append(f"{told} and are left out.")
            self.known = [known._replace(test=known.test.subset(mask)) for known in self.known]
        return pairs

    def _raw_config(self) -> DataConfig:
        return self.parts.modality.for_raw(self.own.data, self.parts.train.source)

    def _loaded(self, config: DataConfig) -> tuple[Samples[Any], Samples[Any]]:
        """Both parts as a config has them; those of two configs at a time are in memory."""
        for known in self.known:
            if known.config == config or self.parts.modality.same(config, known.train):
                return known.train, known.test
        parts = self.parts
        self.listener.progress("reading", 0, 2)
        train = parts.load(parts.train, config)
        self.listener.progress("reading", 1, 2)
        loaded = Loaded(config, train, parts.load(parts.test, config))
        self.listener.progress("reading", 2, 2)
        self.known = [*self.known[-1:], loaded]
        return loaded.train, loaded.test

    def _random(self) -> Entrant:
        return entrant_of(self.own, RANDOM, random_method(self.own, self.seed).kept_backbone)

    def _extracted(self, entrant: Entrant, config: DataConfig) -> tuple[Features, Features]:
        """Features of both parts."""
        train, test = self._loaded(config)
        total = len(train) + len(test)
        found, before = [], 0
        for samples in (train, test):

            def tell(done: int, _: int, before: int = before) -> None:
                self.listener.progress(f"{entrant.name}: features", before + done, total)

            x = extract_features(
                entrant.backbone,
                samples,
                entrant.facts,
                device=self.trainings.around.device,
                on_progress=tell,
                autocast_dtype=entrant.autocast_dtype,
                channels_last=entrant.channels_last,
            )
            found.append(x)
            before += len(samples)
        return found[0], found[1]

    def _probed(self, title: str, train: Features, test: Features) -> Predicted:
        """What kNN and linear probes say of the test."""
        assert train.y is not None
        self.listener.progress(f"{title}: probes", 0, 1)
        knn = KNNProbe(min(NEIGHBORS, len(train))).fit(train.x, train.y)
        linear = LinearProbe(seed=self.seed, one_scale=train.one_scale).fit(train.x, train.y)
        few = few_label_predictions(train, test, draws=DRAWS, seed=self.seed)
        found = {"knn": knn.predict(test.x)[None], "linear": linear.predict(test.x)[None]}
        found |= {f"linear_{k}": predicted for k, predicted in few.items()}
        self.listener.progress(f"{title}: probes", 1, 1)
        return {name: array.cpu().numpy().astype(np.int32) for name, array in found.items()}

    def _plain(self, planned: Planned) -> tuple[Predicted, str]:
        train, test = self._loaded(self._raw_config())
        if planned.row == train.raw_name:
            numbers = train.raw((test,)), test.raw((train,))
        else:
            numbers = train.baselines()[planned.row], test.baselines()[planned.row]
        one_scale = train.has_one_scale(planned.row)
        both = (_features(s, x, one_scale) for s, x in zip((train, test), numbers, strict=True))
        return self._probed(planned.row, *centered(*both)), ""

    def _frozen(self, planned: Planned) -> tuple[Predicted, str]:
        config = self.own.data
        if planned.start:
            start = self.starts[planned.start]
            samples, source = self._loaded(config)[0], self.parts.train.source
            facts, wanted = self.parts.modality.entrant_at(start, samples, source)
            entrant = Entrant(planned.row, start.build(), facts, channels_last=True)
            both = self._extracted(entrant, wanted or config)
        else:
            both = self._extracted(self._random(), config)
        return self._probed(planned.row, *both), ""

    def _pretrained(self, planned: Planned) -> tuple[Predicted, str]:
        minutes = minutes_of(planned, self.everything, self.minutes)
        start = self.starts.get(planned.start)
        chosen = self.trainings.choose(minutes, start)
        if start is None:
            chosen = replace(chosen, recipe=self.own)  # which fits the samples already
        run = self._heard_as(planned).pretrained(
            self.folder / slug(planned.row), chosen, minutes, start, self._is_tested
        )
        if run is None:
            raise KeyboardInterrupt  # it is saved
        entrant = entrant_of(run.recipe, planned.row, run.backbone)
        both = self._extracted(entrant, run.recipe.data)
        remark = "" if run.verdict.state == "healthy" else run.verdict.sentence
        return self._probed(planned.row, *both), remark

    def _tuned(self, planned: Planned) -> tuple[Predicted, str]:
        minutes = minutes_of(planned, self.everything, self.minutes)
        if planned.row == SUPERVISED:
            network, method = self.own, random_method(self.own, self.seed)
        elif planned.row in self.starts:
            start = self.starts[planned.row]
            network = self.trainings.choose(minutes, start).recipe
            method = started_method(network, start, self.seed)
        else:
            run = Run(self.folder / slug(planned.row))
            network, method = run.recipe, learned_method(run)
        name = slug(planned.row if planned.row == SUPERVISED else planned.title)
        classifier = self._heard_as(planned).tuned(
            self.folder / name,
            method,
            network,
            minutes,
            source=planned.row,
            from_scratch=planned.row == SUPERVISED,
        )
        if classifier is None:
            raise KeyboardInterrupt  # it is saved
        logits = classifier.logits(self._loaded(classifier.recipe.data)[1])
        return {"finetuned": logits.x.argmax(1).numpy().astype(np.int32)[None]}, ""

    def _heard_as(self, planned: Planned) -> Trainings:
        """The trainings, heard of under the name of what is trained."""
        return replace(self.trainings, listener=Titled(self.listener, planned.title))

    def _is_tested(self, samples: Samples[Any], config: DataConfig) -> Bool[Tensor, " N"]:
        """Which samples are equal to one of the test."""
        if samples.seen_together:
            return torch.zeros(len(samples), dtype=torch.bool)
        test = self._loaded(config)[1]
        return copies.equal(samples.raw((test,)), test.raw((samples,)))


def slug(title: str) -> str:
    """A name of a file or folder for a row."""
    return re.sub(r"[^a-z0-9.]+", "-", title.lower()).strip("-.")


def _features(samples: Samples[Any], x: Tensor, one_scale: bool = False) -> Features:
    return Features(x, samples.labels, list(samples.names), one_scale)


def _read(path: Path) -> Row:
    arrays = read_arrays(path)
    predicted = {name[3:]: array for name, array in arrays.items() if name.startswith("in ")}
    return Row(predicted, float(arrays["seconds"]), str(arrays["remark"]))
