"""One process = two processes = four micro-batches, for every method, in float64.

Three optimizer steps with all hooks; compared are the losses, the gradients of every step, and
every parameter and buffer at the end: targets, queues, banks, centers, prototypes. Methods that
compare sensors do so on samples of which entries are missing.
"""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from builders import IMAGE_METHODS, TinyBackbone, leave, random_batch, small_config, start_processes
from similitude.distributed import average_gradients, mean_over_processes, own_rows, world_size
from similitude.method import Batch, Method, Progress
from similitude.methods import CLIPConfig, CMCConfig, ELoConfig, build_method
from similitude.multimodal.inputs import SensorInputs
from similitude.multimodal.networks import Towers
from similitude.nets import convert_sync_batchnorm
from similitude.nets.precision import Arithmetic, GradientCache, computing
from similitude.nets.views import rows_at
from similitude.text.networks import BagOfTokens, TextNetworkConfig

STEPS, SAMPLES, WORLD = 3, 8, 2


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
    """In the first step no sample of the second process has both a depth and a text."""
    draw = torch.Generator().manual_seed(seed)
    images = {
        name: torch.randn(n, 3, 5, 5, generator=draw, dtype=torch.float64)
        for name in ("photo", "depth")
    }
    tokens = torch.randint(0, 9, (n, 4), generator=draw)
    there = {name: torch.rand(n, generator=draw) < 0.8 for name in ("photo", "depth", "text")}
    if seed == 0:
        there["depth"][n // WORLD :] = False
    return SensorInputs({**images, "text": tokens}, there)


@cache
def three_steps(
    name: str, backbone: str = "smooth", micro_batch_size: int | None = None
) -> dict[str, Any]:
    """Losses, gradients and the final state of a short training of this process's rows."""
    torch.manual_seed(0)
    of_sensors = name in SENSOR_METHODS
    config = SENSOR_METHODS[name] if of_sensors else small_config(name)
    method = build_method(config, towers() if of_sensors else BACKBONES[backbone]()).double()
    if world_size() > 1:
        convert_sync_batchnorm(method)
    optimizer = torch.optim.SGD(method.param_groups(), lr=0.05, momentum=0.9)
    losses, gradients = [], []
    for step in range(STEPS):
        progress = Progress(step, STEPS, steps_per_epoch=2)
        if of_sensors:
            whole = [sensor_batch(SAMPLES, step)]
        else:
            whole = random_batch(method, SAMPLES, seed=step, dtype=torch.float64).views
        own = own_rows(torch.arange(SAMPLES))
        batch = Batch([rows_at(view, own) for view in whole], (own * 5 + step) % 64)
        cache = None if micro_batch_size is None else GradientCache(micro_batch_size)
        with computing(method, Arithmetic(), cache):
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


def state_of(method: Method) -> dict[str, Tensor]:
    """Counters of batches count passes, of which micro-batches make more."""
    state = method.state_dict()
    return {k: v.clone() for k, v in state.items() if not k.endswith("num_batches_tracked")}


def process(number: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=number, world_size=WORLD
    )
    for name in IMAGE_METHODS:
        for backbone in BACKBONES:
            results = three_steps(name, backbone)
            torch.save(results, f"{folder}/{name}-{backbone}-{number}")
        torch.save(three_steps(name, "smooth", 2), f"{folder}/{name}-micro-{number}")
    for name in SENSOR_METHODS:
        torch.save(three_steps(name), f"{folder}/{name}-{number}")
    leave()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of two real processes, all methods in one start."""
    place = tmp_path_factory.mktemp("processes")
    start_processes(process, str(place))
    return place


def assert_same(ours: Any, expected: Any) -> None:
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)


pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("processes"),
    pytest.mark.usefixtures("unchecked_runs"),
]


@pytest.mark.parametrize("number", range(WORLD))
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("name", IMAGE_METHODS)
def test_two_processes_are_one(folder, name, backbone, number):
    together = torch.load(folder / f"{name}-{backbone}-{number}", weights_only=True)
    assert_same(together, three_steps(name, backbone))


@pytest.mark.parametrize("number", range(WORLD))
@pytest.mark.parametrize("name", SENSOR_METHODS)
def test_two_processes_are_one_where_entries_are_missing(folder, name, number):
    together = torch.load(folder / f"{name}-{number}", weights_only=True)
    assert_same(together, three_steps(name))


@pytest.mark.parametrize("name", IMAGE_METHODS)
def test_four_micro_batches_are_one_batch(name):
    assert_same(three_steps(name, "smooth", 2), three_steps(name, "smooth"))


@pytest.mark.parametrize("number", range(WORLD))
@pytest.mark.parametrize("name", IMAGE_METHODS)
def test_micro_batches_in_two_processes_are_one_batch(folder, name, number):
    together = torch.load(folder / f"{name}-micro-{number}", weights_only=True)
    assert_same(together, three_steps(name, "smooth"))


@pytest.mark.parametrize("name", [*IMAGE_METHODS, *SENSOR_METHODS])
def test_the_comparison_would_notice(name):
    """The three steps do move everything: another first batch gives other losses and gradients."""
    first = three_steps(name, "smooth")
    torch.manual_seed(1)
    assert first["losses"][0] != first["losses"][-1]
    assert any(grad.any() for grad in first["gradients"][-1].values())
