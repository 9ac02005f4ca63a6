"""A checkpoint is loaded whole or not at all, and runs no code."""

import pickle
import struct
import sys
import zipfile

import pytest
import torch
from torch import nn

from builders import IMAGE_METHODS, TinyBackbone, small_config, small_recipe
from similitude.errors import UserError
from similitude.images.backbones import build_backbone
from similitude.methods import build_method
from similitude.nets.weights import load_strictly
from similitude.runs.checkpoint import (
    fresh_backbone,
    load_backbone,
    load_checkpoint,
    save_checkpoint,
)


def network(features: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(2, features), nn.BatchNorm1d(features))


@pytest.mark.parametrize("change", ["missing", "left over", "shape"])
def test_weights_are_loaded_whole_or_not_at_all(change):
    target, state = network(), {k: v + 1 for k, v in network().state_dict().items()}
    if change == "missing":
        del state["1.running_mean"]
    elif change == "left over":
        state["2.weight"] = torch.ones(1)
    else:
        state["0.weight"] = torch.ones(4, 2)
    before = {k: v.clone() for k, v in target.state_dict().items()}
    with pytest.raises(UserError, match="another network than my network: 1 entries"):
        load_strictly(target, state, "my network")
    assert all(torch.equal(v, before[k]) for k, v in target.state_dict().items())


def save(path, method, recipe):
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    save_checkpoint(
        path,
        recipe=recipe,
        step=7,
        method=method.state_dict(),
        optimizer=optimizer.state_dict(),
        seconds=1.5,
        images="64-00000000",
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", IMAGE_METHODS)
def test_what_is_kept_comes_back_for_every_method(name, tmp_path):
    recipe = small_recipe(name)
    method = build_method(recipe.method, build_backbone(recipe.backbone))
    for value in method.state_dict().values():
        if value.is_floating_point():
            value.add_(0.1 * torch.rand_like(value))
    save(tmp_path / "last.ckpt", method, recipe)
    checkpoint = load_checkpoint(tmp_path / "last.ckpt")
    assert checkpoint.step == 7
    assert checkpoint.recipe == recipe
    images = torch.rand(2, 3, 16, 16)
    kept = method.kept_backbone.eval()(images)
    assert torch.equal(load_backbone(checkpoint.recipe, checkpoint.backbone)(images), kept)
    assert not torch.equal(fresh_backbone(recipe).eval()(images), kept)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("code in a checkpoint was run",))

    (tmp_path / "last.ckpt").write_bytes(pickle.dumps(Trap(), protocol=2))
    with pytest.raises(UserError, match="damaged or not a checkpoint"):
        load_checkpoint(tmp_path / "last.ckpt")
    torch.save({"format": 1, "recipe": Trap()}, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match="damaged or not a checkpoint"):
        load_checkpoint(tmp_path / "last.ckpt")


def test_the_state_of_a_method_holds_its_memory():
    """Queue, cursor, bank, constants and center: what peers have lost on resuming."""
    wanted = {
        "moco_v1": {"queue.keys", "queue.cursor"},
        "inst_disc": {"bank.features", "normalizer"},
        "cmc": {"banks.0.features", "banks.1.features", "normalizers"},
        "swav": {"queue_rows"},
        "dino": {"center.value"},
    }
    for name, keys in wanted.items():
        method = build_method(small_config(name), TinyBackbone())
        assert keys <= set(method.state_dict()), name


@pytest.mark.parametrize("recipe", [None, [], {"method": None}, {"method": "simclr"}])
def test_a_recipe_that_is_none_is_told(tmp_path, recipe):
    path = tmp_path / "last.ckpt"
    torch.save({"format": 1, "recipe": recipe}, path)
    with pytest.raises(UserError, match=r"last\.ckpt"):
        load_checkpoint(path, own_methods=False)


def small_run(tmp_path, change=lambda content: None):
    path, recipe = tmp_path / "last.ckpt", small_recipe("simclr")
    method = build_method(recipe.method, build_backbone(recipe.backbone))
    save(path, method, recipe)
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)
    return path, method


def test_options_that_name_a_file_are_refused_in_a_checkpoint_too(tmp_path):
    def change(content):
        content["recipe"]["backbone"]["options"]["checkpoint_path"] = "w.pth"

    with pytest.raises(UserError, match=r"last\.ckpt: backbone.options takes no 'checkpoint_path'"):
        load_checkpoint(small_run(tmp_path, change)[0])


