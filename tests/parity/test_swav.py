"""SwAV's assignments and loss, step by step through the method itself, against its code."""

import pytest
import torch
from torch import nn

from similitude.losses import sinkhorn
from similitude.method import Batch, Progress
from similitude.methods.swav import SwAV, SwAVConfig


class Given(nn.Module):
    """A backbone whose features are its input: the crops' embeddings of the vectors."""

    def __init__(self, dim):
        super().__init__()
        self.num_features = dim

    def forward(self, x):
        return x.flatten(1)


@pytest.mark.golden("swav_sinkhorn")
def test_sinkhorn(vectors, close):
    q = sinkhorn(vectors["scores"], epsilon=vectors["epsilon"], iterations=vectors["iterations"])
    close(q, vectors["Q"])
    close(q.sum(dim=1), vectors["row_sums"])
    close(q.sum(dim=0), vectors["column_sums"])


def method_of(vectors):
    crops = vectors["crop_embeddings"]
    config = SwAVConfig(
        local_views=crops.shape[1] - 2,
        projector="none",
        num_prototypes=len(vectors["prototypes_init"]),
        temperature=vectors["temperature"],
        epsilon=vectors["epsilon"],
        sinkhorn_iterations=vectors["sinkhorn_iterations"],
        queue_length=vectors["queue_length"],
        queue_start_epoch=0,
    )
    method = SwAV(Given(crops.shape[-1]), config).double()
    method.prototypes.weight.data.copy_(vectors["prototypes_init"])
    return method


@pytest.mark.golden("swav_loss")
def test_swav_loss(vectors, close, monkeypatch):
    assert vectors["crops_for_assign"].tolist() == [0, 1]
    method = method_of(vectors)
    assigned = []
    assign = method._assign

    def record(*args):
        assigned.append(assign(*args))
        return assigned[-1]

    monkeypatch.setattr(method, "_assign", record)
    for step, crops in enumerate(vectors["crop_embeddings"]):
        crops = crops.requires_grad_()
        method.zero_grad()
        views = [crop[:, :, None, None] for crop in crops]
        loss = method.training_loss(
            Batch(views, torch.arange(len(crops[0]))), Progress(step, 100, 50)
        ).loss
        loss.backward()
        close(loss.item(), vectors["losses"][step].item())
        close(torch.stack(assigned[2 * step :]), vectors["Q"][step])
        close(method.prototypes.weight.data, vectors["prototypes_normalised"])
        close(crops.grad, vectors["grad_crop_embeddings"][step])
        close(method.prototypes.weight.grad, vectors["grad_prototypes"][step])
    if vectors["queue_length"]:
        close(method.queue_rows, vectors["queue_after"])
