import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import similitude as sim
from builders import (
    IMAGE,
    START,
    TinyBackbone,
    random_batch,
    random_images,
    small_config,
    small_recipe,
)
from similitude.errors import UserError
from similitude.images.canvases import Canvases
from similitude.listener import Silent
from similitude.method import Batch
from similitude.methods.simtriplet import SimTriplet
from similitude.recipes import dump_recipe
from similitude.runs.checkpoint import load_checkpoint
from similitude.training.pretrain import train


def make(**changes):
    torch.manual_seed(0)
    return SimTriplet(TinyBackbone(), small_config("simtriplet", **changes)).double()


def batch(method, n=8, seed=0):
    return random_batch(method, n, seed=seed, dtype=torch.float64)


@pytest.mark.parametrize("weight", [1.0, 0.0, 0.3])
def test_the_loss_compares_view_one_with_its_other_view_and_with_the_neighbour(weight):
    method = make(neighbour_weight=weight)
    data = batch(method)
    z = [method.projector(method.backbone(v)) for v in data.views]
    p = [method.predictor(x) for x in z]

    def half(i, j):
        return -F.cosine_similarity(p[i], z[j], dim=1).mean() / 2

    intra, inter = half(0, 1) + half(1, 0), half(0, 2) + half(2, 0)
    output = method.training_loss(data, START)
    torch.testing.assert_close(output.loss, intra + weight * inter)
    torch.testing.assert_close(output.metrics["intra_sample_loss"], intra.detach())
    torch.testing.assert_close(output.metrics["inter_sample_loss"], inter.detach())


@pytest.mark.parametrize("stop_gradient", [True, False])
def test_targets_carry_no_gradient_unless_asked_to(stop_gradient):
    """Through p alone, view 3 is moved by the pair (p3, z1) only."""
    method = make(stop_gradient=stop_gradient)
    v1, v2, v3 = batch(method).views
    v3.requires_grad_()
    z1 = method.projector(method.backbone(v1)).detach()
    p3 = method.predictor(method.projector(method.backbone(v3)))
    (alone,) = torch.autograd.grad(-F.cosine_similarity(p3, z1, dim=1).mean() / 2, v3)
    loss = method.training_loss(Batch([v1, v2, v3], torch.arange(8)), START).loss
    (grad,) = torch.autograd.grad(loss, v3)
    assert torch.allclose(grad, alone) == stop_gradient


def test_the_predictors_rate_can_stay():
    groups = make().param_groups()
    assert [group.get("fixed_lr") for group in groups] == [None, True]
    assert sum(len(g["params"]) for g in groups) == len(list(make().parameters()))
    assert len(make(predictor="none").param_groups()) == 1


def test_the_third_view_is_of_the_neighbour():
    canvases, beside = torch.randint(0, 256, (2, 5, 3, 20, 20), dtype=torch.uint8)
    canvases, beside, index = Canvases(canvases), Canvases(beside), torch.arange(5)
    multi_view = make().views(IMAGE)
    assert len(multi_view) == 3
    where = {"seed": 1, "epoch": 2}
    same = multi_view(canvases, index, **where)
    views = multi_view(canvases, index, **where, partners=beside)
    other = multi_view(beside, index, **where)
    assert torch.equal(views[0], same[0])
    assert torch.equal(views[1], same[1])
    assert torch.equal(views[2], other[2])
    assert not torch.equal(views[2], same[2])


def test_a_view_without_neighbour_ignores_neighbours():
    canvases, beside = torch.randint(0, 256, (2, 5, 3, 20, 20), dtype=torch.uint8)
    view = sim.views.ImageView(sim.views.ImageViewConfig(), IMAGE)
    multi_view = sim.views.MultiView(view, view)
    canvases, beside, index = Canvases(canvases), Canvases(beside), torch.arange(5)
    plain = multi_view(canvases, index, seed=0, epoch=0)
    given = multi_view(canvases, index, seed=0, epoch=0, partners=beside)
    assert all(map(torch.equal, plain, given))


