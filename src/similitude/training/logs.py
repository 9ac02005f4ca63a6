"""Where the curves of a run go besides metrics.csv: TensorBoard always, others where asked for.

A function, a line in ``LOGGERS``, the name in ``training/request.py`` and an extra in
pyproject.toml add one.
"""

import importlib
import importlib.util
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from tensorboard.compat.proto.event_pb2 import (
    Event,  # pyright: ignore[reportAttributeAccessIssue]
    SessionLog,  # pyright: ignore[reportAttributeAccessIssue]
)
from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.summary.writer.record_writer import RecordWriter

from similitude.errors import UserError
from similitude.files.writing import writing_error
from similitude.recipes import Recipe

# Functions of a library: one takes a row of metrics and its step, the other ends the run there.
Backend = tuple[Callable[..., Any], Callable[[], Any]]
PROJECT = "similitude"  # what the runs are filed under


@runtime_checkable
class Logger(Protocol):
    """Who is told the rows of metrics.csv while they are made."""

    def add(self, values: Mapping[str, float]) -> None:
        """A row of metrics, with its step."""

    def close(self) -> None:
        """There are no more."""


def open_loggers(
    names: Sequence[str], folder: Path, first_step: int, recipe: Recipe, tell: Callable[[str], None]
) -> list[Logger]:
    """TensorBoard's, and those of these names.

    Args:
        names: keys of `LOGGERS`.
        folder: of the run.
        first_step: where it begins or goes on.
        recipe: of the run.
        tell: called with a sentence where a logger is given up.
    """
    others = [_Careful(name, LOGGERS[name](folder, recipe), tell) for name in names]
    return [TensorBoard(folder / "events", first_step, tell), *others]


def check_loggers(names: Sequence[str]) -> None:
    """Refuse loggers whose package is not installed, before any work.

    Raises:
        UserError: says how to install it.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise UserError(f"--log {name} needs its package: pip install 'similitude[{name}]'")


def _wandb(folder: Path, recipe: Recipe) -> Backend:
    """Weights & Biases; ``WANDB_MODE=offline`` keeps the run on this machine."""
    run = importlib.import_module("wandb").init(
        project=PROJECT,
        name=folder.name,
        dir=str(folder.parent),
        config=recipe.model_dump(mode="json"),
        id=run_id(folder),
        resume="allow",
    )
    return run.log, run.finish


def _mlflow(folder: Path, recipe: Recipe) -> Backend:
    """MLflow, at the place that ``MLFLOW_TRACKING_URI`` names."""
    mlflow = importlib.import_module("mlflow")
    mlflow.set_experiment(PROJECT)
    mlflow.start_run(run_name=folder.name)
    mlflow.log_dict(recipe.model_dump(mode="json"), "recipe.yaml")
    return mlflow.log_metrics, mlflow.end_run


def _trackio(folder: Path, recipe: Recipe) -> Backend:
    """Trackio, Hugging Face's: on this machine, or in a Space."""
    trackio = importlib.import_module("trackio")
    config = recipe.model_dump(mode="json")
    trackio.init(project=PROJECT, name=run_id(folder), config=config, resume="allow")
    return trackio.log, trackio.finish


LOGGERS: dict[str, Callable[[Path, Recipe], Backend]] = {
    "mlflow": _mlflow,
    "trackio": _trackio,
    "wandb": _wandb,
}


def run_id(folder: Path) -> str:
    """A name that a run keeps when it is resumed, and loses when it is replaced."""
    recipe = folder / "recipe.yaml"
    begun = int(recipe.stat().st_mtime) if recipe.exists() else 0
    return f"{folder.name}-{begun:x}"


class _Careful:
    """A logger whose errors end itself and not the run."""

    def __init__(self, name: str, backend: Backend, tell: Callable[[str], None]) -> None:
        self._name, self._tell = name, tell
        self._log, self._finish = backend
        self._is_well = True

    def add(self, values: Mapping[str, float]) -> None:
        self._try(lambda: self._log(dict(values), step=int(values["step"])))

    def close(self) -> None:
        self._try(self._finish)

    def _try(self, do: Callable[[], Any]) -> None:
        if not self._is_well:
            return
        try:
            do()
        except Exception as error:  # of somebody else's library, server or network
            self._is_well = False
            why = str(error).strip().splitlines()[:1] or [type(error).__name__]
            self._tell(f"  {self._name} failed ({why[0][:150]}): the run goes on without it")


class TensorBoard:
    """TensorBoard's file of the curves; where it cannot be written the run goes on without it.

    Written here, record by record: the library's own writer is a thread, which tells of a full disk
    by a traceback.
    """

    def __init__(self, folder: Path, first_step: int, tell: Callable[[str], None]) -> None:
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._path, self._tell = folder / name, tell
        self._file: FileIO | None = None
        with self._guarded():
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("xb", buffering=0)
        self._put(Event(step=first_step, file_version="brain.Event:2"))
        # what an earlier part of the run wrote beyond this step is not shown
        self._put(Event(step=first_step, session_log=SessionLog(status=SessionLog.START)))

    def add(self, values: Mapping[str, float]) -> None:
        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._put(Event(step=int(values["step"]), summary=Summary(value=scalars)))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _put(self, event: Event) -> None:
        event.wall_time = time.time()
        with self._guarded():
            if self._file is not None:
                RecordWriter(self._file).write(event.SerializeToString())

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.close()
            self._file = None
            self._tell(f"  {writing_error(self._path, error)}: the run goes on without events")
