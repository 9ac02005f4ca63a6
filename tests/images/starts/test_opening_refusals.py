"""What is no start is told in one sentence, and nothing of it is loaded or run."""

import argparse
import copy
import io
import os
import pickle
import zipfile
from collections import defaultdict

import pytest
import torch
from safetensors.torch import save as safetensors_bytes

from builders import small_recipe
from similitude.errors import UserError
from similitude.images.backbones import BackboneConfig, build_backbone
from similitude.images.starts import open_start

SMALL = BackboneConfig(stem="small", base_width=4)


class Hostile:
    """Pickled code that writes a file when it is run."""

    def __init__(self, marker) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.fixture
def state():
    return {name: tensor.clone() for name, tensor in build_backbone(SMALL).state_dict().items()}


def saved(content, **options) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def deflated(state) -> bytes:
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(saved(state))) as plain,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for record in plain.infolist():
            packed.writestr(record.filename, plain.read(record))
    return buffer.getvalue()


def overlapping(state) -> bytes:
    """A hundred records, all of which lie on the same bytes."""
    buffer = io.BytesIO(saved(state))
    with zipfile.ZipFile(buffer, "a") as archive:
        largest = max(archive.infolist(), key=lambda record: record.file_size)
        for i in range(100):
            record = copy.copy(largest)
            record.filename = f"archive/data/{1000 + i}"
            archive.filelist.append(record)
        archive.writestr("archive/note", "")  # makes the directory be written anew
    return buffer.getvalue()


def changed(state, name, tensor):
    return saved({**state, name: tensor})


WEIGHT = "layer1.0.conv1.weight"
BAD_FILES = {
    "empty": (lambda s: b"", "w.pth", "empty"),
    "cut": (lambda s: saved(s)[:-9000], "w.pth", "cut or damaged"),
    "cut, older format": (
        lambda s: saved(s, _use_new_zipfile_serialization=False)[:-9000],
        "w.pth",
        "cut, damaged",
    ),
    "cut safetensors": (lambda s: safetensors_bytes(s)[:-90], "w.safetensors", "cut, damaged"),
    "cut header": (lambda s: safetensors_bytes(s)[:20], "w.safetensors", "cut, damaged"),
    "a text": (lambda s: b"<html>404 not found</html>", "w.pth", "no checkpoint of tensors"),
    "another ending": (lambda s: saved(s), "w.npz", "known endings are .safetensors, .pth"),
    "deflated": (deflated, "w.pth", "compressed"),
    "overlapping": (overlapping, "w.pth", "compressed"),
    "a list": (lambda s: saved(list(s.values())), "w.pth", "no tensors by name"),
    "a whole network": (lambda s: saved(build_backbone(SMALL)), "w.pth", "object of 'timm.models"),
    "no tensors": (lambda s: saved({"epoch": 3, "arch": "x"}), "w.pth", "'epoch', 'arch'"),
    "nothing": (lambda s: saved({}), "w.pth", "no layout that is known"),
    "unknown entries": (lambda s: saved({"weights_a": s}), "w.pth", "weights_a"),
    "extra": (lambda s: changed(s, "extra.weight", torch.ones(2)), "w.pth", "'extra.weight' is l"),
    "missing": (
        lambda s: saved({n: t for n, t in s.items() if n != WEIGHT.replace("1.0", "2.1")}),
        "w.pth",
        "backbone 'resnet18': 'layer2.1.conv1.weight' is missing; give",
    ),
    "other size": (
        lambda s: changed(s, "layer2.0.bn1.weight", torch.ones(9)),
        "w.pth",
        r"'layer2.0.bn1.weight' is \(9,\) instead of \(8,\)",
    ),
    "unknown network": (
        lambda s: saved({f"stage.{n}": t for n, t in s.items()}),
        "w.pth",
        "--backbone NAME",
    ),
    "integers": (
        lambda s: changed(s, WEIGHT, s[WEIGHT].to(torch.int32)),
        "w.pth",
        f"'{WEIGHT}' is of int32",
    ),
    "complex": (lambda s: changed(s, WEIGHT, s[WEIGHT] * 1j), "w.pth", f"'{WEIGHT}' is no plain"),
    "sparse": (
        lambda s: changed(s, WEIGHT, s[WEIGHT].to_sparse()),
        "w.pth",
        f"'{WEIGHT}' is no plain",
    ),
    "on no device": (
        lambda s: changed(s, WEIGHT, s[WEIGHT].to("meta")),
        "w.pth",
        f"'{WEIGHT}' is no plain",
    ),
    "one number that claims to be many": (
        lambda s: changed(s, WEIGHT, torch.ones(1, 1, 1, 1).expand(4, 4, 3, 3)),
        "w.pth",
        f"'{WEIGHT}' is no plain",
    ),
    "NaN": (
        lambda s: changed(s, WEIGHT, torch.full_like(s[WEIGHT], float("nan"))),
        "w.pth",
        f"'{WEIGHT}' has numbers that are not finite",
    ),
    "infinite": (
        lambda s: changed(s, "bn1.running_var", torch.full((4,), float("inf"))),
        "w.pth",
        "'bn1.running_var' has numbers that are not finite",
    ),
    "unknown in a layout": (
        lambda s: saved(
            {
                "state_dict": {
                    **{f"encoder_q.{n}": t for n, t in s.items()},
                    "encoder_q.fc.0.weight": torch.ones(2, 2),
                    "decoder.weight": torch.ones(1),
                }
            }
        ),
        "w.pth",
        "MoCo v2's official checkpoint, but 1 of its tensors are unknown there.*'decoder.weight'",
    ),
    "a wide bottleneck": (lambda s: saved(build_wide(s)), "w.pth", "resnet50 of 2 times the width"),
}


