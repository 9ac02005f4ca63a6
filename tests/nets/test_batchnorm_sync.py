"""BatchNorm over two real processes against PyTorch's own on the whole batch."""

import pytest
import timm
import torch
from torch import nn

from builders import join_as, leave, start_processes
from similitude.distributed import own_rows
from similitude.distributed.launch import _free_port
from similitude.errors import UserError
from similitude.nets import (
    ScaleBatchNorm1d,
    SplitBatchNorm2d,
    SyncBatchNorm,
    convert_sync_batchnorm,
    sync_batch_norm,
)

pytestmark = pytest.mark.slow

WORLD = 2
LAYERS = {
    "1d": lambda: nn.BatchNorm1d(3),
    "scale": lambda: ScaleBatchNorm1d(3),
    "plain": lambda: nn.BatchNorm1d(3, affine=False),
    "2d": lambda: nn.BatchNorm2d(3, momentum=0.3),
    "untracked": lambda: nn.BatchNorm2d(3, track_running_stats=False),
    "split": lambda: SplitBatchNorm2d(3, 2),
}


def passes(name):
    """Two passes of rows that differ much between processes; outputs, gradients, statistics."""
    generator = torch.Generator().manual_seed(5)
    shape = (8, 3, 4, 5) if name in ("2d", "untracked", "split") else (8, 3)
    layer = LAYERS[name]().double()
    for p in layer.parameters():
        p.data.copy_(torch.randn(p.shape, generator=generator))
    layer = convert_sync_batchnorm(layer)
    outputs, grads = [], []
    for _ in range(2):
        x = torch.randn(shape, generator=generator, dtype=torch.float64)
        x[4:] = 3 * x[4:] + 7
        upstream = torch.randn(shape, generator=generator, dtype=torch.float64)
        mine = own_rows(x).requires_grad_()
        y = layer(mine)
        (y * own_rows(upstream)).sum().backward()
        outputs.append(y.detach())
        grads.append(mine.grad)
    weights = [p.grad for p in layer.parameters()]
    return {"outputs": outputs, "grads": grads, "weights": weights, "state": layer.state_dict()}


def process(number, folder, port, on_one_machine):
    join_as(number, WORLD, port, on_one_machine=on_one_machine)
    torch.save({name: passes(name) for name in LAYERS}, f"{folder}/{number}")
    leave()


@pytest.fixture(scope="module", params=[True, False], ids=["shared memory", "gloo"])
def together(tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("processes")
    start_processes(process, str(folder), _free_port(), request.param)
    return [torch.load(folder / str(number), weights_only=True) for number in range(WORLD)]


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
@pytest.mark.parametrize("name", LAYERS)
def test_two_processes_normalize_as_one(together, name):
    whole = passes(name)  # one process: PyTorch's own BatchNorm, forward and backward
    ours = [result[name] for result in together]
    for kind in ("outputs", "grads"):
        joined = [torch.cat([o[kind][i] for o in ours]) for i in range(2)]
        torch.testing.assert_close(joined, whole[kind], rtol=1e-10, atol=1e-12)
    sums = [sum(grads) for grads in zip(*(o["weights"] for o in ours), strict=True)]
    torch.testing.assert_close(sums, whole["weights"], rtol=1e-10, atol=1e-12)
    for o in ours:
        torch.testing.assert_close(dict(o["state"]), dict(whole["state"]), rtol=1e-10, atol=1e-12)


def test_in_one_process_and_in_eval_mode_it_is_the_plain_one():
    x = torch.randn(6, 3)
    plain, ours = nn.BatchNorm1d(3), convert_sync_batchnorm(nn.BatchNorm1d(3))
    assert torch.equal(plain(x), ours(x))
    assert torch.equal(plain.eval()(x), ours.eval()(x))
    assert plain.state_dict().keys() == ours.state_dict().keys()


def test_conversion_keeps_parameters_and_reaches_every_layer():
    network = timm.create_model("resnet10t", num_classes=0)
    before = dict(network.named_parameters())
    convert_sync_batchnorm(network)
    assert all(before[name] is p for name, p in network.named_parameters())
    layers = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert layers
    assert all(type(layer) is SyncBatchNorm for layer in layers)


def test_a_fused_norm_and_a_plain_average_are_refused_with_what_to_do():
    fused = timm.create_model("efficientnet_lite0", num_classes=0)
    with pytest.raises(UserError, match=r"BatchNormAct2d.*ResNet.*one process"):
        convert_sync_batchnorm(fused)
    with pytest.raises(UserError, match="momentum"):
        convert_sync_batchnorm(nn.BatchNorm1d(3, momentum=None))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_number_format_gives_what_pytorch_gives(dtype, affine, memory_format):
    torch.manual_seed(0)
    weight, bias = (torch.randn(3) if affine else None for _ in range(2))
    x = (3 * torch.randn(8, 3, 4, 5) + 1).to(dtype).contiguous(memory_format=memory_format)
    upstream = torch.randn_like(x)
    found = []
    for norm in (sync_batch_norm, plain_batch_norm):
        running = [torch.zeros(3), torch.ones(3)]
        inputs = [t.clone().requires_grad_() for t in (x, weight, bias) if t is not None]
        y = norm(inputs[0], *running, *(inputs[1:] or [None, None]), 0.1, 1e-5)
        assert y.dtype == dtype
        y.backward(upstream)
        found.append([y, *running, *(t.grad for t in inputs)])
    digits = {"rtol": 2e-2, "atol": 2e-2} if dtype == torch.bfloat16 else {}
    for ours, expected in zip(*found, strict=True):
        assert ours.dtype == expected.dtype
        torch.testing.assert_close(ours, expected, **digits)


def plain_batch_norm(x, mean, var, weight, bias, momentum, eps):
    return nn.functional.batch_norm(x, mean, var, weight, bias, True, momentum, eps)
