"""Several steps of MoCo with linear encoders: order of loss, queue, optimizer and average."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from similitude.losses import info_nce
from similitude.memory import FeatureQueue
from similitude.nets import ema_update_, frozen_copy


def queue_of(columns):
    queue = FeatureQueue(columns.shape[1], len(columns)).double()
    queue.keys.copy_(columns.T)
    return queue


def linear(weight, bias=None):
    layer = nn.Linear(*weight.T.shape, bias=bias is not None).double()
    layer.load_state_dict({"weight": weight} if bias is None else {"weight": weight, "bias": bias})
    return layer


@pytest.mark.golden("moco_steps")
def test_moco_steps(vectors, close):
    online = linear(vectors["W_init"], vectors["b_init"])
    target = frozen_copy(online)
    queue = queue_of(vectors["queue_init"])
    optimizer = torch.optim.SGD(
        online.parameters(),
        lr=vectors["sgd_lr"],
        momentum=vectors["sgd_momentum"],
        weight_decay=vectors["sgd_weight_decay"],
    )
    for step, (x_q, x_k) in enumerate(zip(vectors["x_q"], vectors["x_k"], strict=True)):
        # The reference moves the target before it encodes keys: with these very weights.
        ema_update_(target, online, vectors["momentum"])
        query, key = F.normalize(online(x_q), dim=1), F.normalize(target(x_k), dim=1)
        loss = info_nce(query, key, queue.snapshot(), temperature=vectors["temperature"])
        queue.enqueue(key)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

        close(loss.item(), vectors["losses"][step].item())
        close(queue.keys.T, vectors["queue_after"][step])
        assert queue.cursor == vectors["ptr_after"][step]
        close(target.weight.data, vectors["W_k_after"][step])
        close(target.bias.data, vectors["b_k_after"][step])
        close(online.weight.data, vectors["W_q_after"][step])
        close(online.bias.data, vectors["b_q_after"][step])


def check_cifar_demo(vectors, close):
    online, target = linear(vectors["W_q"]), linear(vectors["W_k_init"])
    queue = queue_of(vectors["queue_init"])

    def direction(x_query, x_key):
        query = F.normalize(online(x_query), dim=1)
        with torch.no_grad():
            key = F.normalize(target(x_key), dim=1)
        return info_nce(query, key, queue.snapshot(), temperature=vectors["temperature"]), key

    for step, (x1, x2) in enumerate(zip(vectors["x1"], vectors["x2"], strict=True)):
        ema_update_(target, online, vectors["momentum"])
        loss, keys = direction(x1, x2)
        if vectors["symmetric"]:
            loss21, k1 = direction(x2, x1)
            loss, keys = loss + loss21, torch.cat([k1, keys])
        queue.enqueue(keys)
        online.zero_grad()
        loss.backward()

        close(loss.item(), vectors["losses"][step].item())
        close(queue.keys.T, vectors["queue_after"][step])
        assert queue.cursor == vectors["ptr_after"][step]
        close(online.weight.grad, vectors["grad_W_q"][step])
        close(target.weight.data, vectors["W_k_after"][step])


@pytest.mark.golden("moco_cifar_sym")
def test_symmetric_cifar_demo(vectors, close):
    check_cifar_demo(vectors, close)


@pytest.mark.golden("moco_cifar_asym")
def test_asymmetric_cifar_demo(vectors, close):
    check_cifar_demo(vectors, close)
