"""The rate of a step is a function of the step."""

import pytest
import torch

from builders import random_images, small_recipe
from similitude.listener import Silent
from similitude.method import Progress
from similitude.recipes import OptimizerConfig
from similitude.training.pretrain import train
from similitude.training.rates import learning_rate

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("changes", "step", "rate"),
    [
        ({}, 0, 0.0),  # warm-up starts at 0 ...
        ({}, 5, 0.05),
        ({}, 10, 0.1),  # ... and reaches base_lr * 64 / 256 after one epoch of ten steps
        ({}, 30, 0.0),
        ({"warmup_epochs": 0}, 15, 0.05),
        ({"warmup_epochs": 0, "per": "epoch"}, 19, 0.075),  # the rate of epoch 1 of 3
        ({"warmup_epochs": 0, "schedule": "constant"}, 29, 0.1),
        ({"warmup_epochs": 0, "schedule": "step"}, 17, 0.1),
        ({"warmup_epochs": 0, "schedule": "step"}, 18, 0.01),
        ({"warmup_epochs": 0, "schedule": "step"}, 24, 0.001),
    ],
)
def test_the_rate_follows_its_schedule_and_the_batch_size(changes, step, rate):
    optimizer = OptimizerConfig(**{"base_lr": 0.4, "warmup_epochs": 1, **changes})
    recipe = small_recipe("simclr", optimizer=optimizer, batch_size=64)
    assert learning_rate(recipe, Progress(step, 30, 10)) == pytest.approx(rate, abs=1e-9)


@pytest.mark.slow
def test_the_fixed_predictor_rate_does_not_decay(tmp_path):
    """SimSiam's predictor keeps its peak rate while the rest reaches the end of the cosine."""
    recipe = small_recipe("simsiam")
    run = train(random_images(64), "x", recipe, tmp_path, device=CPU, listener=Silent())
    assert run is not None
    others, predictor = run.checkpoint.optimizer["param_groups"]
    assert predictor["lr"] == pytest.approx(0.1 * 16 / 256)
    assert others["lr"] < 0.2 * predictor["lr"]
