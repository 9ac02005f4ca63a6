"""Views of images: whole uint8 batches in, float32 batches out, parameters drawn per sample.

Letters: N samples, V views that are drawn alike, M = V N: all samples of the first view, then those
of the next; S side of a canvas, s side of a view.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from similitude.distributed.threads import side_by_side
from similitude.errors import UserError
from similitude.images.views.color import blend_, scale_brightness_, shift_hue_, solarize, to_grey
from similitude.images.views.config import ImageSpec, ImageViewConfig
from similitude.images.views.drawing import JITTER_ORDERS, ViewParameters, draw_parameters
from similitude.images.views.resampling import crop_and_resize, gaussian_blur_

__all__ = ["ImageSpec", "ImageView", "ImageViewConfig", "MultiView", "evaluation_view"]

_HUE = 3
_NOT_JITTERED = len(JITTER_ORDERS[0])
# per order: the turn of the hue, and the three other operations in their turn
_HUE_TURN = torch.tensor([order.index(_HUE) for order in JITTER_ORDERS])
_BLENDS = torch.tensor([[op for op in order if op != _HUE] for order in JITTER_ORDERS])
_CONTRAST, _SATURATION = 1, 2

# A chunk of samples: little enough for the caches through some sixty passes over it, and enough for
# the time of a pass to be more than that of starting it.
_CACHE_BYTES = 1 << 23
_THREAD_BYTES = 3 << 22  # threads also hand each other the interpreter at every pass
_DEVICE_BYTES = 1 << 28
# Operations on smaller views take less time than a thread needs to hand the interpreter on.
_THREADS_FROM = 128


def _check_canvases(canvases: Tensor) -> None:
    shape = tuple(canvases.shape)
    if canvases.dtype != torch.uint8 or len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3]:
        raise UserError(
            f"Views need uint8 canvases of shape [N, 3, S, S], not {canvases.dtype} of shape "
            f"{list(shape)}; load the images with similitude.data."
        )


def _chunk_length(canvases: Tensor, size: int, views: int = 1, *, in_threads: bool = False) -> int:
    """Canvases of a chunk, whose operations are split over all threads or done in one of them."""
    n, device = len(canvases), canvases.device
    # bytes of a sample: its views in floats, the canvas as it is and in floats
    one = 3 * (4 * views * size**2 + 5 * canvases.shape[-1] ** 2)
    if device.type != "cpu":
        return max(1, _DEVICE_BYTES // one)
    threads = torch.get_num_threads()
    if in_threads:  # whole rounds of all threads, two at least: unjittered samples take less time
        rounds = max(2, -(-n // (threads * max(1, _THREAD_BYTES // one))))
        return max(1, -(-n // (threads * rounds)))
    return max(1, threads * _CACHE_BYTES // one)


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
    return _Blends(*(field.to(device) for field in weights))


class ImageView:
    """One random view of an image, drawn and applied as its config says."""

    def __init__(self, config: ImageViewConfig, image: ImageSpec) -> None:
        self.config = config
        self.image = image
        self.size = image.size if config.size is None else config.size

    def draw(
        self,
        seed: int,
        epoch: int,
        index: Int[Tensor, " N"],
        view: int | Sequence[int],
        aspect: Float[Tensor, " N"],
        canvas_size: int,
    ) -> ViewParameters:
        """Draws the parameters of this view for every sample, or of several views like it.

        Args:
            seed: Of the run.
            epoch: Number of the pass over the data.
            index: Position of each sample in the data set.
            view: Number of this view within the sample, or of each of several.
            aspect: Width / height of each original.
            canvas_size: Side of the square canvases, in pixels.

        Returns:
            What depends on these arguments alone, whatever else is in the batch; of several views
            all samples of the first, then those of the next.
        """
        return draw_parameters(
            self.config,
            seed=seed,
            epoch=epoch,
            index=index,
            view=view,
            aspect=aspect,
            canvas_size=canvas_size,
        )

    def apply(
        self, canvases: UInt8[Tensor, "N 3 S S"], parameters: ViewParameters
    ) -> Float[Tensor, "M 3 s s"]:
        """Makes the views that the parameters describe.

        Args:
            canvases: Squares into which the originals were squashed, pixels in 0..255.
            parameters: One set per canvas for each view, in the order of `draw`; on any device.

        Returns:
            Float32, normalised by the image's mean and std, or in [0, 1] if the config says so; in
            the order of the parameters. Several views take less time than one after the other.
        """
        _check_canvases(canvases)
        n, device = len(canvases), canvases.device
        views = len(parameters.top) // max(1, n)
        # The choices stay on the CPU, where deciding on them does not wait for another device.
        drawn = ViewParameters(*(field.cpu().view(views, n) for field in parameters))
        made = torch.empty(views, n, 3, self.size, self.size, device=device)
        several = device.type == "cpu" and torch.get_num_threads() > 1
        in_threads = several and self.size >= _THREADS_FROM
        length = _chunk_length(canvases, self.size, views, in_threads=in_threads)

        def make(start: int) -> None:
            part = slice(start, min(start + length, n))
            chosen = ViewParameters(*(field[:, part].flatten() for field in drawn))
            # pixels are float32, whatever the caller computes in
            with torch.autocast(device.type, enabled=False):
                self._make(canvases[part], chosen, made[:, part])

        starts = range(0, n, length)
        if in_threads:
            side_by_side(make, starts)
        else:
            for start in starts:
                make(start)
        return made.flatten(0, 1)

    def _make(
        self,
        canvases: UInt8[Tensor, "N 3 S S"],
        parameters: ViewParameters,
        out: Float[Tensor, "V N 3 s s"],
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
        self._jitter_(images, parameters.hue.to(device), _blends(parameters, device), turns)
        if config.grey > 0:
            which = parameters.grey.nonzero().squeeze(1).to(device)
            grey = to_grey(images.index_select(0, which))
            images.index_copy_(0, which, grey[:, None].expand(-1, 3, -1, -1))
        if config.blur > 0:
            which = parameters.blur.nonzero().squeeze(1)
            radius = config.blur_radius(self.size)
            gaussian_blur_(images, which, parameters.sigma[which], radius=radius)
        if config.solarize > 0:
            which = parameters.solarize.nonzero().squeeze(1).to(device)
            inverted = solarize(images.index_select(0, which), config.solarize_threshold)
            images.index_copy_(0, which, inverted)
        if config.normalize:
            _normalize_(images, self.image)
        for view, places in zip(out, order.argsort().to(device).split(len(canvases)), strict=True):
            torch.index_select(images, 0, places, out=view)

    def _jitter_(
        self,
        images: Float[Tensor, "N 3 s s"],
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

    def _take_turn_(self, images: Float[Tensor, "N 3 s s"], blends: Sequence[Tensor]) -> None:
        brightness, contrast, saturation, _ = self.config.jitter
        if len(images) == 0:
            return
        if max(contrast, saturation) > 0:
            blend_(images, *blends)
        elif brightness > 0:
            scale_brightness_(images, blends[0])


@runtime_checkable
class View(Protocol):
    """One random view: an ImageView, or a PatchView."""

    @property
    def config(self) -> ImageViewConfig:
        """How the view is drawn."""
        ...

    def draw(
        self,
        seed: int,
        epoch: int,
        index: Int[Tensor, " N"],
        view: int,
        aspect: Float[Tensor, " N"],
        canvas_size: int,
    ) -> Any:
        """Draws the parameters of every sample, as a pure function of the arguments."""
        ...

    def apply(self, canvases: UInt8[Tensor, "N 3 S S"], parameters: Any, /) -> Tensor:
        """Makes the views that the parameters describe."""
        ...


class MultiView:
    """Several views of the same samples: what a method learns to make the same.

    Attributes:
        views: One after the other.
        has_neighbour: Whether the last view is of an image beside the sample (SimTriplet).
    """

    def __init__(self, *views: View, neighbour: View | None = None) -> None:
        if not views:
            raise UserError("MultiView has no views; give it at least one ImageView.")
        self.has_neighbour = neighbour is not None
        self.views = views if neighbour is None else (*views, neighbour)
        # positions of views that are drawn alike and made together; a neighbour is another image
        self._alike: list[list[int]] = []
        for number, view in enumerate(views):
            for group in self._alike:
                if _is_like(view, views[group[0]]):
                    group.append(number)
                    break
            else:
                self._alike.append([number])
        if neighbour is not None:
            self._alike.append([len(views)])

    def __len__(self) -> int:
        return len(self.views)

    def __call__(
        self,
        canvases: UInt8[Tensor, "N 3 S S"],
        index: Int[Tensor, " N"],
        *,
        seed: int,
        epoch: int,
        aspect: Float[Tensor, " N"] | None = None,
        neighbours: tuple[UInt8[Tensor, "N 3 S S"], Float[Tensor, " N"]] | None = None,
    ) -> list[Tensor]:
        """Makes all views of a batch, as a pure function of the arguments.

        Args:
            canvases: Squares into which the originals were squashed, pixels in 0..255.
            index: Position of each sample in the data set.
            seed: Of the run.
            epoch: Number of the pass over the data.
            aspect: Width / height of each original; ``None``: all are square.
            neighbours: Canvases and aspects of an image beside each, for the view of a neighbour;
                ``None``: that view is of the same image.

        Returns:
            One float32 tensor per view: [N, 3, s, s], or [N, R, C, 3, p, p] of patches.

        Raises:
            UserError: If shapes or types do not fit.
        """
        _check_canvases(canvases)
        n = len(canvases)
        # drawn on the CPU: the same bits, whatever computes the pixels
        index = index.cpu()
        aspect = torch.ones(n) if aspect is None else aspect.cpu()
        for name, values in {"index": index, "aspect": aspect}.items():
            if values.shape != (n,):
                raise UserError(
                    f"{name} has shape {list(values.shape)} for {n} canvases; give one number "
                    "per canvas."
                )
        shown = [(canvases, aspect)] * len(self.views)
        if self.has_neighbour and neighbours is not None:
            shown[-1] = neighbours[0], neighbours[1].cpu()
        made: dict[int, Tensor] = {}
        for group in self._alike:
            view, (pixels, ratio) = self.views[group[0]], shown[group[0]]
            side = pixels.shape[-1]
            if type(view) is ImageView:
                drawn = view.draw(seed, epoch, index, group, ratio, side)
            else:
                drawn = view.draw(seed, epoch, index, group[0], ratio, side)
            made |= zip(group, view.apply(pixels, drawn).chunk(len(group)), strict=True)
        return [made[number] for number in range(len(self.views))]


def _is_like(view: View, other: View) -> bool:
    # a subclass may draw or apply otherwise
    if not (type(view) is ImageView and type(other) is ImageView):
        return False
    return (view.config, view.image) == (other.config, other.image)


def _turn_(images: Float[Tensor, "N 3 s s"], quarters: Int[Tensor, " N"]) -> None:
    for count in (1, 2, 3):
        which = (quarters == count).nonzero().squeeze(1).to(images.device)
        turned = images.index_select(0, which).rot90(count, dims=(2, 3))
        images.index_copy_(0, which, turned)


def _normalize_(images: Float[Tensor, "N 3 s s"], image: ImageSpec) -> None:
    for channel, (mean, std) in enumerate(zip(image.mean, image.std, strict=True)):
        plane = images[:, channel]
        torch.add(plane.new_tensor(-mean / std), plane, alpha=1.0 / std, out=plane)


def evaluation_view(
    canvases: UInt8[Tensor, "N 3 S S"], image: ImageSpec
) -> Float[Tensor, "N 3 s s"]:
    """The view without chance: the whole canvas, resized with anti-aliasing and normalised.

    Args:
        canvases: Squares into which the originals were squashed, pixels in 0..255.
        image: Side, mean and std of the result.

    Returns:
        Float32 of shape [N, 3, s, s].
    """
    _check_canvases(canvases)
    n, side = canvases.shape[0], canvases.shape[-1]
    out = torch.empty(n, 3, image.size, image.size, device=canvases.device)
    length = _chunk_length(canvases, image.size)
    for start in range(0, n, length):
        part = canvases[start : start + length]
        if side == image.size:
            images = part.to(torch.float32).mul_(1.0 / 255.0)
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
                size=image.size,
                interpolation="bilinear",
            )
        _normalize_(images, image)
        out[start : start + length] = images
    return out
