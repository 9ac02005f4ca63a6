"""BYOL's regression loss, schedules and moving average against its code."""

import pytest
import torch
from torch import nn

from similitude.losses import normalized_regression
from similitude.nets import ema_update_
from similitude.schedules import cosine, warmup_cosine


@pytest.mark.golden("byol_loss")
def test_byol_loss(vectors, close):
    p1, p2 = (vectors[f"prediction_view{view}"].requires_grad_() for view in (1, 2))
    z1, z2 = (vectors[f"target_projection_view{view}"] for view in (1, 2))
    loss12, loss21 = normalized_regression(p1, z2), normalized_regression(p2, z1)
    loss = loss12 + loss21
    loss.backward()
    close(loss12.item(), vectors["per_sample_12"].mean().item())
    close(loss21.item(), vectors["per_sample_21"].mean().item())
    close(loss.item(), vectors["loss"])
    close(p1.grad, vectors["grad_prediction_view1"])
    close(p2.grad, vectors["grad_prediction_view2"])


@pytest.mark.golden("byol_schedule")
def test_byol_schedule(vectors, close):
    max_steps = vectors["max_steps"]
    peak = vectors["base_learning_rate"] * vectors["batch_size"] / 256
    warmup = vectors["warmup_steps"] / max_steps
    online, target = (nn.ParameterList([torch.zeros(5, dtype=torch.float64)]) for _ in range(2))
    target[0].data.copy_(vectors["target_init"])
    for i, step in enumerate(vectors["steps"].tolist()):  # goes on past max_steps
        decay = cosine(vectors["base_ema"], 1.0, step / max_steps)
        close(decay, vectors["tau"][i].item())
        rate = warmup_cosine(peak, 0.0, warmup, step / max_steps)
        close(rate, vectors["learning_rate"][i].item())
        online[0].data.copy_(vectors["online_per_step"][i])
        ema_update_(target, online, decay)
        close(target[0].data, vectors["target_after"][i])
