"""How a backbone computes, by rules on network and processor that a person can predict."""

import torch
from torch import nn

from similitude.nets.precision import fused_attentions
from similitude.recipes.budget import machine
from similitude.recipes.recipe import Recipe, because


def choose_arithmetic(recipe: Recipe, network: nn.Module, device: torch.device) -> Recipe:
    """Settle precision, memory format, attention and compiling, where the recipe says "auto".

    Args:
        recipe: fields of "auto" are chosen.
        network: the backbone.
        device: where it will train.
    """
    fast, reason = arithmetic_rule(network, device)
    fields = {"compile": False, **fast}
    chosen = {field: value for field, value in fields.items() if getattr(recipe, field) == "auto"}
    settled = recipe.changed(**chosen)
    return (
        because(settled, reason, precision=settled.precision) if "precision" in chosen else settled
    )


def arithmetic_rule(network: nn.Module, device: torch.device) -> tuple[dict[str, str], str]:
    """Precision, order of memory and attention that are fast for a network, and why.

    A rule on what the processor can do, so that the same command always chooses the same.
    """
    here = machine(device)
    depthwise = any(isinstance(m, nn.Conv2d) and m.groups > 1 for m in network.modules())
    fields = {"precision": "float32", "memory_format": "channels_last", "attention": "fused"}
    if here.bfloat16 is None:
        return fields, f"{here.kind} has no fast bfloat16"
    if depthwise and here.bfloat16.depthwise < here.float32.depthwise and here.kind != "AMX":
        return fields, f"convolutions in groups are slow in bfloat16 on {here.kind}"
    fields["precision"] = "bfloat16"
    if here.kind == "AVX-512 with bfloat16" and fused_attentions(network):
        fields["attention"] = "plain"  # whose backward pass PyTorch's kernel is slow at there
    return fields, f"{here.kind} multiplies faster in it; heads and loss stay in float32"