# --- from large images to tiles ----------------------------------------------------------------


@pytest.fixture
def slides(tmp_path):
    """Three pictures, each of 4 x 5 tiles of 16 px."""
    folder = tmp_path / "slides"
    folder.mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (4 * 16, 5 * 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"slide{i}.png")
    return folder


class Heard(Silent):
    def __init__(self):
        self.sentences = []

    def say(self, sentence):
        self.sentences.append(sentence)


def recipe_file(path, **changes):
    fast = {"precision": "float32", "memory_format": "contiguous"}
    path.write_text(dump_recipe(small_recipe("simtriplet", **(fast | changes))))
    return path


@pytest.mark.slow
def test_a_folder_of_large_images_is_trained_in_tiles(slides, tmp_path):
    heard = Heard()
    recipe = recipe_file(tmp_path / "r.yaml")
    run = sim.pretrain(
        slides, recipe=recipe, overrides=["tile_size=16"], out=tmp_path / "run", listener=heard
    )
    assert run.recipe.data.tile_size == 16
    text = "\n".join(heard.sentences)
    assert "60 images in" in text
    assert "in tiles of 16 px" in text
    assert "3 images are cut into 60 tiles of 16 px" in text
    assert "of the same image" not in text
    # the recipe alone repeats it
    again = sim.pretrain(slides, recipe=run.path / "recipe.yaml", out=tmp_path / "again")
    a, b = run.checkpoint.method, again.checkpoint.method
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.slow
def test_tiles_are_what_the_automatic_choice_looks_at(slides, tmp_path):
    out = tmp_path / "views.png"
    sim.draw_views(slides, out, method="simtriplet", overrides=["tile_size=16"])
    assert out.exists()
    with pytest.raises(UserError, match="tile_size"):
        sim.draw_views(slides, out, method="simtriplet", overrides=["tile_size=big"])


def tiles_in_memory(slides):
    return sim.data.load_images(sim.data.cut_into_tiles(sim.data.open_source(slides), 16), 16)


class StopAt(Heard):
    def __init__(self, step):
        super().__init__()
        self.step = step

    def progress(self, what, done, total, note=""):
        import signal

        if what == "training" and done == self.step:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.slow
def test_resumed_in_the_middle_it_meets_the_same_neighbours(slides, tmp_path):
    images, recipe = tiles_in_memory(slides), small_recipe("simtriplet", tile_size=16)
    cpu = torch.device("cpu")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(images, "x", recipe, whole, device=cpu, listener=Silent()) is not None
    assert train(images, "x", recipe, parts, device=cpu, listener=StopAt(4)) is None
    halfway = load_checkpoint(parts / "checkpoints" / "last.ckpt")
    assert 0 < halfway.step < 9
    train(images, "x", recipe, parts, device=cpu, listener=Silent(), checkpoint=halfway)
    a, b = (load_checkpoint(f / "checkpoints" / "last.ckpt").method for f in (whole, parts))
    assert all(torch.equal(a[name], b[name]) for name in a)
    # and they do matter: without them the same run ends elsewhere
    alone = sim.data.ImageSet(images.pixels, images.aspect, images.names)
    heard = Heard()
    train(alone, "x", recipe, tmp_path / "alone", device=cpu, listener=heard)
    c = load_checkpoint(tmp_path / "alone" / "checkpoints" / "last.ckpt").method
    assert not all(torch.equal(a[name], c[name]) for name in a)
    assert sum("of the same image" in s for s in heard.sentences) == 1


@pytest.mark.slow
def test_other_methods_do_not_speak_of_neighbours(tmp_path):
    heard = Heard()
    train(
        random_images(32),
        "x",
        small_recipe("simsiam", epochs=1),
        tmp_path / "run",
        device=torch.device("cpu"),
        listener=heard,
    )
    assert not any("beside" in sentence for sentence in heard.sentences)