def build_wide(_state):
    """SimCLR's and SwAV's ResNet-50 of twice the width; a few tensors tell it."""
    blocks = zip((1, 2, 3, 4), (3, 4, 6, 3), strict=True)
    names = [f"layer{stage}.{i}.conv1.weight" for stage, n in blocks for i in range(n)]
    wide = {name: torch.ones(128, 1, 1, 1) for name in [*names, "layer1.0.conv3.weight"]}
    return {"conv1.weight": torch.ones(128, 3, 7, 7), **wide}


@pytest.mark.slow
@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_told_in_one_sentence(kind, state, tmp_path):
    write, name, words = BAD_FILES[kind]
    path = tmp_path / name
    path.write_bytes(write(state))
    with pytest.raises(UserError, match=words) as caught:
        open_start(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("how", ["a checkpoint", "the older format", "a bare pickle"])
def test_code_in_a_file_is_never_run(how, state, tmp_path):
    marker, path = tmp_path / "marker", tmp_path / "w.pth"
    content = {"state_dict": state, "optimizer": Hostile(marker)}
    if how == "a bare pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        path.write_bytes(saved(content, _use_new_zipfile_serialization=how == "a checkpoint"))
    words = (
        "no checkpoint" if how == "a bare pickle" else r"an object of '(posix|nt)\.system', which"
    )
    with pytest.raises(UserError, match=rf"w\.pth .*{words}"):
        open_start(path)
    assert not marker.exists()
    with path.open("rb") as file:  # the same file does harm where it is trusted
        torch.load(file, weights_only=False) if how != "a bare pickle" else pickle.load(file)
    assert marker.exists()


@pytest.mark.slow
def test_settings_beside_the_weights_are_passed_over(state, tmp_path):
    path = tmp_path / "w.ckpt"
    settings = {"folder": tmp_path, "args": argparse.Namespace(a=1), "seen": defaultdict(list)}
    path.write_bytes(saved({"state_dict": state, "hyper_parameters": settings}))
    before = set(torch.serialization.get_safe_globals())
    start = open_start(path)
    assert start.backbone == SMALL
    assert any("hyper_parameters" in sentence for sentence in start.report)
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize(
    ("init", "words"),
    [
        (".", "is a folder and no run"),
        ("nowhere/weights.pth", "cannot read the weights nowhere/weights.pth: No such file"),
        ("resnet18.a1_in1k", "give timm:resnet18.a1_in1k"),
        ("efficientnet-lite1", "known endings are"),
        ("timm:resnet18.a1_in2k", r"no weights 'resnet18.a1_in2k': did you mean timm:resnet18\.a"),
        ("timm:resnet81", "did you mean timm:"),
        ("timm:", "see timm.list_pretrained"),
        ("timm:hf-hub:someone/anything", "timm has no weights"),
    ],
)
def test_what_is_not_there_is_told(init, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words) as caught:
        open_start(init)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            BackboneConfig(name="resnet34", stem="small", base_width=4),
            r"'resnet34': '.*' is missing, and \d+ more tensors do not fit",
        ),
        (BackboneConfig(stem="small", base_width=8), "instead of"),
        (BackboneConfig(name="vit_tiny_patch16_224"), "'cls_token' is missing"),
        (BackboneConfig(name="resnet81"), "unknown backbone 'resnet81'"),
    ],
)
def test_weights_of_another_network_are_told(config, words, state, tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(saved(state))
    with pytest.raises(UserError, match=words):
        open_start(path, backbone=config)


@pytest.mark.slow
def test_patches_of_another_size_are_told(make_vit, save):
    path = save(make_vit("vit_tiny_patch16_224", img_size=32).state_dict())
    config = BackboneConfig(
        name="vit_tiny_patch16_224", options={"depth": 2, "img_size": 32, "patch_size": 8}
    )
    with pytest.raises(UserError, match="patches of 16 pixels, not of 8"):
        open_start(path, backbone=config)


@pytest.mark.slow
def test_another_number_of_heads_than_published_is_told(make_vit, save):
    vit = make_vit(num_heads=12, img_size=32).state_dict()
    path = save({f"base_encoder.{name}": tensor for name, tensor in vit.items()})
    config = BackboneConfig(
        name="vit_small_patch16_224", options={"depth": 2, "img_size": 32, "num_heads": 6}
    )
    with pytest.raises(UserError, match="12 attention heads, not with 6"):
        open_start(path, backbone=config)


def test_a_checkpoint_of_ours_is_a_run_and_no_file(tmp_path):
    path = tmp_path / "mine.ckpt"
    recipe = small_recipe("simsiam").model_dump(mode="json")
    path.write_bytes(saved({"format": 1, "recipe": recipe, "method": {}, "step": 3}))
    with pytest.raises(UserError, match="give the run's folder"):
        open_start(path)


@pytest.mark.parametrize("old_format", [False, True])
def test_a_claim_of_memory_is_refused_before_it_is_met(tmp_path, old_format):
    class Claim:
        def __reduce__(self):
            return bytearray, (10**6,)

    path = tmp_path / "claim.pth"
    torch.save({"weight": Claim()}, path, _use_new_zipfile_serialization=not old_format)
    with pytest.raises(UserError, match="any amount of memory"):
        open_start(path)
