"""NT-Xent and InfoNCE against the code of SimCLR, MoCo and MoCo v3."""

import pytest
import torch
from torch.nn import functional as F

from similitude.losses import in_batch_info_nce, info_nce, nt_xent
from similitude.memory import FeatureQueue


@pytest.mark.golden("ntxent")
def test_nt_xent(vectors, close):
    z1, z2 = vectors["z1"].requires_grad_(), vectors["z2"].requires_grad_()
    loss = nt_xent(z1, z2, temperature=vectors["temperature"])
    loss.backward()
    close(loss.item(), vectors["loss_mean_over_2n"])
    close(2 * loss.item(), vectors["loss_sum_of_directions"])
    close(z1.grad, vectors["grad_z1_of_mean"])
    close(z2.grad, vectors["grad_z2_of_mean"])


@pytest.mark.golden("moco_infonce")
def test_info_nce_with_a_queue(vectors, close):
    q_raw = vectors["q_raw"].requires_grad_()
    key = F.normalize(vectors["k_raw"], dim=1)
    queue = FeatureQueue(vectors["queue"].shape[1], len(vectors["queue"])).double()
    queue.keys.copy_(vectors["queue"].T)

    negatives = queue.snapshot()
    loss = info_nce(F.normalize(q_raw, dim=1), key, negatives, temperature=vectors["temperature"])
    queue.enqueue(key)
    loss.backward()

    close(loss.item(), vectors["loss"])
    close(q_raw.grad, vectors["grad_q_raw"])
    close(queue.keys.T, vectors["queue_after"])
    assert queue.cursor.item() == vectors["ptr_after"]


@pytest.mark.golden("mocov3_loss")
def test_in_batch_info_nce(vectors, close):
    q1, q2 = vectors["q1"].requires_grad_(), vectors["q2"].requires_grad_()
    temperature = vectors["temperature"]
    loss12 = 2 * temperature * in_batch_info_nce(q1, vectors["k2"], temperature=temperature)
    loss21 = 2 * temperature * in_batch_info_nce(q2, vectors["k1"], temperature=temperature)
    torch.autograd.backward([loss12, loss21])
    close(loss12.item(), vectors["loss_q1k2"])
    close(loss21.item(), vectors["loss_q2k1"])
    close((loss12 + loss21).item(), vectors["loss"])
    close(q1.grad, vectors["grad_q1"])
    close(q2.grad, vectors["grad_q2"])
