"""Whether a published model is good enough, adapting it helps, or one's own network is worth it."""

import csv
import io
import json
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from similitude.decision.findings import Decision, Holdout, decided, standing
from similitude.decision.parts import Parts, open_parts
from similitude.decision.plan import RANDOM, SUPERVISED, Planned, all_rows, left_out
from similitude.decision.work import Row, Work
from similitude.distributed.launch import refuse_processes
from similitude.errors import UserError
from similitude.evaluation.evaluate import check_names
from similitude.evaluation.scores import column_title, place_of_column
from similitude.files.reading import read_json
from similitude.files.writing import as_path, check_writable, contents, write_text, write_with
from similitude.listener import Listener, Silent
from similitude.modalities import chooser, modality_of
from similitude.nets.start import Start
from similitude.report.decision import write_decision_page
from similitude.runs.starts import fitted, opened
from similitude.training.choose import opened_with
from similitude.training.request import PretrainRequest

__all__ = ["Decision", "decide"]

MOST_PICTURES = 48  # mistakes that are shown
SIDE = 56  # pixels of each


def decide(
    data: Any,
    labeled: Any = None,
    *,
    labels: str | Path | None = None,
    against: Sequence[str | Path | Start] | str | None = None,
    minutes: float = 10.0,
    group: str | int | None = None,
    overrides: Sequence[str] = (),
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    listener: Listener | None = None,
) -> Decision | None:
    """Compare what one could use on one's own data, and say in one sentence which to take.

    Rows are plain numbers, a random network, published ones as they are and adapted, a network
    trained on the labels alone, and one's own without labels; protocols are kNN, a linear probe on
    1, 5, 10, 100 and all labels of each class, and fine-tuning. All meet the same test samples and
    the same draws of labels. Cheap rows come first, and what cannot change the answer is left out.
    The same call goes on where the last one was stopped.

    Args:
        data: whatever :func:`similitude.pretrain` takes; labeled, where ``labeled`` is not given.
            Its test part is the test; without one a fifth is held out.
        labeled: labeled samples, where ``data`` has no labels.
        labels: a CSV file of ``file,label`` rows, for folders without class subfolders.
        against: published models: "efficientnet-lite0", "timm:NAME", files or runs. By default what
            the kind of data has without a network, if it is installed.
        minutes: that all trainings may take together, where nothing else runs.
        group: what belongs together and stays on one side: a column of ``labels``, or the level of
            a folder as a number, 1 the first.
        overrides: as in :func:`similitude.pretrain`; for all trainings, and how data is read.
        seed: of everything that is drawn.
        out: the folder; ``decisions/NAME``.
        resume: refuse to begin anew where there is nothing to go on with.
        listener: hears each row as it arrives.

    Returns:
        The decision, or None if Ctrl-C stopped it; what there was then is in the folder.

    Raises:
        UserError: anything the caller can mend, in one sentence.
    """
    listener = listener or Silent()
    refuse_processes("decide")
    if not 0 < minutes < math.inf:
        raise UserError(f"--minutes {minutes:g}: give a number above 0")
    folder = _folder(data, out)
    if resume and not (folder / "plan.json").exists():
        raise UserError(f"there is no decision in {folder} to go on with: leave out --resume")
    settings = tuple(overrides)
    request = PretrainRequest(data, overrides=settings)
    config = opened_with(request, chooser(modality_of(data).kind))
    grouped = None if group is None else str(group)
    parts = open_parts(data, labeled, labels, grouped, seed, config)
    starts = fitted(_published(parts, against, listener), parts.modality, config, listener)
    asked = {
        "minutes": minutes,
        "seed": seed,
        "group": grouped,
        "samples": _fingerprint(parts),
        "against": {start.name: start.fingerprint for start in starts},
        **({"settings": list(settings)} if settings else {}),
    }
    _hold_to(folder, asked)
    return _Deciding(folder, parts, starts, minutes, settings, seed, listener).carry_out()


