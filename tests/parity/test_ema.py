"""The moving average against MoCo v3's code."""

import pytest
import torch
from torch import nn

from similitude.nets import ema_update_
from similitude.schedules import cosine


def network(vectors, prefix):
    """The reference network, in the vectors: Linear, BatchNorm, ReLU, Linear, BatchNorm."""
    tensors = {n.removeprefix(prefix): v for n, v in vectors.items() if n.startswith(prefix)}
    hidden, d_in = tensors["0.weight"].shape
    d_out = len(tensors["3.weight"])
    net = nn.Sequential(
        nn.Linear(d_in, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Linear(hidden, d_out, bias=False),
        nn.BatchNorm1d(d_out, affine=False),
    ).double()
    missing, unexpected = net.load_state_dict(tensors, strict=False)
    assert not unexpected
    assert set(missing) <= set(dict(net.named_buffers()))
    return net


@pytest.mark.golden("ema")
def test_ema(vectors, close):
    online, target = network(vectors, "online_init."), network(vectors, "target_init.")
    buffers = {n.removeprefix("target_buffer."): v for n, v in vectors.items() if "buffer" in n}
    for name, buffer in target.named_buffers():
        buffer.copy_(torch.as_tensor(buffers[name]))

    steps = vectors["epochs"] * vectors["iters_per_epoch"]
    for step, drift in enumerate(vectors["drift_added_to_all_online_params_each_step"]):
        for p in online.parameters():
            p.data.add_(drift)
        decay = vectors["m_base"]
        if vectors["cosine"]:
            decay = cosine(decay, 1.0, step / steps)
        close(decay, vectors["m_per_step"][step].item())
        ema_update_(target, online, decay)
        for name, p in target.named_parameters():
            close(p.data, vectors[f"target_after.{name}"][step])
    for name, buffer in target.named_buffers():
        assert torch.equal(buffer, torch.as_tensor(buffers[name]))