@pytest.mark.slow
def test_a_flipped_bit_is_found_wherever_something_is_read(tmp_path):
    path, recipe = tmp_path / "last.ckpt", small_recipe("simclr")
    save(path, build_method(recipe.method, build_backbone(recipe.backbone)), recipe)
    whole, saved = path.read_bytes(), load_checkpoint(path)
    records = []
    with zipfile.ZipFile(path) as archive:
        for record in archive.infolist():
            lengths = whole[record.header_offset + 26 : record.header_offset + 30]
            first = record.header_offset + 30 + sum(struct.unpack("<HH", lengths))
            records.append(range(first, first + record.file_size))
    for i in range(60, len(whole) - 30, len(whole) // 60):
        flipped = bytearray(whole)
        flipped[i] ^= 1 << (i % 8)
        path.write_bytes(flipped)
        try:
            loaded = load_checkpoint(path)
        except UserError as error:
            assert "damaged" in str(error)
            continue
        assert not any(i in record for record in records)  # but in what torch pads them with
        assert all(torch.equal(loaded.method[n], t) for n, t in saved.method.items())
        assert torch.equal(loaded.random_state, saved.random_state)
        assert (loaded.recipe, loaded.optimizer) == (saved.recipe, saved.optimizer)


def test_a_checkpoint_is_held_to_the_checksums_of_its_records(tmp_path):
    path, method = small_run(tmp_path)
    checkpoint = load_checkpoint(path)
    assert all(torch.equal(checkpoint.method[n], t) for n, t in method.state_dict().items())
    weight = method.state_dict()["backbone.layer1.0.conv1.weight"].numpy().tobytes()
    content = path.read_bytes()
    assert content.count(weight) == 1
    path.write_bytes(content.replace(weight, bytes(len(weight))))
    with pytest.raises(UserError, match="checksum"):
        load_checkpoint(path)


def test_a_compressed_checkpoint_is_refused_before_it_is_unpacked(tmp_path):
    path, _ = small_run(tmp_path, lambda content: content.update(images=torch.zeros(10**6)))
    bomb = tmp_path / "bomb.ckpt"
    with zipfile.ZipFile(path) as plain, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
        for record in plain.infolist():
            packed.writestr(record.filename, plain.read(record))
    with pytest.raises(UserError, match="compressed"):
        load_checkpoint(bomb)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.pop("step"), "damaged: step"),
        (lambda c: c.update(step="7"), "step"),
        (lambda c: c.update(step=-1), "step"),
        (lambda c: c.update(seconds=float("nan")), "seconds"),
        (lambda c: c["method"].update(x=5), "method.x"),
        (lambda c: c.update(random_state=None), "random_state"),
        (lambda c: c.pop("recipe"), "not a recipe"),
    ],
)
def test_what_a_checkpoint_lacks_is_told(tmp_path, change, words):
    with pytest.raises(UserError, match=words) as told:
        load_checkpoint(small_run(tmp_path, change)[0])
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda t: t * float("nan"), "not finite"),
        (lambda t: t / 0, "not finite"),
        (lambda t: t.to(torch.int8), "of int8 instead of float32"),
        (lambda t: t > 0, "of bool"),
        (lambda t: t.half(), "of float16"),
        (lambda t: t * 1j, "no plain array"),
        (lambda t: t.to_sparse(), "no plain array"),
        (lambda t: torch.ones(1, 1).expand(t.shape), "no plain array"),
    ],
)
def test_weights_that_are_no_numbers_of_the_network_are_told(make, words):
    target, state = network(), network().state_dict()
    before = {k: v.clone() for k, v in target.state_dict().items()}
    state["0.weight"] = make(state["0.weight"])
    with pytest.raises(UserError, match=f"0.weight.*{words}"):
        load_strictly(target, state, "my network")
    assert all(torch.equal(v, before[k]) for k, v in target.state_dict().items())


@pytest.mark.slow
def test_a_method_in_a_file_imports_nothing(tmp_path, monkeypatch):
    """Only the user's own word does: the name may stand in a folder that came from elsewhere."""
    (tmp_path / "evil.py").write_text("raise SystemExit('code of the folder was run')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("evil:Method", "antigravity:Method", "runs.x:Method", "similitude:Run", "os:x"):

        def change(content, name=name):
            content["recipe"]["method"]["name"] = name

        with pytest.raises(UserError, match=f"last.ckpt: .*--method {name}"):
            load_checkpoint(small_run(tmp_path, change)[0])
    assert not {"evil", "antigravity"} & set(sys.modules)
