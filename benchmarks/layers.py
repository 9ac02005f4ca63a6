"""Layers that compute otherwise than PyTorch's own: milliseconds of forward and backward.

    python benchmarks/layers.py

Convolutions on small maps as they are and as matrix products, attention of ViTs in each arithmetic,
and BatchNorm beside the one over processes, in one process. Prints a line for each case.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from similitude.images import small_maps as convolutions
from similitude.images.backbones import BackboneConfig, build_backbone
from similitude.images.small_maps import SmallMapConv2d
from similitude.nets import sync_batch_norm
from similitude.nets.precision import Arithmetic
from similitude.recipes import RECIPES

KINDS = {"float32": Arithmetic(), "bfloat16": Arithmetic(torch.bfloat16, channels_last=True)}
IMAGENET, SMALL = BackboneConfig(), BackboneConfig(stem="small", base_width=16)
CASES = [(IMAGENET, 32, n) for n in (16, 32, 64, 512)]
CASES += [(SMALL, 8, 128), (SMALL, 8, 3200), (SMALL, 24, 256)]


def milliseconds(run: Callable[[], object], rounds: int = 5) -> float:
    run()
    run()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return 1e3 * statistics.median(seconds)


def time_convolutions() -> None:
    convolutions.FEWEST = 1  # products for any number of samples
    for config, size, number in CASES:
        for name, kind in KINDS.items():
            times = []
            for as_products in (False, True):
                network = build_backbone(config).train()
                for layer in network.modules():
                    if type(layer) is SmallMapConv2d and not as_products:
                        layer.__class__ = nn.Conv2d
                kind.place(network)
                forward, x = kind.wrap(network.forward), torch.rand(number, 3, size, size)
                times.append(milliseconds(lambda f=forward, x=x: f(x).sum().backward()))
            plain, products = times
            what = f"{config.stem} stem, {number} images of {size} px, {name}"
            print(f"{what}: {plain:.1f} ms, as products {products:.1f} ms", flush=True)


def time_attention() -> None:
    plain = Arithmetic(torch.bfloat16, channels_last=True, plain_attention=True)
    for recipe, size, number in (("cifar10.moco_v3_vit", 32, 128), ("imagenet.dino", 224, 8)):
        found = []
        for name, kind in {**KINDS, "bfloat16 with plain attention": plain}.items():
            network = build_backbone(RECIPES[recipe]().backbone).train()
            kind.place(network, for_training=True)
            forward, x = kind.wrap(network.forward), torch.rand(number, 3, size, size)
            took = milliseconds(lambda f=forward, x=x: f(x).sum().backward())
            found.append(f"{name} {1e3 * number / took:.0f}")
        print(f"{recipe}, images/s: {', '.join(found)}", flush=True)


def time_batch_norm() -> None:
    shapes = ((torch.bfloat16, (128, 16, 24, 24)), (torch.bfloat16, (256, 64, 32, 32)))
    for dtype, shape in (*shapes, (torch.float32, (256, 64, 32, 32))):
        weight, bias = (torch.ones(shape[1], requires_grad=True) for _ in range(2))
        mean, var = torch.zeros(shape[1]), torch.ones(shape[1])
        x = torch.randn(shape).to(dtype).contiguous(memory_format=torch.channels_last)
        grad = torch.randn_like(x)
        x.requires_grad_()

        def plain(x=x, grad=grad, mean=mean, var=var, weight=weight, bias=bias) -> None:
            F.batch_norm(x, mean, var, weight, bias, True, 0.1, 1e-5).backward(grad)

        def ours(x=x, grad=grad, mean=mean, var=var, weight=weight, bias=bias) -> None:
            sync_batch_norm(x, mean, var, weight, bias, 0.1, 1e-5).backward(grad)

        both = f"{milliseconds(plain):.1f} ms, over processes {milliseconds(ours):.1f} ms"
        print(f"BatchNorm {dtype} {list(shape)}: {both}", flush=True)


if __name__ == "__main__":
    time_batch_norm()
    time_attention()
    time_convolutions()
