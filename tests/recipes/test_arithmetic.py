"""Precision is a rule on what the processor can do: the same command makes the same choice."""

import pytest
import torch
from torch import nn

from similitude.recipes import RECIPES, budget
from similitude.recipes.arithmetic import arithmetic_rule, choose_arithmetic

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("flags", "precision", "attention"),
    [
        ({"amx_bf16", "avx512_bf16"}, "bfloat16", "fused"),
        ({"avx512_bf16"}, "bfloat16", "plain"),
        ({"avx512f"}, "float32", "fused"),
    ],
)
def test_precision_is_what_the_processor_can(monkeypatch, flags, precision, attention):
    monkeypatch.setattr(budget, "_processor_flags", lambda: frozenset(flags))
    vit = nn.Module()
    vit.fused_attn = True
    fields, reason = arithmetic_rule(vit, CPU)
    assert (fields["precision"], fields["attention"]) == (precision, attention)
    assert fields["memory_format"] == "channels_last"
    assert reason


def test_convolutions_in_groups_stay_in_float32_where_bfloat16_slows_them(monkeypatch):
    network = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8))
    monkeypatch.setattr(budget, "_processor_flags", lambda: frozenset({"avx512_bf16"}))
    assert arithmetic_rule(network, CPU)[0]["precision"] == "float32"
    monkeypatch.setattr(budget, "_processor_flags", lambda: frozenset({"amx_bf16"}))
    assert arithmetic_rule(network, CPU)[0]["precision"] == "bfloat16"


def test_what_is_said_stays_and_what_is_open_is_settled(monkeypatch):
    monkeypatch.setattr(budget, "_processor_flags", lambda: frozenset({"amx_bf16"}))
    recipe = RECIPES["small.simclr"]().changed(memory_format="contiguous")
    chosen = choose_arithmetic(recipe, nn.Linear(2, 2), CPU)
    assert (chosen.precision, chosen.memory_format, chosen.compile) == (
        "bfloat16",
        "contiguous",
        False,
    )
    assert "AMX" in chosen.reasons["precision"]
    assert choose_arithmetic(chosen, nn.Linear(2, 2), CPU) == chosen
