"""The comparison table is measured, and says what the papers say."""

import pytest

from similitude.methods.anatomy import Anatomy, measure, small_config, table

pytestmark = pytest.mark.slow

NONE = Anatomy(False, False, False, False, False, False, False)
KNOWN = {
    # correlations and assignments couple the samples of a batch too, but are no negatives
    "barlow_twins": {"projection_head", "symmetric_loss"},
    "barlow_twins_hsic": {"projection_head", "symmetric_loss"},
    "moco_v3": {
        "momentum_encoder",
        "stop_gradient",
        "predictor",
        "negatives",
        "projection_head",
        "symmetric_loss",
    },
    "raft": {"momentum_encoder", "stop_gradient", "predictor", "projection_head", "symmetric_loss"},
    # every pair counts in both orders, but view 1 is in both pairs
    "simtriplet": {"stop_gradient", "predictor", "projection_head"},
    "simclr": {"negatives", "projection_head", "symmetric_loss"},
    "simclr_v2": {"negatives", "projection_head", "symmetric_loss"},
    "moco_v1": {"momentum_encoder", "stop_gradient", "negatives", "memory"},
    "moco_v2": {"momentum_encoder", "stop_gradient", "negatives", "projection_head", "memory"},
    "byol": {"momentum_encoder", "stop_gradient", "predictor", "projection_head", "symmetric_loss"},
    "simsiam": {"stop_gradient", "predictor", "projection_head", "symmetric_loss"},
    "swav": {"stop_gradient", "projection_head", "symmetric_loss"},
    "dino": {"momentum_encoder", "stop_gradient", "projection_head", "symmetric_loss"},
    "inst_disc": {"negatives", "memory"},
    "cpc_v1": {"predictor", "negatives"},
    "cpc_v2": {"predictor", "negatives"},
    "cmc": {"negatives", "memory"},
    "inva_spread": {"stop_gradient", "negatives", "symmetric_loss"},
    "memory_bank": {"negatives", "memory"},
    "end_to_end": {"negatives"},
    # other samples' rows of W are candidates, but no sample is compared with another one
    "diet": set(),
    "byol_a": {
        "momentum_encoder",
        "stop_gradient",
        "predictor",
        "projection_head",
        "symmetric_loss",
    },
    "speech_simclr": {"negatives", "projection_head", "symmetric_loss"},
    "cpc_audio": {"predictor", "negatives"},
    "clip": {"negatives"},
    "elo": {"negatives", "stop_gradient"},
}


def properties(anatomy: Anatomy) -> set[str]:
    return {name for name, value in vars(anatomy).items() if value}


def test_the_measured_table_is_the_known_one():
    assert {name: properties(anatomy) for name, anatomy in table().items()} == KNOWN


@pytest.mark.parametrize(
    ("name", "change", "gained", "lost"),
    [
        ("simsiam", {"stop_gradient": False}, set(), {"stop_gradient"}),
        ("simsiam", {"predictor": "none"}, set(), {"predictor"}),
        ("simsiam", {"symmetric": False}, set(), {"symmetric_loss"}),
        ("byol", {"predictor": "none"}, set(), {"predictor"}),
        ("byol", {"predictor": "fixed"}, set(), set()),
        ("byol", {"ema_decay": 1.0}, set(), {"momentum_encoder"}),
        ("moco_v2", {"projector": "linear"}, set(), {"projection_head"}),
        ("moco_v1", {"symmetric": True}, {"symmetric_loss"}, set()),
        ("simclr", {"projector": "linear"}, set(), {"projection_head"}),
        ("simclr", {"projector": "none"}, set(), {"projection_head"}),
        ("diet", {"projector": "mlp"}, {"projection_head"}, set()),
        ("diet", {"num_views": 2}, {"symmetric_loss"}, set()),
    ],
)
def test_switching_a_part_off_shows_in_the_table(name, change, gained, lost):
    before = properties(measure(small_config(name)))
    config = small_config(name).model_copy(update=change)
    assert properties(measure(config)) == (before | gained) - lost
