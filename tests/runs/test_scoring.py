"""What a run is scored beside: raw pixels, its start, published weights."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import PrivateAttr
from torch import Tensor, nn

from builders import Ears, TinyBackbone, random_images, small_recipe, write_photos
from similitude.errors import UserError
from similitude.evaluation import ScoreTable
from similitude.images import samples
from similitude.images.image_set import ImageSet
from similitude.images.loading import load_images
from similitude.images.source import ImageSource
from similitude.listener import Silent
from similitude.nets.start import Start
from similitude.report import read_run
from similitude.runs import scoring, starts
from similitude.runs.run import Run
from similitude.sample import NetworkConfig
from similitude.training.pretrain import train

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


class Watching(TinyBackbone):
    """Remembers the images that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return super().forward(x)


class Tiny(NetworkConfig):
    """Builds one network, always the same."""

    name: str = "tiny"
    _network: Watching = PrivateAttr(default_factory=Watching)

    def build(self) -> Watching:
        return self._network


def published(name: str = "timm:tiny", image_size: int = 32) -> Start:
    """Weights of a network that remembers the images that it is given."""
    config = Tiny()
    state = config.build().state_dict()
    return Start(name, "tiny", config, state, image_size, (0.5,) * 3, (0.25,) * 3, [])


def trained(folder: Path, **changes: Any) -> Run:
    """A run of 16 px that took one epoch."""
    recipe = small_recipe("simclr", epochs=1, precision="float32", **changes)
    run = train(random_images(32), "x", recipe, folder, device=CPU, listener=Silent())
    assert run is not None
    return run


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos") / "p", 48, size=40, classes=3)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return trained(tmp_path / "run", canvas_size=18)


def test_raw_pixels_do_not_depend_on_the_run(tmp_path: Path) -> None:
    """Classes are drawn at random, so that the last digit of a pixel may change what is found."""
    photos = write_photos(tmp_path / "p", 60, size=40, classes=0)
    labels = [f"photo{i:03d}.png,{i * i % 7 % 3}" for i in range(60)]
    (tmp_path / "labels.csv").write_text("\n".join(labels))
    runs = [
        trained(tmp_path / "a", image_size=16, canvas_size=18, mean=(0.1, 0.5, 0.9)),
        trained(tmp_path / "b", image_size=24, std=(0.1, 0.3, 0.9)),
    ]
    one, other = (r.evaluate(photos, labels=tmp_path / "labels.csv", draws=2) for r in runs)
    assert one.rows["raw pixels"] == other.rows["raw pixels"]
    assert one.rows["random backbone"] != other.rows["random backbone"]
    assert one.key.split("-")[1] == other.key.split("-")[1]  # the same pixels, to the bit


def test_what_belongs_together_is_held_out_together(run: Run, photos: Path, tmp_path: Path) -> None:
    names = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    rows = [f"{name},{i % 3},{i // 6}" for i, name in enumerate(names)]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["file,label,group", *rows]))
    heard = Ears()
    run.evaluate(photos, labels=table, protocols="knn", listener=heard)
    assert any("has a column group: --group group" in line for line in heard.sentences)
    found = run.evaluate(photos, labels=table, group="group", protocols="knn")
    assert (found.num_train, found.num_test) in {(36, 12), (42, 6)}  # of eight groups of six
    assert "groups, were held out." in found.notes[0]


def test_published_weights_get_a_row_on_images_of_their_own_size(run: Run, photos: Path) -> None:
    start = published()
    table = run.evaluate(photos, protocols=("knn",), against=[start])
    rows = ["raw pixels", "random backbone", "timm:tiny", "pretrained backbone"]
    assert list(table.rows) == rows
    assert list(table.differences) == rows[:-1]
    (images,) = start.backbone.build().seen
    assert images.shape == (48, 3, 32, 32)
    assert images.is_contiguous(memory_format=torch.channels_last)
    # Of canvases of 37 px, not of the run's 18: noise of one pixel is still there.
    sharp = (images[..., 1:] - images[..., :-1]).abs().mean()
    blurred = nn.functional.interpolate(images, 18, mode="bilinear", antialias=True)
    blurred = nn.functional.interpolate(blurred, 32, mode="bilinear")
    assert sharp > 2 * (blurred[..., 1:] - blurred[..., :-1]).abs().mean()
    assert table.notes[-1] == (
        "timm:tiny was given images of 32 px, its own size; the run's are of 16 px."
    )
    evaluation = read_run(run.path).evaluation
    assert evaluation is not None
    assert list(evaluation.rows) == rows
    again = run.evaluate(photos, protocols=("linear",))
    assert list(again.rows) == rows
    assert list(again.rows["timm:tiny"]) == ["knn"]
    assert list(again.rows["pretrained backbone"]) == ["knn", "linear"]


def test_two_evaluations_that_end_at_once_lose_no_score(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, near, written = scoring.read_scores, threading.Event(), threading.Event()

    def slowly(path: Path) -> ScoreTable | None:
        found = read(path)
        if threading.current_thread() is first:
            near.wait()
            written.wait(0.5)  # what the other one writes in between, if it does not wait
        return found

    def is_held(folder: Path) -> bool:
        """What is asked last before scores are read."""
        if threading.current_thread() is not first:
            near.set()
        return False

    monkeypatch.setattr(scoring, "read_scores", slowly)
    monkeypatch.setattr(scoring, "is_held", is_held)
    first = threading.Thread(target=lambda: Run(run.path).evaluate(photos, protocols="knn"))
    first.start()
    Run(run.path).evaluate(photos, protocols="linear")
    written.set()
    first.join()
    kept = read(run.path / "evaluation.json")
    assert kept is not None
    assert {"knn", "linear"} <= set(kept.columns)


def test_names_are_opened_as_starts(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def open_start(given: object) -> Start:
        asked.append(given)
        return published(str(given), 16)

    monkeypatch.setattr(starts, "open_start", open_start)
    table = run.evaluate(photos, protocols=("knn",), against=["b", Path("a"), published("c", 16)])
    assert list(table.rows)[2:-1] == ["b", "a", "c"]
    assert asked == ["b", Path("a")]
    assert not any("was given images" in note for note in table.notes)


@pytest.mark.parametrize("names", [("x", "x"), ("raw pixels",), ("before training",)])
def test_rows_of_one_name_are_refused_before_images_are_read(
    run: Run, names: tuple[str, ...]
) -> None:
    with pytest.raises(UserError, match=f"two rows of the table would be called '{names[-1]}'"):
        run.evaluate("nowhere", against=[published(name) for name in names])


def test_canvases_of_one_other_size_are_kept_at_a_time(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[int] = []

    def load(source: ImageSource, size: int, **options: Any) -> ImageSet:
        loaded.append(size)
        return load_images(source, size, **options)

    monkeypatch.setattr(samples, "load_images", load)
    sizes = [24, 16, 64, 224, 300, 24]  # the originals have no more than 40 px
    against = [published(str(place), size) for place, size in enumerate(sizes)]
    run.evaluate(photos, protocols=("knn",), against=against)
    assert loaded == [18, 16, 27, 40, 27]
