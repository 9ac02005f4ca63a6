"""A method of a user's own, outside the package, trains with the same commands and functions."""

import sys

import pytest
import torch
from typer.testing import CliRunner

import similitude as sim
from builders import BACKBONE, write_photos
from similitude.cli import app
from similitude.errors import UserError
from similitude.images.backbones import build_backbone

MODULE = '''
"""The other view's features are to be predicted by a linear map."""

from torch import nn

import similitude as sim
from similitude.method import Batch, Method, MethodConfig, Progress, StepOutput
from similitude.nets import output_std


class GuessConfig(MethodConfig):
    name: str = "guess"
    view: sim.views.ImageViewConfig = sim.views.ImageViewConfig(blur=0.0)
    stop_gradient: bool = True


class Guess(Method):
    def __init__(self, backbone, config: GuessConfig):
        super().__init__()
        self.backbone, self.config = backbone, config
        self.predictor = nn.Linear(backbone.num_features, backbone.num_features)

    def views(self, image):
        view = sim.views.ImageView(self.config.view, image)
        return sim.views.MultiView(view, view)

    def training_loss(self, batch: Batch, progress: Progress) -> StepOutput:
        h1, h2 = (self.backbone(view) for view in batch.views)
        target = h2.detach() if self.config.stop_gradient else h2
        loss = sim.losses.negative_cosine(self.predictor(h1), target)
        return StepOutput(loss, h1.detach(), {"projection_std": output_std(h1)})


class Mine(sim.methods.SimSiam):
    """Another method under a known config: not to be taken for SimSiam."""


class Bare(Guess):
    def __init__(self, backbone, config):
        super().__init__(backbone, config)
'''

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("own_method"),
    pytest.mark.usefixtures("unchecked_runs", "forked_exports"),
]


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "my_methods.py").write_text(MODULE)
    write_photos(tmp_path / "photos", 40)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_methods", raising=False)
    return tmp_path


SMALL = {"backbone": BACKBONE, "epochs": 2, "batch_size": 8}


def command(*words: str) -> str:
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_commands_take_it_by_its_place(place):
    small = ["--epochs", "1", "--batch-size", "8", "--set", "backbone.base_width=4"]
    own = ["--method", "my_methods:Guess", "--set", "method.stop_gradient=false"]
    command("pretrain", "photos", *own, *small, "--out", "run")
    recipe = (place / "run" / "recipe.yaml").read_text()
    assert "name: my_methods:Guess" in recipe
    assert "stop_gradient: false" in recipe
    command("evaluate", "run", "photos", "--method", "my_methods:Guess")
    words = ["--recipe", "run/recipe.yaml", "--method", "my_methods:Guess", "--out", "again"]
    command("pretrain", "photos", *words)
    first, second = (torch.load(place / n / "checkpoints/last.ckpt") for n in ("run", "again"))
    assert all(torch.equal(v, second["method"][k]) for k, v in first["method"].items())


def test_its_name_in_a_folder_imports_it_for_no_command(place):
    """Whoever gets a folder of somebody else runs nothing of it without saying so."""
    runner, name = CliRunner(), "my_methods:Guess"
    small = {"epochs": 1, "batch_size": 8}
    assert sim.pretrain("photos", method=name, backbone=BACKBONE, out="run", **small) is not None
    small = ["--epochs", "1", "--batch-size", "8"]
    for words in (
        ["evaluate", "run", "photos", "--protocol", "knn"],
        ["embed", "run", "photos", "-o", "x.npz"],
        ["export", "run", "-o", "x.safetensors"],
        ["views", "photos", "--recipe", "run/recipe.yaml", "-o", "x.png"],
        ["finetune", "run", "photos", *small, "--out", "classifier"],
        ["distill", "classifier", "photos", *small, "--out", "student"],
        ["pretrain", "photos", "--recipe", "run/recipe.yaml", "--out", "again"],
        ["pretrain", "photos", "--out", "run", "--resume"],
    ):
        sys.modules.pop("my_methods", None)
        refused = runner.invoke(app, words).exception
        assert isinstance(refused, UserError), words
        assert f"give --method {name}" in str(refused)
        assert "my_methods" not in sys.modules
        done = runner.invoke(app, [*words, "--method", name])
        assert done.exit_code == 0, (words, done.exception)
    sys.modules.pop("my_methods")
    assert runner.invoke(app, ["report", "run"]).exit_code == 0  # needs no code
    assert "my_methods" not in sys.modules


