"""Each task of ELo is the loss that its line says; what is missing is left out of it."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from similitude.errors import UserError
from similitude.method import Batch, Progress
from similitude.methods import build_method
from similitude.methods.elo import ELoConfig, tasks_of
from similitude.multimodal.inputs import SensorInputs
from similitude.multimodal.networks import Towers

STEP = Progress(step=2, total_steps=10, steps_per_epoch=5)


class Clips(nn.Module):
    """Two stages over time."""

    sees_time = True
    stage_widths = (4, 6)
    num_features = 6

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv3d(3, 4, (2, 1, 1)), nn.Linear(4, 6)

    def stages(self, x):
        h = self.first(x).tanh().mean((2, 3, 4))
        return [h, self.second(h).tanh()]

    def forward(self, x):
        return self.stages(x)[-1]


class Pictures(nn.Module):
    num_features = 5

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 16, 5)

    def forward(self, x):
        return self.layer(F.adaptive_avg_pool2d(x, 4).flatten(1)).tanh()


def towers():
    return Towers({"frames": Clips(), "flow": Clips(), "photo": Pictures()}, ("frames",))


def method(**weights):
    config = ELoConfig(weight=0, weights=weights, decoded_side=2, hidden_dim=8, projection_dim=4)
    return build_method(config, towers())


def inputs(n=5, missing=()):
    of = {
        "frames": torch.randn(n, 3, 8, 4, 4),
        "flow": torch.randn(n, 3, 8, 4, 4),
        "photo": torch.randn(n, 3, 8, 8),
    }
    present = {name: torch.ones(n, dtype=torch.bool) for name in of}
    for name, row in missing:
        present[name][row] = False
    return SensorInputs(of, present)


def loss_of(learner, x):
    index = torch.arange(len(x))
    return learner.training_loss(Batch([x], index), STEP).loss


def test_tasks_are_those_that_the_sensors_have():
    assert tasks_of(Towers({"frames": Clips(), "photo": Pictures()}, ("frames",))) == [
        *("reconstruct_frames", "reconstruct_photo"),
        *("predict_frames", "order_frames", "direction_frames"),
        *("transfer_frames_photo", "transfer_photo_frames"),
        *("align_frames_photo", "contrast_frames_photo"),
        "distill_photo_2",
    ]
    assert "distill_flow_1" in tasks_of(towers())


def test_a_loss_is_the_weighted_sum_of_the_tasks():
    x = inputs()
    torch.manual_seed(1)
    both = method(reconstruct_frames=1.0, transfer_frames_flow=0.25)
    half, quarter = both.heads["reconstruct_frames"], both.heads["transfer_frames_flow"]
    h = both.backbone.parts(x)["frames"]
    own = F.adaptive_avg_pool3d(x.of["frames"], (4, 2, 2)).flatten(1)
    other = F.adaptive_avg_pool3d(x.of["flow"], (4, 2, 2)).flatten(1)
    expected = F.mse_loss(half(h), own) + 0.25 * F.mse_loss(quarter(h), other)
    torch.testing.assert_close(loss_of(both, x), expected)


def test_what_follows_is_predicted_and_not_seen():
    learner, x = method(predict_frames=1.0), inputs()
    h = learner.backbone.inner.networks["frames"](x.of["frames"][:, :, :4])
    target = F.adaptive_avg_pool3d(x.of["frames"][:, :, 4:], (4, 2, 2)).flatten(1)
    expected = F.mse_loss(learner.heads["predict_frames"](h), target)
    torch.testing.assert_close(loss_of(learner, x), expected)


def test_direction_tells_a_clip_from_the_reversed_one():
    learner, x = method(direction_frames=1.0), inputs()
    network, head = learner.backbone.inner.networks["frames"], learner.heads["direction_frames"]
    right, wrong = head(network(x.of["frames"])), head(network(x.of["frames"].flip(2)))
    answers = torch.cat([torch.ones_like(right), torch.zeros_like(wrong)])
    expected = F.binary_cross_entropy_with_logits(torch.cat([right, wrong]), answers)
    torch.testing.assert_close(loss_of(learner, x), expected)


@pytest.mark.slow
def test_order_can_be_learned_from_clips_whose_frames_stand_in_a_row():
    torch.manual_seed(0)
    learner = method(order_frames=1.0)
    ramp = torch.linspace(-1, 1, 8)[None, None, :, None, None].expand(64, 3, 8, 4, 4)
    x = inputs(64)
    x = SensorInputs({**x.of, "frames": ramp + 0.1 * x.of["frames"]}, x.present)
    optimizer = torch.optim.Adam(learner.parameters(), 0.05)
    first = loss_of(learner, x).item()
    for _ in range(60):
        loss = loss_of(learner, x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert abs(first - math.log(2)) < 0.2
    assert loss.item() < 0.3


def test_contrast_is_the_distance_and_what_the_next_is_too_near():
    learner, x = method(contrast_frames_photo=1.0), inputs()
    h = learner.backbone.parts(x)
    z, w = (F.normalize(learner.projectors[s](h[s]), dim=1) for s in ("frames", "photo"))
    apart = (z - w.roll(-1, 0)).square().sum(1)
    expected = ((z - w).square().sum(1) + (2 - apart).clamp_min(0)).mean()
    torch.testing.assert_close(loss_of(learner, x), expected)


def test_what_is_missing_is_left_out():
    learner = method(align_frames_photo=1.0, reconstruct_photo=1.0)
    x = inputs(missing=[("photo", 3)])
    changed = SensorInputs({**x.of, "photo": x.of["photo"].clone()}, x.present)
    changed.of["photo"][3] = 9.0
    torch.testing.assert_close(loss_of(learner, x), loss_of(learner, changed))
    nothing = inputs(missing=[("photo", i) for i in range(5)])
    assert loss_of(learner, nothing) == 0


def test_what_is_distilled_does_not_move_towards_the_kept_network():
    learner, x = method(distill_flow_1=1.0, distill_photo_2=1.0), inputs()
    loss_of(learner, x).backward()
    networks = learner.backbone.inner.networks
    assert networks["frames"].first.weight.grad.abs().sum() > 0
    for sensor in ("flow", "photo"):
        grads = [p.grad for p in networks[sensor].parameters()]
        assert all(g is None or not g.any() for g in grads)


def test_a_weight_of_no_task_is_refused():
    with pytest.raises(UserError, match="no task 'order_photo' here"):
        method(order_photo=1.0)