class _Deciding:
    """One decision under way."""

    def __init__(
        self,
        folder: Path,
        parts: Parts,
        starts: Sequence[Start],
        minutes: float,
        settings: tuple[str, ...],
        seed: int,
        listener: Listener,
    ) -> None:
        self.folder = folder
        self.minutes = minutes
        self.seed = seed
        self.listener = listener
        some = parts.some()
        if some.seen_together:
            parts = parts.seen_together()
        self.plain = [some.raw_name, *some.baselines()]
        names = [start.name for start in starts]
        check_names(names, taken=(*self.plain, RANDOM, SUPERVISED))
        self.everything = all_rows(self.plain, names)
        listener.say(
            f"{len(parts.train):,} labeled {some.noun} to learn from and {len(parts.test):,} to "
            f"test on, of {len(parts.class_names)} classes; {parts.pool_size:,} to pretrain on; in "
            f"{folder}"
        )
        self.work = Work(folder, parts, starts, self.everything, minutes, settings, seed, listener)
        for note in self.work.parts.notes:
            listener.say(f"  {note}")
        parts = self.work.parts
        self.tested = Holdout(
            parts.name,
            parts.test.y.numpy(),
            parts.test.units,
            parts.class_names,
            len(parts.train),
            some.noun,
            self.plain,
        )
        self.rows: dict[str, Row] = {}
        self.left_out: dict[str, str] = {}

    def carry_out(self) -> Decision | None:
        """Row by row; None if Ctrl-C ended it."""
        try:
            for planned in self.everything:
                self._do(planned)
        except (KeyboardInterrupt, SystemExit) as ended:
            decision = self._conclude(is_complete=False, with_page=True)
            if decision is not None:
                self.listener.say(decision.sentence)
                self.listener.say(f"not tried yet: {', '.join(decision.waiting) or 'nothing'}")
            self.listener.say(
                f"stopped; what there is, is in {self.folder}, and the same command goes on"
            )
            if isinstance(ended, SystemExit):
                raise
            return None
        if not self.rows:
            title, why = next(iter(self.left_out.items()))
            raise UserError(f"no row could be scored: {title}: {why}")
        return self._conclude(is_complete=True, with_page=True)

    def _do(self, planned: Planned) -> None:
        if planned.is_trained and self.rows:
            now = standing(self.everything, self.rows, self.tested, self.left_out)
            if (why := left_out(planned, now)) is not None:
                self._leave_out(planned, why)
                return
        try:
            row = self.work.row(planned)
        except UserError as error:
            self._leave_out(planned, str(error))
            return
        self.rows[planned.title] = row
        decision = self._conclude(is_complete=False, with_page=False)
        assert decision is not None
        scores = decision.table.rows[planned.row]
        shown = [
            f"{column_title(column).short} {scores[column].to_text()}"
            for column in sorted(row.predicted, key=place_of_column)
        ]
        self.listener.say(f"{planned.title}: {', '.join(shown)}")

    def _leave_out(self, planned: Planned, why: str) -> None:
        if why not in self.left_out.values():
            self.listener.say(f"{planned.title} is left out: {why}")
        self.left_out[planned.title] = why

    def _conclude(self, *, is_complete: bool, with_page: bool) -> Decision | None:
        """Write what is known; None where there is nothing yet."""
        if not self.rows:
            return None
        decision = decided(
            self.folder,
            self.everything,
            self.rows,
            self.tested,
            notes=self.work.parts.notes,
            copies=self.work.pairs,
            left_out=self.left_out,
            minutes=self.minutes,
            seed=self.seed,
            is_complete=is_complete,
        )
        decision.write()
        if with_page:
            self._write_predictions()
            self._write_pictures(decision)
            write_decision_page(self.folder)
        return decision

    def _write_predictions(self) -> None:
        """Write predictions.csv: what each way calls each test sample, learned from all labels."""
        ways = [planned for planned in self.everything if planned.title in self.rows]
        names, tested = np.array(self.tested.class_names), self.tested
        said = [names[self.rows[way.title].predicted[way.column][0]] for way in ways]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["name", "group", "class", *(way.title for way in ways)])
        writer.writerows(
            zip(self.work.parts.test.names, tested.units, names[tested.y], *said, strict=True)
        )
        write_text(self.folder / "predictions.csv", text.getvalue())

    def _write_pictures(self, decision: Decision) -> None:
        """Write mistakes.npz: some test samples that the advised way calls something else."""
        planned = next(p for p in self.everything if p.title == decision.use)
        said = self.rows[decision.use].predicted[planned.column][0]
        wrong = np.flatnonzero(said != self.tested.y)
        some = wrong[np.linspace(0, len(wrong) - 1, min(len(wrong), MOST_PICTURES)).astype(int)]
        test, names = self.work.tested_samples(), np.array(self.tested.class_names)
        arrays: dict[str, Any] = {
            "names": np.array([test.names[i] for i in some]),
            "classes": names[self.tested.y[some]],
            "said": names[said[some]],
        }
        if len(some):
            arrays["thumbnails"] = test.subset(some.tolist()).thumbnails(SIDE)
        write_with(self.folder / "mistakes.npz", lambda path: np.savez_compressed(path, **arrays))


def _folder(data: Any, out: str | Path | None) -> Path:
    """Where the decision is, or goes."""
    if out is None:
        name = Path(data).resolve().stem if isinstance(data, str | Path) else "data"
        out = Path("decisions") / (name or "data")
    folder = as_path(out)
    check_writable(folder, "plan.json")
    if folder.is_dir() and contents(folder) and not (folder / "plan.json").exists():
        raise UserError(f"{folder} is not empty and no decision: give another --out")
    return folder


def _published(
    parts: Parts, against: Sequence[str | Path | Start] | str | None, listener: Listener
) -> list[Start]:
    """The published models that get rows; without a word of the user, what is here already."""
    kind = parts.modality
    if against is not None:
        given = [against] if isinstance(against, str) else list(against)
        if given and kind.starts is None:
            raise UserError(f"there are no published models for {kind.noun}: leave out --against")
        return opened(given)
    if kind.starts is None:
        return []
    try:
        return opened([kind.starts.DEFAULT_START])
    except UserError as error:
        listener.say(f"no published model is compared: {error}; or name one with --against")
        return []


def _fingerprint(parts: Parts) -> str:
    """Names and classes of all labeled samples in a few characters."""
    found = 0
    for part in (parts.train, parts.test):
        found = zlib.crc32("\n".join(part.names).encode(), found)
        found = zlib.crc32(part.y.numpy().tobytes(), found)
    return f"{len(parts.train)}-{len(parts.test)}-{parts.pool_size}-{found:08x}"


def _hold_to(folder: Path, asked: dict[str, Any]) -> None:
    """Write what is asked for, or refuse what is not what the folder's decision was asked."""
    place = folder / "plan.json"
    if not place.exists():
        write_text(place, json.dumps(asked, indent=2) + "\n")
        return
    stored = read_json(place)
    for name, value in asked.items():
        before = stored.get(name) if isinstance(stored, dict) else None
        if before != value:
            raise UserError(
                f"{folder} holds a decision with other {name} ({before}, and now {value}): give "
                "another --out"
            )