def test_a_class_is_taken_too_and_resumes(place):
    sys.path.insert(0, str(place))
    try:
        from my_methods import Guess  # type: ignore[import-not-found]

        run = sim.pretrain("photos", method=Guess, out="run", **SMALL)
    finally:
        sys.path.remove(str(place))
    assert run is not None
    assert run.recipe.method.name == "my_methods:Guess"
    assert sim.pretrain("photos", out="run", resume=True) is not None
    assert run.embed("photos").x.shape == (40, 32)


def test_an_object_is_itself_trained(place):
    sys.path.insert(0, str(place))
    try:
        from my_methods import Guess, GuessConfig  # type: ignore[import-not-found]

        method = Guess(build_backbone(BACKBONE), GuessConfig())
    finally:
        sys.path.remove(str(place))
    before = method.predictor.weight.clone()
    run = sim.pretrain("photos", method=method, out="run", epochs=2, batch_size=8)
    assert run is not None
    assert not torch.equal(method.predictor.weight, before)
    assert torch.equal(run.checkpoint.method["predictor.weight"], method.predictor.weight)
    assert run.recipe.backbone == BACKBONE

    method.backbone = torch.nn.Identity()
    with pytest.raises(UserError, match="build_backbone"):
        sim.pretrain("photos", method=method, out="other", epochs=2, batch_size=8)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("my_methods:Gues", "no subclass of Method called 'Gues'"),
        ("my_method:Guess", "cannot import 'my_method'"),
        ("my_methods:Bare", "annotate"),
        ("simclear", "did you mean simclr.*MODULE:CLASS"),
    ],
)
def test_a_wrong_place_is_told_in_one_sentence(place, name, words):
    with pytest.raises(UserError, match=words):
        sim.pretrain("photos", method=name, out="run")
    assert not (place / "run").exists()


def test_it_trains_in_two_processes_too(place, forked_processes):
    small = ["--epochs", "1", "--batch-size", "8", "--set", "backbone.base_width=4"]
    own = ["--method", "my_methods:Guess", "--devices", "2"]
    said = command("pretrain", "photos", *own, *small, "--out", "run")
    assert "shared by 2 processes" in said
    command("embed", "run", "photos", "-o", "x.npz", *own)


def test_a_run_of_a_loaded_class_opens_and_of_another_method_not(place):
    sys.path.insert(0, str(place))
    try:
        from my_methods import Guess, GuessConfig  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(place))
    assert sim.pretrain("photos", method=Guess, out="run", **SMALL) is not None
    assert isinstance(sim.load("run").recipe.method, GuessConfig)
    assert sim.load("run", method=Guess).backbone is not None
    with pytest.raises(UserError, match="of the method my_methods:Guess, not byol"):
        _ = sim.load("run", method="byol").recipe
    del sys.modules["my_methods"]
    with pytest.raises(UserError, match="give --method my_methods:Guess"):
        _ = sim.load("run").recipe
    assert sim.load("run", method="my_methods:Guess").backbone is not None


def test_an_object_keeps_its_settings_and_its_name(place):
    sys.path.insert(0, str(place))
    try:
        from my_methods import Guess, GuessConfig, Mine  # type: ignore[import-not-found]

        method = Guess(build_backbone(BACKBONE), GuessConfig())
    finally:
        sys.path.remove(str(place))
    for change in ({"overrides": ["method.stop_gradient=false"]}, {"backbone": "resnet18"}):
        with pytest.raises(UserError, match="object"):
            sim.pretrain("photos", method=method, out="run", **change)
    with pytest.raises(UserError, match="MoCo is the class of moco_v1 and moco_v2"):
        sim.pretrain("photos", method=sim.methods.MoCo, out="run")

    mine = Mine(build_backbone(BACKBONE), sim.methods.SimSiamConfig(projection_dim=8))
    assert sim.pretrain("photos", method=mine, out="mine", epochs=1, batch_size=8) is not None
    assert "my_methods:Mine" in (place / "mine" / "recipe.yaml").read_text()


@pytest.mark.parametrize("name", [":X", ".a:X", "a b:X", "my_methods:"])
def test_what_cannot_be_a_place_is_told(place, name):
    with pytest.raises(UserError, match="MODULE:CLASS"):
        sim.pretrain("photos", method=name, out="run")
