"""The heads of the papers, layer by layer, for a ResNet-50 (2,048 features).

L = Linear, B = BatchNorm; b after a Linear: bias; w and o after a BatchNorm: scale and offset.
"""

import pytest
import torch
from torch import nn

from similitude.methods import CONFIGS, build_method

HEADS = {
    "simclr": {"projector": "L2048 Bwo ReLU L128 Bw"},
    "simclr_v2": {"projector": "L2048 Bwo ReLU L2048 Bwo ReLU L128 Bw"},
    "moco_v1": {"projector": "L128b"},
    "moco_v2": {"projector": "L2048b ReLU L128b"},
    "end_to_end": {"projector": "L128b"},
    "memory_bank": {"projector": "L128b"},
    "inst_disc": {"projector": "L128b"},
    "inva_spread": {"projector": "L128b"},
    "diet": {"projector": "Identity", "classifier": "L8"},
    "byol": {"projector": "L4096b Bwo ReLU L256", "predictor": "L4096b Bwo ReLU L256"},
    "simsiam": {
        "projector": "L2048 Bwo ReLU L2048 Bwo ReLU L2048b B",
        "predictor": "L512 Bwo ReLU L2048b",
    },
    "simtriplet": {
        "projector": "L2048 Bwo ReLU L2048 Bwo ReLU L2048 Bwo",
        "predictor": "L512 Bwo ReLU L2048b",
    },
    "swav": {"projector": "L2048b Bwo ReLU L128b", "prototypes": "L3000"},
    "barlow_twins": {"projector": "L8192 Bwo ReLU L8192 Bwo ReLU L8192"},
    "barlow_twins_hsic": {"projector": "L8192 Bwo ReLU L8192 Bwo ReLU L8192"},
    "moco_v3": {"projector": "L4096 Bwo ReLU L256 B", "predictor": "L4096 Bwo ReLU L256"},
    "raft": {"projector": "L4096b Bwo ReLU L256b", "predictor": "L4096b Bwo ReLU L256b"},
}
SMALL = {"num_samples": 8, "queue_length": 8, "num_negatives": 4}  # memory is not what is compared


def describe(head: nn.Module) -> str:
    words = []
    for layer in head if isinstance(head, nn.Sequential) else [head]:
        if isinstance(layer, nn.Linear):
            words.append(f"L{layer.out_features}" + "b" * (layer.bias is not None))
        elif isinstance(layer, nn.BatchNorm1d):
            words.append("B" + "w" * (layer.weight is not None) + "o" * (layer.bias is not None))
        else:
            words.append(type(layer).__name__)
    return " ".join(words)


@pytest.mark.parametrize("name", HEADS)
def test_heads_are_those_of_the_paper(name):
    backbone = nn.Flatten()
    backbone.num_features = 2048  # type: ignore[assignment]
    kind = CONFIGS[name]
    config = kind(**{k: v for k, v in SMALL.items() if k in kind.model_fields})
    with torch.device("meta"):  # the widths count, not the numbers
        method = build_method(config, backbone)
    assert {head: describe(getattr(method, head)) for head in HEADS[name]} == HEADS[name]
