"""What differs between devices, asked of the processor and of what the environment says."""

from pathlib import Path

import pytest
import torch

import similitude
from similitude import devices
from similitude.devices import (
    CHOSEN,
    best_device,
    computing_in,
    moved,
    on_cpu,
    random_state,
    random_state_set_to,
    take_own_device,
    widest,
)
from similitude.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture
def two_gpus(monkeypatch):
    """A machine with two GPUs, for what only counts them; the number that was taken."""
    taken = []
    monkeypatch.setitem(devices.KINDS, "cuda", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    return taken


def test_the_best_device_is_the_gpu_unless_the_environment_names_another(two_gpus, monkeypatch):
    assert best_device() == torch.device("cuda")
    for name in ("cpu", "cuda", "cuda:1"):
        monkeypatch.setenv(CHOSEN, name)
        assert best_device() == torch.device(name)


@pytest.mark.parametrize("name", ["cuda:2", "mps", "gpu", "meta"])
def test_a_device_that_is_not_there_is_refused(two_gpus, monkeypatch, name):
    monkeypatch.setitem(devices.KINDS, "mps", lambda: False)
    monkeypatch.setenv(CHOSEN, name)
    with pytest.raises(UserError, match=f"DEVICE is '{name}', and this machine has cuda"):
        best_device()


def test_processes_have_a_gpu_each_or_share_the_named_one(two_gpus, monkeypatch):
    assert [take_own_device(0), take_own_device(1)] == ["nccl", "nccl"]
    monkeypatch.setenv(CHOSEN, "cuda:1")
    assert take_own_device(2) == "gloo"  # nccl refuses to share
    assert two_gpus == [0, 1, torch.device("cuda:1")]
    monkeypatch.setenv(CHOSEN, "cpu")
    assert take_own_device(2) == "gloo"


def test_apples_gpus_have_no_way_for_processes_to_talk(monkeypatch):
    monkeypatch.setitem(devices.KINDS, "mps", lambda: True)
    monkeypatch.setenv(CHOSEN, "mps")
    with pytest.raises(UserError, match="start one, or set SIMILITUDE_DEVICE=cpu"):
        take_own_device(0)


def test_the_generator_goes_on_where_it_was_after_a_block():
    state = random_state(CPU)
    first = torch.rand(3)
    with random_state_set_to(state, CPU):
        assert torch.equal(torch.rand(3), first)
    assert not torch.equal(torch.rand(3), first)


def test_products_are_of_the_number_format_asked_for():
    x = torch.ones(2, 2)
    with computing_in(torch.bfloat16, CPU):
        assert (x @ x).dtype == torch.bfloat16
        with computing_in(torch.float32, CPU):
            assert (x @ x).dtype == torch.float32
    with computing_in(torch.bfloat16, torch.device("meta")):  # which has no autocast
        assert (x @ x).dtype == torch.float32


def test_numbers_are_as_wide_as_the_device_has_them(monkeypatch):
    x = torch.ones(2)
    assert widest(x).dtype == torch.float64
    monkeypatch.setattr(devices, "WITHOUT_FLOAT64", ["cpu"])
    assert widest(x).dtype == torch.float32


def test_everything_in_a_checkpoint_comes_to_the_processor():
    content = {"a": [torch.ones(2), (3, None)], "b": {"c": torch.zeros(1)}}
    same = on_cpu(content)
    assert same["a"][1] == (3, None)
    assert same["a"][0] is content["a"][0]  # on the processor already: no copy
    assert moved(content["b"]["c"], CPU) is content["b"]["c"]


def test_kinds_of_devices_are_told_apart_in_one_file_alone():
    """A second place would be forgotten when the next kind of device comes."""
    source = Path(similitude.__file__).parent
    words = ("torch.cuda", "torch.mps", '"mps"', '"nccl"', "pin_memory", "torch.autocast(")
    found = [
        f"{file.relative_to(source)}: {word}"
        for file in sorted(source.rglob("*.py"))
        if file.name != "devices.py"
        for word in words
        if word in file.read_text(encoding="utf-8")
    ]
    assert not found
