import copy

import pytest
import torch
from torch import nn

from similitude.errors import UserError
from similitude.optimizers import LARC, LARS, OPTIMIZERS

OPTIONS = {
    "outside": (LARS, {}),
    "classic": (LARS, {"momentum_style": "classic"}),
    "popular": (LARS, {"momentum_style": "popular"}),
    "all tensors": (LARS, {"exclude_1d": False}),
    "scale": (LARC, {}),
    "clip": (LARC, {"clip": True}),
}


@pytest.fixture(params=OPTIONS.values(), ids=OPTIONS)
def make_optimizer(request):
    cls, options = request.param
    defaults = {"lr": 0.5, "weight_decay": 1e-2, "trust_coefficient": 0.02}
    return lambda params, **kw: cls(params, **{**defaults, **options, **kw})


def network():
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).double()


def train(net, optimizer, x, steps, lrs=(0.5, 0.3, 0.1)):
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lrs[step % len(lrs)]
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()


def test_a_saved_state_continues_exactly(make_optimizer):
    x = torch.randn(8, 4, dtype=torch.float64)
    net = network()
    optimizer = make_optimizer(net.parameters())
    train(net, optimizer, x, 3)
    twin = copy.deepcopy(net)
    resumed = make_optimizer(twin.parameters(), lr=9.0)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(net, optimizer, x, 2)
    train(twin, resumed, x, 2)
    for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("style", ["outside", "classic", "popular"])
def test_weights_twice_as_long_move_twice_as_far_whatever_the_gradient(style):
    """The point of LARS: w -> a w, g -> b g gives a path a times as long, without decay."""
    init, grads = torch.randn(4, 3), torch.randn(5, 4, 3)
    ends = []
    for a, b in [(1, 1), (2, 1), (1, 64), (4, 0.25)]:
        w = (a * init).requires_grad_()
        optimizer = LARS([w], lr=1.0, trust_coefficient=0.1, momentum_style=style)
        for grad in grads:
            w.grad = b * grad
            optimizer.step()
        ends.append(w.detach() / a)
    assert (ends[0] - init).norm() > 0.1
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0])


def test_first_lars_step_has_the_length_of_trust_times_weight():
    w = torch.randn(4, 3, requires_grad=True)
    before = w.detach().clone()
    w.grad = torch.randn(4, 3)
    LARS([w], lr=2.0, trust_coefficient=0.01).step()
    moved = w.detach() - before
    torch.testing.assert_close(moved.norm(), 2.0 * 0.01 * before.norm())
    torch.testing.assert_close(moved / moved.norm(), -w.grad / w.grad.norm())


def test_biases_and_norms_follow_plain_sgd_without_decay():
    ours, plain = (nn.Parameter(torch.arange(4.0)) for _ in range(2))
    lars = LARS([ours], lr=0.1, momentum=0.8, weight_decay=0.5)
    sgd = torch.optim.SGD([plain], lr=0.1, momentum=0.8)
    for grad in torch.randn(4, 4):
        ours.grad = plain.grad = grad
        lars.step()
        sgd.step()
    torch.testing.assert_close(ours, plain)


def test_classic_and_outside_agree_until_the_rate_changes():
    init, grads = torch.randn(4, 3), torch.randn(4, 4, 3)
    paths = []
    for style in ("outside", "classic"):
        w = init.clone().requires_grad_()
        optimizer = LARS([w], lr=1.0, trust_coefficient=0.1, momentum_style=style)
        path = []
        for step, grad in enumerate(grads):
            optimizer.param_groups[0]["lr"] = 1.0 if step < 3 else 0.1
            w.grad = grad
            optimizer.step()
            path.append(w.detach().clone())
        paths.append(path)
    torch.testing.assert_close(paths[0][:3], paths[1][:3])
    assert (paths[0][3] - paths[1][3]).norm() > 1e-3


def test_weight_decay_of_a_group_is_its_own():
    first, second = (nn.Parameter(torch.ones(2, 2)) for _ in range(2))
    groups = [{"params": [first]}, {"params": [second], "weight_decay": 0.0}]
    optimizer = LARS(groups, lr=1.0, weight_decay=1.0, trust_coefficient=0.1)
    for p in (first, second):
        p.grad = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    optimizer.step()
    assert second[1, 1] == 1
    assert first[1, 1] < 1


