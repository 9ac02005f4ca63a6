"""Which arithmetic is the fastest on this machine: timed once, and remembered."""

import json
import platform
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

from similitude.acceleration import Arithmetic, compiled_forward, fused_attentions
from similitude.backbones import BackboneConfig, build_backbone
from similitude.data.cache import cache_folder
from similitude.errors import UserError
from similitude.listening import Listener
from similitude.storage import write_text

CANDIDATES = {
    "float32": Arithmetic(),
    "float32 channels_last": Arithmetic(channels_last=True),
    "bfloat16 channels_last": Arithmetic(torch.bfloat16, channels_last=True),
    "bfloat16 with plain attention": Arithmetic(torch.bfloat16, True, plain_attention=True),
}
PIXELS = 2**17  # in a step of the trial: 128 images of 32 px
DEVICE_PIXELS = 2**23  # on an accelerator
KEPT = timedelta(days=30)  # drivers, libraries and neighbours on the machine change
_ROUNDS = 3


@dataclass(frozen=True)
class Speeds:
    """Images per second, forward and backward.

    Attributes:
        images: each candidate's.
        day: of the trial, in ISO format; empty if it has just been made.
    """

    images: dict[str, float]
    day: str = ""

    def fastest(self, names: Collection[str] = ()) -> str:
        """The name of the fastest of all candidates, or of some."""
        return max(names or self.images, key=lambda name: self.images[name])

    @property
    def reason(self) -> str:
        """Why it was chosen."""
        measured = ", ".join(f"{name} {rate:.0f}" for name, rate in self.images.items())
        when = f" on {self.day}, kept in {_shown(_place())}" if self.day else ""
        return f"fastest in a short trial here{when} (images/s: {measured})"


@dataclass(frozen=True)
class Compiling:
    """What compiling a backbone costs and brings on this machine.

    Attributes:
        plain: images per second, forward and backward, without it.
        compiled: with it; 0 where it is not possible.
        seconds: that it takes, at the start of each run.
        problem: why it is not possible.
    """

    plain: float
    compiled: float
    seconds: float
    problem: str = ""


def arithmetic_speeds(
    backbone: BackboneConfig,
    image_size: int,
    device: torch.device,
    batch_size: int,
    listener: Listener | None = None,
) -> Speeds:
    """Time a few training steps of a backbone in each arithmetic, or remember what they took.

    Args:
        backbone: what to time; one of its own is made.
        image_size: pixels of a side.
        device: where.
        batch_size: images in a step; the trial may take fewer.
        listener: hears of the trial's progress.
    """
    batch_size = _batch_size(batch_size, image_size, device)
    what = f"arithmetic: {', '.join(CANDIDATES)}"
    key = _key(what, backbone, image_size, device, batch_size)
    known = _remembered(key)
    with suppress(LookupError, TypeError, ValueError, AttributeError):  # something else wrote it
        found = {name: float(rate) for name, rate in known["images"].items()}
        return Speeds(found, known["day"])
    network = build_backbone(backbone).to(device).train()
    images = _images(batch_size, image_size, device)
    speed: dict[str, float] = {}
    for done, (name, arithmetic) in enumerate(CANDIDATES.items()):
        if listener is not None:
            listener.progress("timing kinds of arithmetic", done, len(CANDIDATES), name)
        if arithmetic.plain_attention and (device.type != "cpu" or not fused_attentions(network)):
            continue
        arithmetic.place(network, for_training=True)
        forward = arithmetic.wrap(network.forward)
        speed[name] = batch_size / min(_seconds(forward, images) for _ in range(_ROUNDS))
    _remember(key, {"images": speed})
    return Speeds(speed)


def compiling(
    backbone: BackboneConfig,
    arithmetic: Arithmetic,
    image_size: int,
    device: torch.device,
    batch_size: int,
    listener: Listener | None = None,
) -> Compiling:
    """Time a few training steps of a backbone with and without ``torch.compile``, or remember.

    Takes about a minute; arguments are those of :func:`arithmetic_speeds`.
    """
    batch_size = _batch_size(batch_size, image_size, device)
    key = _key(f"compiling {arithmetic}", backbone, image_size, device, batch_size)
    known = _remembered(key)
    with suppress(LookupError, TypeError, ValueError):  # something else wrote it
        plain, compiled, seconds = (float(known[n]) for n in ("plain", "compiled", "seconds"))
        return Compiling(plain, compiled, seconds)
    network = build_backbone(backbone).to(device).train()
    arithmetic.place(network, for_training=True)
    images = _images(batch_size, image_size, device)

    def timed(forward: Callable[[Tensor], Tensor]) -> tuple[float, float]:
        """Seconds of the first call and of the best one after it."""
        first, *others = (_seconds(arithmetic.wrap(forward), images) for _ in range(1 + _ROUNDS))
        return first, min(others)

    if listener is not None:
        listener.progress("trying torch.compile", 0, 1, "about a minute")
    plain = batch_size / timed(network.forward)[1]
    try:
        first, best = timed(compiled_forward(network))
    except UserError as error:  # no compiler on this machine, or a network it cannot take
        return Compiling(plain, 0.0, 0.0, str(error))
    found = Compiling(plain, batch_size / best, max(0.0, first - best))
    _remember(key, asdict(found))
    return found


def _batch_size(wanted: int, image_size: int, device: torch.device) -> int:
    """Enough to be like a step of the run: small batches favour other kernels than large ones."""
    pixels = PIXELS if device.type == "cpu" else DEVICE_PIXELS
    return min(wanted, max(8, pixels // image_size**2))


def _images(batch_size: int, size: int, device: torch.device) -> Tensor:
    return torch.rand(batch_size, 3, size, size, device=device)


def _seconds(forward: Callable[[Tensor], Tensor], images: Tensor) -> float:
    start = time.perf_counter()
    forward(images).sum().backward()
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    return time.perf_counter() - start


def _place() -> Path:
    return cache_folder() / "trials.json"


def _shown(path: Path) -> str:
    """Without the name of the user's folder: recipes and reports are passed on."""
    with suppress(ValueError, RuntimeError):  # RuntimeError: nobody knows the home
        return f"~/{path.relative_to(Path.home())}"
    return str(path)


def _key(
    what: str, backbone: BackboneConfig, image_size: int, device: torch.device, batch_size: int
) -> str:
    """Everything that the speed depends on."""
    cuda = device.type == "cuda"
    machine = torch.cuda.get_device_name(device) if cuda else _processor()
    return json.dumps(
        {
            "what": what,
            "machine": f"{platform.node()}, {machine}, {torch.get_num_threads()} threads",
            "versions": [torch.__version__, timm.__version__, version("similitude")],
            "backbone": backbone.model_dump(mode="json"),
            "images": [batch_size, image_size],
        },
        sort_keys=True,
    )


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _trials() -> dict[str, Any]:
    """What has been measured in the last month; nothing where that cannot be read."""
    oldest = (date.today() - KEPT).isoformat()
    # RuntimeError: nobody knows the home
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError):
        found = json.loads(_place().read_text(encoding="utf-8"))
        return {key: trial for key, trial in found.items() if trial["day"] >= oldest}
    return {}


def _remembered(key: str) -> Any:
    return _trials().get(key)


def _remember(key: str, trial: dict[str, Any]) -> None:
    trials = _trials() | {key: trial | {"day": date.today().isoformat()}}
    with suppress(UserError, RuntimeError):  # a trial can be repeated
        write_text(_place(), json.dumps(trials, indent=1))
