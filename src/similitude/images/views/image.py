"""Views of images: whole batches of integers in, float32 out, parameters drawn per sample.

Letters: N samples, C channels, V views that are drawn alike, M = V N: all samples of the first
view, then those of the next; S side of a canvas, s side of a view.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt
from torch import Tensor

from similitude.devices import computing_in, moved
from similitude.images.canvases import Canvases
from similitude.images.views.color import blend_, scale_brightness_, shift_hue_
from similitude.images.views.config import ImageFacts, ImageViewConfig
from similitude.images.views.drawing import JITTER_ORDERS, ViewParameters, draw_parameters
from similitude.images.views.operations import OPERATIONS
from similitude.images.views.resampling import crop_and_resize
from similitude.sample import Draw, View

_HUE = 3
_NOT_JITTERED = len(JITTER_ORDERS[0])
# per order: the turn of the hue, and the three other operations in their turn
_HUE_TURN = torch.tensor([order.index(_HUE) for order in JITTER_ORDERS])
_BLENDS = torch.tensor([[op for op in order if op != _HUE] for order in JITTER_ORDERS])
_CONTRAST, _SATURATION = 1, 2

# A chunk of samples: little enough for the caches through some sixty passes over it, and enough for
# the time of a pass to be more than that of starting it.
_CACHE_BYTES = 1 << 23
_DEVICE_BYTES = 1 << 28


def _chunk_length(canvases: Tensor, size: int, views: int = 1) -> int:
    """Canvases of a chunk, whose operations are split over all threads."""
    # bytes of a sample: its views in floats, the canvas as it is and in floats
    one = canvases.shape[1] * (4 * views * size**2 + 5 * canvases.shape[-1] ** 2)
    on_cpu = canvases.device.type == "cpu"
    room = torch.get_num_threads() * _CACHE_BYTES if on_cpu else _DEVICE_BYTES
    return max(1, room // one)


class _Blends(NamedTuple):
    """Brightness, contrast and saturation of each sample in its own order; see ``blend_``."""

    factor: Float[Tensor, "N 3"]
    grey_weight: Float[Tensor, "N 3"]
    mean_weight: Float[Tensor, "N 3"]

    def of(self, samples: slice, turn: int) -> tuple[Tensor, ...]:
        """What ``blend_`` takes for these samples at this turn."""
        return tuple(field[samples, turn] for field in self)


def _blends(parameters: ViewParameters, device: torch.device) -> _Blends:
    operation = _BLENDS[parameters.jitter_order]
    factors = [parameters.brightness, parameters.contrast, parameters.saturation]
    factor = torch.stack(factors, dim=1).gather(1, operation)
    rest = 1.0 - factor
    weights = factor, rest * (operation == _SATURATION), rest * (operation == _CONTRAST)
    return _Blends(*(moved(field, device) for field in weights))


@dataclass(frozen=True)
class ImageView(View[Canvases]):
    """One random view of an image, drawn and applied as its config says."""

    config: ImageViewConfig
    facts: ImageFacts

    def __post_init__(self) -> None:
        self.config.check_channels(self.facts)

    @property
    def size(self) -> int:
        """Side of the view in pixels."""
        return self.config.size or self.facts.size

    def draw(self, draw: Draw, rows: Canvases) -> ViewParameters:
        """Draws the parameters of this view for every image, or of several views like it.

        Returns:
            What depends on seed, epoch, position and number of the view alone, whatever else is in
            the batch: all images of the first view, then those of the next.
        """
        return draw_parameters(
            self.config,
            seed=draw.seed,
            epoch=draw.epoch,
            index=draw.index,
            view=draw.views,
            aspect=rows.aspect,
            canvas_size=rows.pixels.shape[-1],
        )

    def apply(self, rows: Canvases, choices: ViewParameters) -> Sequence[Float[Tensor, "N C s s"]]:
        """Makes the views that the parameters describe.

        Args:
            rows: The images.
            choices: Parameters, one set per image for each view, as :meth:`draw` gives them; on
                any device.

        Returns:
            One batch for each view: float32, normalized by the facts' mean and std, or in [0, 1] if
            the config says so. Several views take less time than one after the other.
        """
        canvases, parameters = rows.pixels, choices
        n, device = len(canvases), canvases.device
        views = len(parameters.top) // n if n else 1
        # The choices stay on the CPU, where deciding on them does not wait for another device.
        drawn = parameters.mapped(lambda field: field.cpu().view(views, n))
        made = torch.empty(views, n, canvases.shape[1], self.size, self.size, device=device)
        length = _chunk_length(canvases, self.size, views)
        for start in range(0, n, length):
            part = slice(start, min(start + length, n))
            chosen = drawn.mapped(lambda field, part=part: field[:, part].flatten())
            # pixels are float32, whatever the caller computes in
            with computing_in(torch.float32, device):
                self._make(canvases[part], chosen, made[:, part])
        return list(made)

    def _make(
        self,
        canvases: UInt[Tensor, "N C S S"],
        parameters: ViewParameters,
        out: Float[Tensor, "V N C s s"],
    ) -> None:
        """Makes views of a chunk into ``out``, whose parameters follow each other in its order."""
        config, device = self.config, canvases.device
        # Samples whose hue comes at the same turn stand side by side, unjittered ones last: then
        # every step of the jitter works on slices, without masks or copies.
        turn = _HUE_TURN[parameters.jitter_order]
        turn = torch.where(parameters.jitter, turn, _NOT_JITTERED)
        order = turn.argsort(stable=True)
        turns = torch.bincount(turn, minlength=_NOT_JITTERED).cumsum(0)[:_NOT_JITTERED].tolist()
        parameters = parameters.select(order)
        # The mirror belongs to the crop: every later operation commutes with it.
        images = crop_and_resize(
            canvases,
            order % len(canvases),
            parameters.top,
            parameters.left,
            parameters.height,
            parameters.width,
            parameters.flip,
            size=self.size,
            interpolation=config.interpolation,
        )
        if config.turn > 0:
            _turn_(images, parameters.quarter_turns)
        self._jitter_(images, moved(parameters.hue, device), _blends(parameters, device), turns)
        for operation in OPERATIONS:
            if getattr(config, operation.name) > 0:
                which = parameters.operations[operation.name].nonzero().squeeze(1)
                values = {name: parameters.operations[name][which] for name in operation.ranges}
                operation.apply_(images, which, values, config)
        if config.normalize:
            _normalize_(images, self.facts)
        for view, places in zip(
            out, moved(order.argsort(), device).split(len(canvases)), strict=True
        ):
            torch.index_select(images, 0, places, out=view)

    def _jitter_(
        self,
        images: Float[Tensor, "N C s s"],
        hue: Float[Tensor, " N"],
        blends: _Blends,
        turns: Sequence[int],
    ) -> None:
        """Jitters the first samples: hue of those up to ``turns[t]`` comes at turn t or before.

        Hue takes more operations than all others: it is turned once, for all samples, between the
        turns that come before it and those that come after it.
        """
        jittered = turns[-1]
        for turn, end in enumerate(turns[:-1]):
            self._take_turn_(images[end:jittered], blends.of(slice(end, jittered), turn))
        if self.config.jitter[_HUE] > 0 and jittered > 0:
            shift_hue_(images[:jittered], hue[:jittered])
        for turn, end in enumerate(turns[:-1]):
            self._take_turn_(images[:end], blends.of(slice(end), turn))

    def _take_turn_(self, images: Float[Tensor, "N C s s"], blends: Sequence[Tensor]) -> None:
        brightness, contrast, saturation, _ = self.config.jitter
        if len(images) == 0:
            return
        if max(contrast, saturation) > 0:
            blend_(images, *blends)
        elif brightness > 0:
            scale_brightness_(images, blends[0])


def _turn_(images: Float[Tensor, "N C s s"], quarters: Int[Tensor, " N"]) -> None:
    for count in (1, 2, 3):
        which = moved((quarters == count).nonzero().squeeze(1), images.device)
        turned = images.index_select(0, which).rot90(count, dims=(2, 3))
        images.index_copy_(0, which, turned)


def _normalize_(images: Float[Tensor, "N C s s"], facts: ImageFacts) -> None:
    for channel, (mean, std) in enumerate(zip(facts.mean, facts.std, strict=True)):
        plane = images[:, channel]
        torch.add(plane.new_full((), -mean / std), plane, alpha=1.0 / std, out=plane)


def evaluation_view(rows: Canvases, facts: ImageFacts) -> Float[Tensor, "N C s s"]:
    """The view without chance: the whole canvas, resized with anti-aliasing and normalized.

    Args:
        rows: The images.
        facts: Side, mean and std of the result.

    Returns:
        Float32 of shape [N, C, s, s].
    """
    canvases = rows.pixels
    n, channels, _, side = canvases.shape
    out = torch.empty(n, channels, facts.size, facts.size, device=canvases.device)
    length = _chunk_length(canvases, facts.size)
    for start in range(0, n, length):
        part = canvases[start : start + length]
        if side == facts.size:
            images = part.to(torch.float32).mul_(1.0 / rows.white)
        else:
            zero = torch.zeros(len(part), dtype=torch.int64)
            images = crop_and_resize(
                part,
                torch.arange(len(part)),
                zero,
                zero,
                zero + side,
                zero + side,
                zero.bool(),
                size=facts.size,
                interpolation="bilinear",
            )
        _normalize_(images, facts)
        out[start : start + length] = images
    return out
