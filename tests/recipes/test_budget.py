"""Work is counted by hand-checkable numbers, and rules depend on the processor alone."""

import pytest
import torch
from torch import nn

from similitude.images.backbones import BackboneConfig, build_backbone
from similitude.recipes import budget
from similitude.recipes.budget import Work, counting, machine

CPU = torch.device("cpu")


def work_of(network, x):
    with counting(network) as calls:
        network(x)
    return sum(calls, Work())


def test_a_convolution_multiplies_each_output_with_its_kernel():
    network = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False))
    work = work_of(network, torch.zeros(2, 3, 8, 8))
    forward = 2 * 16 * 8 * 8 * 27
    assert work.dense == 3 * forward  # and twice as much backward
    assert work.depthwise == 0
    assert work.moved == 3 * (2 * 3 * 64 + 2 * 16 * 64)
    assert work.calls == 3


def test_layers_that_stay_as_they_are_have_no_backward_pass():
    network = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 6))
    network[0].requires_grad_(False)
    assert work_of(network, torch.zeros(7, 4)).dense == 7 * (1 * 4 * 5 + 3 * 5 * 6)


def test_convolutions_in_groups_are_counted_apart():
    work = work_of(nn.Sequential(nn.Conv2d(8, 8, 3, groups=8)), torch.zeros(1, 8, 5, 5))
    assert (work.dense, work.depthwise) == (0, 3 * 8 * 9 * 9)


def test_attention_multiplies_tokens_with_tokens():
    vit = build_backbone(
        BackboneConfig(
            name="vit_tiny_patch16_224",
            options={"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2},
        )
    )
    attention = vit.blocks[0].attn
    tokens = torch.zeros(2, 17, 16)
    products = 17 * 16 * 17 * 2  # q with k, and weights with v
    linear = 17 * 16 * (3 * 16 + 16)
    assert work_of(attention, tokens).dense == 3 * 2 * (products + linear)


def test_twice_the_threads_take_half_the_time():
    threads = torch.get_num_threads()
    work = Work(dense=1e12, depthwise=1e9, moved=1e9)
    try:
        torch.set_num_threads(1)
        one = machine(CPU).seconds(work)
        torch.set_num_threads(2)
        assert machine(CPU).seconds(work) == pytest.approx(one / 2)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(("processes", "threads", "cores"), [(1, 8, 8), (4, 8, 2), (4, 1, 1)])
def test_processes_of_a_machine_share_its_cores(monkeypatch, processes, threads, cores):
    told = {"RANK": 0, "WORLD_SIZE": 2 * processes, "LOCAL_WORLD_SIZE": processes}
    for name, number in told.items():
        monkeypatch.setenv(name, str(number))
    monkeypatch.setattr(budget.os, "cpu_count", lambda: 8)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert machine(CPU).cores == cores
