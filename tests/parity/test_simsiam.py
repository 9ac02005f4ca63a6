"""SimSiam's loss, heads and training steps against its code."""

import pytest
import torch
from torch import nn

from similitude.losses import negative_cosine
from similitude.nets import mlp
from similitude.schedules import cosine


def symmetric_loss(p1, p2, z1, z2):
    return (negative_cosine(p1, z2.detach()) + negative_cosine(p2, z1.detach())) / 2


@pytest.mark.golden("simsiam_loss")
def test_simsiam_loss(vectors, close):
    p1, p2 = vectors["p1"].requires_grad_(), vectors["p2"].requires_grad_()
    loss = symmetric_loss(p1, p2, vectors["z1"], vectors["z2"])
    loss.backward()
    close(loss.item(), vectors["loss"])
    close(p1.grad, vectors["grad_p1"])
    close(p2.grad, vectors["grad_p2"])


@pytest.mark.golden("simsiam_steps")
def test_simsiam_steps(vectors, close):
    d_in, width = vectors["x1"].shape[2], len(vectors["init.encoder.body.0.weight"])
    d_out, bottleneck = (
        len(vectors["init.encoder.fc.6.bias"]),
        len(vectors["init.predictor.1.bias"]),
    )
    body = nn.Sequential(nn.Linear(d_in, width, bias=False), nn.BatchNorm1d(width), nn.ReLU())
    projector = mlp([width, width, width, d_out], last_norm="plain", last_bias=True)
    projector[6].bias.requires_grad_(False)
    predictor = mlp([d_out, bottleneck, d_out])
    model = nn.ModuleDict(
        {"encoder": nn.ModuleDict({"body": body, "fc": projector}), "predictor": predictor}
    ).double()
    state = {name[5:]: value for name, value in vectors.items() if name.startswith("init.")}
    model.load_state_dict({name: torch.as_tensor(value) for name, value in state.items()})
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == vectors["not_trained"]

    base_lr = vectors["base_lr"]
    lr = cosine(base_lr, 0.0, vectors["epoch"] / vectors["epochs"])
    groups = [
        {"params": model["encoder"].parameters(), "lr": lr},
        {"params": predictor.parameters(), "lr": base_lr if vectors["fix_pred_lr"] else lr},
    ]
    close(lr, vectors["group_lrs"][0].item())
    close(groups[1]["lr"], vectors["group_lrs"][-1].item())
    optimizer = torch.optim.SGD(groups, momentum=0.9, weight_decay=1e-4)
    for step, (x1, x2) in enumerate(zip(vectors["x1"], vectors["x2"], strict=True)):
        z1, z2 = projector(body(x1)), projector(body(x2))
        loss = symmetric_loss(predictor(z1), predictor(z2), z1, z2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        close(loss.item(), vectors["losses"][step].item())
    for name, value in model.state_dict().items():
        close(value, torch.as_tensor(vectors[f"final.{name}"]))
