"""Fixtures shared by all tests: reproducible torch, and the optional shared data."""

import gc
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
import torch.multiprocessing as mp

# Annotations are checked where shapes are; the others pyright checks, without costing time here.
SOURCE = Path(__file__).parents[1] / "src"
WITH_SHAPES = [
    ".".join(file.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
    for file in SOURCE.rglob("*.py")
    if "jaxtyping" in file.read_text(encoding="utf-8")
]
jaxtyping.install_import_hook(WITH_SHAPES, "typecheck.check")

SHARED = Path(os.environ.get("SIMILITUDE_SHARED", Path(__file__).parents[2] / "shared"))


# What is imported stays: to look through it for garbage, again and again, takes seconds.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _no_cache_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache-home")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    """What is to survive a loss of power is not tested by this, and a run waits 40 times for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Fixtures of a module are made before those of a test: the first trained with all cores."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _reproducible() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


@contextmanager
def _without_checks() -> Iterator[None]:
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """For tests of what a user is told: without it, the check of annotations speaks first."""
    with _without_checks():
        yield


@pytest.fixture(scope="module")
def unchecked_runs() -> Iterator[None]:
    """For trainings of what other tests train with checks, which cost a quarter of the time."""
    with _without_checks():
        yield


@pytest.fixture(scope="module")
def forked_processes() -> Iterator[None]:
    """For what starts processes in this one: each new interpreter would import for seconds.

    They have the environment and the standard streams that the first test to start any had.
    """
    from builders import PRELOADED  # not before what it imports is to be checked

    start = mp.get_context
    multiprocessing.set_forkserver_preload(PRELOADED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mp, "get_context", lambda _: start("forkserver"))
        yield


@pytest.fixture(scope="session")
def _forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from forks import Forks

    forks = Forks(tmp_path_factory.mktemp("forks"))
    yield forks
    forks.close()


@pytest.fixture(scope="module")
def forked_exports(_forks: Any) -> Iterator[None]:
    """For exports, each of which is opened by a new interpreter that imports for seconds."""
    from similitude.runs import exporting

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "subprocess", _forks)
        yield


def _shared_folder(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"needs {name} vectors or images in {SHARED} (set SIMILITUDE_SHARED)")
    return folder


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """The folder of reference vectors; the test skips where it is missing."""
    return _shared_folder("golden")


@pytest.fixture(scope="session")
def shared_data_dir() -> Path:
    """The folder of real images; the test skips where it is missing."""
    return _shared_folder("data")
