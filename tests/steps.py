"""Three optimizer steps of any method, on any device, in any number of processes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from builders import TinyBackbone, random_batch, small_config
from similitude.audio.networks import FrameTransformer, Predictive
from similitude.distributed import average_gradients, mean_over_processes, own_rows, world_size
from similitude.method import Batch, Method, Progress
from similitude.methods import CLIPConfig, CMCConfig, ELoConfig, build_method, make_config
from similitude.multimodal.inputs import SensorInputs
from similitude.multimodal.networks import Towers
from similitude.nets import convert_sync_batchnorm
from similitude.nets.precision import Arithmetic, GradientCache, computing
from similitude.nets.views import rows_at
from similitude.text.networks import BagOfTokens, TextNetworkConfig

STEPS, SAMPLES = 3, 8
CPU = torch.device("cpu")


class NormalizedBackbone(nn.Module):
    """A small network with BatchNorm, whose samples meet in every pass."""

    num_features = 8

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.Tanh(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 8),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


BACKBONES = {"smooth": TinyBackbone, "normalized": NormalizedBackbone}
SENSOR_METHODS = {
    "clip softmax": CLIPConfig(projection_dim=6),
    "clip sigmoid": CLIPConfig(projection_dim=6, loss="sigmoid"),
    "cmc nce": CMCConfig(projection_dim=6, num_samples=64, num_negatives=16),
    "cmc softmax": CMCConfig(projection_dim=6, num_samples=64, num_negatives=16, loss="softmax"),
    "cmc in_batch": CMCConfig(projection_dim=6, num_samples=64, loss="in_batch"),
    "elo": ELoConfig(projection_dim=6, hidden_dim=8, decoded_side=2),
}


def towers() -> Towers:
    """Three sensors: samples meet in the network of one, and one is of texts."""
    words = BagOfTokens(TextNetworkConfig(entries=9, width=5))
    networks = {"photo": NormalizedBackbone(), "depth": TinyBackbone(), "text": words}
    return Towers(networks, ("photo",))


def sensor_batch(n: int, seed: int) -> SensorInputs:
    """In the first step no sample of the second half has both a depth and a text."""
    draw = torch.Generator().manual_seed(seed)
    images = {
        name: torch.randn(n, 3, 5, 5, generator=draw, dtype=torch.float64)
        for name in ("photo", "depth")
    }
    tokens = torch.randint(0, 9, (n, 4), generator=draw)
    there = {name: torch.rand(n, generator=draw) < 0.8 for name in ("photo", "depth", "text")}
    if seed == 0:
        there["depth"][n // 2 :] = False
    return SensorInputs({**images, "text": tokens}, there)


def _sounds(*shape: int, views: int = 2) -> Callable[[int, int], list[Tensor]]:
    def batch(n: int, seed: int) -> list[Tensor]:
        draw = torch.Generator().manual_seed(seed)
        return [torch.randn(n, *shape, generator=draw, dtype=torch.float64) for _ in range(views)]

    return batch


# a network, settings, and the views of a batch
SOUND_METHODS: dict[str, tuple[Callable[[], nn.Module], dict[str, Any], Any]] = {
    "byol_a": (TinyBackbone, {"hidden_dim": 16, "projection_dim": 5}, _sounds(3, 8, 8)),
    "speech_simclr": (
        lambda: FrameTransformer(8, 16, 1, 2, 2, 0.0),
        {"hidden_dim": 16, "projection_dim": 6},
        _sounds(2, 8, 12),
    ),
    "cpc_audio": (lambda: Predictive(8, 6), {"prediction_steps": 3}, _sounds(1, 1_600, views=1)),
}


def method_and_batches(
    name: str, backbone: str = "smooth"
) -> tuple[Method, Callable[[int], list[Any]]]:
    """A small method, in float64 on the processor, and the views of the batch of any step."""
    torch.manual_seed(0)
    if name in SENSOR_METHODS:
        method = build_method(SENSOR_METHODS[name], towers()).double()
        return method, lambda step: [sensor_batch(SAMPLES, step)]
    if name in SOUND_METHODS:
        network, settings, batch = SOUND_METHODS[name]
        method = build_method(make_config(name, settings), network()).double()
        return method, lambda step: batch(SAMPLES, step)
    method = build_method(small_config(name), BACKBONES[backbone]()).double()
    return method, lambda step: random_batch(method, SAMPLES, seed=step, dtype=torch.float64).views


def three_steps(
    name: str,
    backbone: str = "smooth",
    micro_batch_size: int | None = None,
    *,
    device: torch.device = CPU,
    dtype: torch.dtype = torch.float64,
    arithmetic: Arithmetic | None = None,
) -> dict[str, Any]:
    """Losses, gradients and the final state of a short training of this process's rows."""
    method, batch_of = method_and_batches(name, backbone)
    method.to(device, dtype)
    if world_size() > 1:
        convert_sync_batchnorm(method)
    optimizer = torch.optim.SGD(method.param_groups(), lr=0.05, momentum=0.9)
    losses, gradients = [], []
    for step in range(STEPS):
        progress = Progress(step, STEPS, steps_per_epoch=2)
        own = own_rows(torch.arange(SAMPLES))
        views = [_placed(rows_at(view, own), device, dtype) for view in batch_of(step)]
        batch = Batch(views, ((own * 5 + step) % 64).to(device))
        cache = None if micro_batch_size is None else GradientCache(micro_batch_size)
        with computing(method, arithmetic or Arithmetic(), cache):
            loss = method.training_loss(batch, progress).loss
            optimizer.zero_grad()
            loss.backward()
            if cache is not None:
                cache.backward()
        average_gradients(method.parameters())
        losses.append(mean_over_processes(loss.detach()))
        gradients.append(
            {n: p.grad.clone() for n, p in method.named_parameters() if p.grad is not None}
        )
        method.before_step(progress)
        optimizer.step()
        method.after_step(progress)
    return {"losses": losses, "gradients": gradients, "state": state_of(method)}


def _placed(view: Any, device: torch.device, dtype: torch.dtype) -> Any:
    if isinstance(view, Tensor):
        return view.to(device, dtype)
    return view.each(lambda x: x.to(device, dtype if x.is_floating_point() else x.dtype))


def state_of(method: Method) -> dict[str, Tensor]:
    """Counters of batches count passes, of which micro-batches make more."""
    state = method.state_dict()
    return {k: v.clone() for k, v in state.items() if not k.endswith("num_batches_tracked")}
