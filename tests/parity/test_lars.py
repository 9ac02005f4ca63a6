"""LARS and LARC, five steps each, against the code of Barlow Twins, SimCLR and apex."""

import pytest
import torch

from similitude.optimizers import LARC, LARS


def check_steps(vectors, close, make_optimizer):
    params = {
        name.removeprefix("init."): value.requires_grad_()
        for name, value in vectors.items()
        if name.startswith("init.")
    }
    optimizer = make_optimizer(
        list(params.values()),
        lr=vectors["lr_per_step"][0].item(),
        momentum=vectors["momentum"],
        weight_decay=vectors["weight_decay"],
        trust_coefficient=vectors["eta"],
    )
    for step, lr in enumerate(vectors["lr_per_step"].tolist()):
        optimizer.param_groups[0]["lr"] = lr
        for name, p in params.items():
            p.grad = vectors[f"grads.{name}"][step]
        optimizer.step()
        for name, p in params.items():
            close(p.detach(), vectors[f"after.{name}"][step])


@pytest.mark.golden("lars")
def test_lars(vectors, close):
    check_steps(vectors, close, LARS)


@pytest.mark.golden("lars_no_exclusions")
def test_lars_no_exclusions(vectors, close):
    check_steps(vectors, close, lambda *args, **kw: LARS(*args, **kw, exclude_1d=False))


@pytest.mark.golden("lars_simclr_classic_momentum")
def test_lars_simclr_classic_momentum(vectors, close):
    check_steps(vectors, close, lambda *args, **kw: LARS(*args, **kw, momentum_style="classic"))


@pytest.mark.golden("lars_simclr_popular_momentum")
def test_lars_simclr_popular_momentum(vectors, close):
    check_steps(vectors, close, lambda *args, **kw: LARS(*args, **kw, momentum_style="popular"))


@pytest.mark.golden("larc_sgd_scale")
def test_larc_scale(vectors, close):
    check_steps(vectors, close, lambda *args, **kw: LARC(*args, **kw, eps=vectors["eps"]))


@pytest.mark.golden("larc_sgd_clip")
def test_larc_clip(vectors, close):
    check_steps(vectors, close, lambda *args, **kw: LARC(*args, **kw, clip=True))


@pytest.mark.golden("larc_sgd_scale")
def test_larc_around_sgd(vectors, close):
    def around(params, *, trust_coefficient, **kw):
        return LARC(torch.optim.SGD(params, **kw), trust_coefficient=trust_coefficient)

    check_steps(vectors, close, around)
