"""Features of samples, extracted once and shared by all probes.

Shapes: N samples, D features.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from similitude.devices import computing_in
from similitude.distributed import gather, rank, world_size
from similitude.distributed.threads import keep_freed_memory
from similitude.errors import UserError
from similitude.evaluation.draws import held_out
from similitude.nets.precision import in_channels_last
from similitude.sample import Facts, Samples

# Of a batch's input on a CPU: 512 images of 64 px. An EfficientNet makes ten times as many of them.
MAX_BATCH_NUMBERS = 3 * 2**21


@dataclass(frozen=True)
class Features:
    """One row of numbers per sample, on the CPU.

    ``y`` holds class numbers, -1 where a sample has no label, or is None for a set without labels.
    ``one_scale``: see :meth:`similitude.sample.Samples.has_one_scale`.
    """

    x: Float[Tensor, "N D"]
    y: Int[Tensor, " N"] | None
    names: list[str]
    one_scale: bool = False

    def __post_init__(self) -> None:
        if self.x.ndim != 2:
            raise UserError(f"features must be a matrix [N, D], not of shape {tuple(self.x.shape)}")
        if self.y is not None and self.y.shape != self.x.shape[:1]:
            raise UserError(f"{len(self.x)} rows of features have {len(self.y)} labels")
        if len(self.names) != len(self.x):
            raise UserError(f"{len(self.x)} rows of features have {len(self.names)} names")

    def __len__(self) -> int:
        return len(self.x)

    def subset(self, index: Int[Tensor, " M"] | Bool[Tensor, " N"] | Sequence[int]) -> "Features":
        """The rows at these positions, or where a mask is true."""
        rows = torch.as_tensor(index, device="cpu")
        rows = rows.nonzero().squeeze(1) if rows.dtype == torch.bool else rows.long()
        names = [self.names[i] for i in rows.tolist()]
        y = None if self.y is None else self.y[rows]
        return Features(self.x[rows], y, names, self.one_scale)

    def labeled(self) -> "Features":
        """The rows that have a label.

        Raises:
            UserError: If no row has one.
        """
        if self.y is None or not bool((self.y >= 0).any()):
            raise UserError("none of the samples has a label: a probe needs labels to be scored")
        return self if bool((self.y >= 0).all()) else self.subset(self.y >= 0)


def extract_features(
    backbone: nn.Module,
    samples: Samples[Any],
    facts: Facts,
    *,
    batch_size: int = 512,
    device: torch.device | str | None = None,
    autocast_dtype: torch.dtype | None = None,
    channels_last: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
    over_processes: bool = False,
) -> Features:
    """The backbone's features of every sample: the view without chance, evaluation mode.

    Args:
        backbone: Maps inputs of N samples to [N, D]. It is left exactly as it was: device, and the
            training flag of every submodule.
        samples: Labels are passed through, also -1.
        facts: What the backbone's input is like: of images side, mean and std.
        batch_size: Samples per forward pass; on a CPU fewer of large inputs.
        device: Where to compute; by default where the backbone is.
        autocast_dtype: Precision of the forward pass, e.g. ``torch.bfloat16``; full by default.
        channels_last: Memory layout of the input.
        on_progress: Called with (samples done, samples in all) after each batch.
        over_processes: Whether all processes call this together; each then takes its part of the
            samples, and all get the features of all.

    Returns:
        Float32 features on the CPU, in the order of ``samples``.

    Raises:
        UserError: If there are no images, or the backbone does not give one row per image.
    """
    if len(samples) == 0:
        raise UserError("there are no images to extract features from")
    keep_freed_memory()
    home = next((p.device for p in backbone.parameters()), torch.device("cpu"))
    place = torch.device(device) if device is not None else home
    training = [(module, module.training) for module in backbone.modules()]
    x = torch.empty(0, 0)
    share = -(-len(samples) // world_size()) if over_processes else len(samples)
    first = rank() * share if over_processes else 0
    first = min(first, len(samples) - 1)  # never none
    count = min(share, len(samples) - first)
    if place.type == "cpu":
        batch_size = max(1, min(batch_size, MAX_BATCH_NUMBERS // facts.numbers))
    if samples.seen_together:
        batch_size = count
    try:
        backbone.to(place).eval()
        for i in range(0, count, batch_size):
            rows = samples.take(slice(first + i, first + min(count, i + batch_size))).to(place)
            with torch.inference_mode(), computing_in(autocast_dtype or torch.float32, place):
                view = samples.clean(rows, facts)
                if channels_last:
                    view = in_channels_last(view)
                h = backbone(view)
            if h.ndim != 2 or len(h) != len(rows):
                raise UserError(
                    f"the backbone gave a tensor of shape {tuple(h.shape)} for {len(rows)} "
                    "images: it must give one row of features per image, [N, D]"
                )
            if i == 0:
                x = torch.empty(share, h.shape[1])
            x[i : i + len(h)] = h
            if on_progress is not None:
                on_progress(min(first + i + len(h), len(samples)), len(samples))
    finally:
        backbone.to(home)
        for module, flag in training:
            module.training = flag
    kept = torch.ones(share, dtype=torch.bool)
    kept[:count] = ~samples.is_substitute[first : first + count]
    if over_processes and world_size() > 1:
        x, kept = (gather(t.to(place))[: len(samples)].cpu() for t in (x, kept))
    features = Features(x, samples.labels, list(samples.names))
    return features if bool(kept.all()) else features.subset(kept)


def raw_features(samples: Samples[Any], beside: Sequence[Samples[Any]] = ()) -> Features:
    """Every sample as plain numbers: of images the pixels. Probes score :func:`centered` rows.

    Args:
        samples: At least one.
        beside: Others that are to have the same columns.
    """
    if len(samples) == 0:
        raise UserError("there are no images to take pixels from")
    one_scale = samples.has_one_scale(samples.raw_name)
    features = Features(samples.raw(beside), samples.labels, list(samples.names), one_scale)
    substitute = samples.is_substitute
    return features.subset(~substitute) if bool(substitute.any()) else features


def centered(train: Features, test: Features) -> tuple[Features, Features]:
    """Both without the mean row of the first.

    Cosines between pixels that are never negative are all alike: kNN is up to 20 points weaker.
    """
    mean = train.x.mean(0)
    return replace(train, x=train.x - mean), replace(test, x=test.x - mean)


def split_features(features: Features, fraction: float, seed: int) -> tuple[Features, Features]:
    """Hold out a stratified part, for data sets without a test split.

    The choice is a function of the seed and of each row's position and class only, so all
    backbones are split alike. Every class keeps at least one row; a class with two or more
    gives at least one.

    Args:
        features: All rows; rows without a label count as one more class.
        fraction: Share to hold out, between 0 and 1.
        seed: Any integer.

    Returns:
        The part that is kept and the part that is held out, each in the order of ``features``.
    """
    y = features.y if features.y is not None else torch.zeros(len(features), dtype=torch.int64)
    out = held_out(y, fraction, seed)
    return features.subset(~out), features.subset(out)
