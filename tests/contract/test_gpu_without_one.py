"""What would break on a GPU, found without one: a step whose tensors have a device and no numbers.

Under PyTorch's FakeTensorMode tensors are of "cuda" wherever it runs. Two devices that meet are an
error, at the line where they meet, and so is every number that Python reads back: there, on a GPU,
it would wait for the device.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from builders import IMAGE_METHODS, START, TinyBackbone, random_batch, small_config
from similitude import randomness
from similitude.method import Batch, Method
from similitude.methods import build_method

pytestmark = pytest.mark.slow


def replace_tensors(module: nn.Module, like: Callable[[Tensor], Tensor]) -> None:
    """Put other tensors into the place of all of a module's."""
    for part in module.modules():
        for name, value in part._parameters.items():
            if value is not None:
                part._parameters[name] = nn.Parameter(like(value), value.requires_grad)
        for name, value in part._buffers.items():
            if value is not None:
                part._buffers[name] = like(value)


@pytest.fixture(params=IMAGE_METHODS)
def made(request) -> tuple[Method, Batch]:
    """A method in the middle of a run: at the start some ask what their memory holds."""
    method = build_method(small_config(request.param), TinyBackbone())
    for seed in range(5):  # then queues are full
        method.training_loss(random_batch(method, seed=seed), START)
    return method, random_batch(method)


@pytest.fixture
def mode():
    """Real tensors become such ones too, as what is kept of a draw; afterwards nothing is kept."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        yield mode
    randomness._offsets.cache_clear()


def without_numbers(made: tuple[Method, Batch], device: str) -> tuple[Method, Batch]:
    """A method and a batch of it on a device, within FakeTensorMode."""

    def like(value: Tensor) -> Tensor:
        return torch.empty(value.shape, dtype=value.dtype, device=device)

    method, (views, index) = made
    replace_tensors(method, like)
    return method, Batch([like(view) for view in views], like(index))


def test_a_loss_stays_on_the_device(made, mode):
    """Without gradients: PyTorch's engine asks for a real device."""
    with torch.no_grad():
        method, batch = without_numbers(made, "cuda")
        output = method.training_loss(batch, START)
        method.after_step(START)
    assert {x.device.type for x in (output.loss, *output.metrics.values())} == {"cuda"}


def test_a_step_reads_no_number(made, mode):
    method, batch = without_numbers(made, "cpu")
    optimizer = torch.optim.SGD(method.param_groups(), lr=0.1, momentum=0.9)
    method.training_loss(batch, START).loss.backward()
    method.before_step(START)
    optimizer.step()
    method.after_step(START)