def test_zero_weights_and_zero_gradients_stay_finite(make_optimizer):
    zero_weight, zero_grad = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.ones(2, 2))
    zero_weight.grad, zero_grad.grad = torch.ones(2, 2), torch.zeros(2, 2)
    make_optimizer([zero_weight, zero_grad], weight_decay=0.0).step()
    torch.testing.assert_close(zero_weight.detach(), torch.full((2, 2), -0.5))  # plain SGD, lr 0.5
    torch.testing.assert_close(zero_grad.detach(), torch.ones(2, 2))


def test_a_parameter_without_gradient_is_left_alone(make_optimizer):
    used, unused = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = make_optimizer([used, unused])
    optimizer.step()
    used.grad = torch.ones(2, 2)
    optimizer.step()
    assert torch.equal(unused, torch.ones(2, 2))
    assert not torch.equal(used, torch.ones(2, 2))
    assert unused not in optimizer.state


def test_gradients_are_left_as_they_were(make_optimizer):
    """Whoever logs gradient norms after the step reads the true ones."""
    w = nn.Parameter(torch.ones(2, 2))
    w.grad = torch.full((2, 2), 3.0)
    make_optimizer([w]).step()
    assert torch.equal(w.grad, torch.full((2, 2), 3.0))


def test_a_closure_is_evaluated_with_gradients_and_its_loss_returned(make_optimizer):
    w = nn.Parameter(torch.ones(2, 2))
    optimizer = make_optimizer([w])

    def closure():
        optimizer.zero_grad()
        loss = w.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 4
    assert not torch.equal(w, torch.ones(2, 2))


def test_clipping_never_exceeds_the_rate():
    """A huge trust coefficient asks for more than lr: clip leaves plain SGD, scale does not."""
    clipped, scaled, plain = (nn.Parameter(torch.ones(2, 2)) for _ in range(3))
    for p in (clipped, scaled, plain):
        p.grad = torch.ones(2, 2)
    LARC([clipped], lr=0.1, trust_coefficient=50.0, clip=True).step()
    LARC([scaled], lr=0.1, trust_coefficient=50.0).step()
    torch.optim.SGD([plain], lr=0.1).step()
    torch.testing.assert_close(clipped, plain)
    assert scaled.sum() < plain.sum() - 1


def test_larc_around_sgd_shares_its_groups_and_refuses_what_it_would_ignore():
    w = nn.Parameter(torch.ones(2, 2))
    sgd = torch.optim.SGD([w], lr=0.1, momentum=0.5)
    larc = LARC(sgd)
    sgd.param_groups[0]["lr"] = 0.7  # as a learning-rate scheduler made for it would
    assert larc.param_groups[0]["lr"] == 0.7
    assert larc.param_groups[0]["momentum"] == 0.5
    with pytest.raises(UserError, match="nesterov"):
        LARC(torch.optim.SGD([w], lr=0.1, momentum=0.5, nesterov=True))


@pytest.mark.parametrize("setting", ["lr", "momentum", "weight_decay", "trust_coefficient"])
@pytest.mark.parametrize("cls", [LARS, LARC])
def test_negative_settings_are_refused(cls, setting):
    with pytest.raises(UserError, match=f"{setting} is -1"):
        cls([nn.Parameter(torch.ones(1))], **{"lr": 0.1, setting: -1.0})


def test_unknown_momentum_style_and_missing_rate_are_refused():
    w = nn.Parameter(torch.ones(1))
    with pytest.raises((UserError, TypeError), match="inside"):  # TypeError: under type checks
        LARS([w], lr=0.1, momentum_style="inside")
    with pytest.raises(UserError, match="give lr"):
        LARC([w])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_named_optimizer_descends(name):
    net, x = network(), torch.randn(8, 4, dtype=torch.float64)
    optimizer = OPTIMIZERS[name](net.parameters(), lr=0.05)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = net(x).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
