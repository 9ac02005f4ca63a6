"""How published checkpoints name their tensors: one row of a table for each kind.

The facts are those of the authors' code: what their training saves, which part of it their own
evaluation loads, and how it normalizes images.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from similitude.errors import UserError
from similitude.images.config import IMAGENET_MEAN, IMAGENET_STD

PROJECTOR = "the projector, which only the loss sees"
PREDICTOR = "the predictor, which only the loss sees"
MOVING_AVERAGE = "the moving average of the trained network, which gave its targets"
CLASSIFIER = "a classifier of labels"
PROTOTYPES = "the prototypes, which only the loss sees"
QUEUE = "the queue of earlier keys"
LOSS = "the state of the loss"

# Written by DistributedDataParallel and by torch.compile before every name.
_WRAPPERS = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class Layout:
    """One kind of checkpoint.

    Attributes:
        title: What it is, for the user.
        prefix: Beginning of the names of the backbone's tensors; torchvision's or timm's names
            follow it, after ``renames``.
        entries: Where in the file the tensors lie, the first that is there; "" is the file itself.
        signs: Beginnings of names, all of which occur in this layout.
        first: Two names of which the first stands before the second; "" for none.
        left_out: Beginnings of names of what is no part of the backbone -> what it is.
        other_entries: Entries of the file that hold other networks -> what they are.
        renames: Beginnings of the backbone's own names -> torchvision's or timm's.
        heads: Width of a ViT -> number of its attention heads, which no tensor shows.
        mean: Of the authors' normalization, per channel of pixels in [0, 1].
        std: Of the authors' normalization.
        pixels_known: Whether mean and std are the authors' and not an assumption.
    """

    title: str
    prefix: str = ""
    entries: tuple[str, ...] = ("state_dict", "model", "")
    signs: tuple[str, ...] = ()
    first: tuple[str, str] | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    other_entries: Mapping[str, str] = field(default_factory=dict)
    renames: Mapping[str, str] = field(default_factory=dict)
    heads: Mapping[int, int] = field(default_factory=dict)
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    pixels_known: bool = True

    def fits(self, names: Sequence[str]) -> bool:
        """Whether tensors of these names, in this order, are laid out so."""
        if not all(any(name.startswith(sign) for name in names) for sign in self.signs):
            return False
        if self.first is None:
            return True
        before, after = self.first
        return before in names and after in names and names.index(before) < names.index(after)


_SOLO_LEARN = {
    "classifier.": CLASSIFIER,
    "projector.": PROJECTOR,
    "predictor.": PREDICTOR,
    "head.": PROJECTOR,
    "momentum_": MOVING_AVERAGE,
    "prototypes.": PROTOTYPES,
    "queue": QUEUE,
    "local_memory_": "the memory of earlier projections",
    "dino_loss_func.": LOSS,
}

_LIGHTLY = {
    "projection_head.": PROJECTOR,
    "prediction_head.": PREDICTOR,
    "student_": "the trained network, whose moving average is kept",
    "query_": "the trained network, whose moving average is kept",
    "teacher_": MOVING_AVERAGE,
    "backbone_momentum.": MOVING_AVERAGE,
    "projection_head_momentum.": MOVING_AVERAGE,
    "backbone.mask_token": "the token of masked patches",
    "teacher_backbone.mask_token": "the token of masked patches",
    "prototypes.": PROTOTYPES,
    "queues.": QUEUE,
    "memory_bank.": QUEUE,
    "online_classifier.": CLASSIFIER,
    "criterion.": LOSS,
    "dino_criterion.": LOSS,
    "ibot_criterion.": LOSS,
}

# A ResNet without its classifier as nn.Sequential, and a ViT inside its wrapper for masks.
_LIGHTLY_RENAMES = {
    "0.": "conv1.",
    "1.": "bn1.",
    "4.": "layer1.",
    "5.": "layer2.",
    "6.": "layer3.",
    "7.": "layer4.",
    "vit.": "",
}

# The first row that fits is taken, so the more special ones stand first.
LAYOUTS = (
    Layout(
        title="MoCo v2's official checkpoint",
        prefix="encoder_q.",
        signs=("encoder_q.fc.0.",),
        left_out={"encoder_q.fc.": PROJECTOR, "encoder_k.": MOVING_AVERAGE, "queue": QUEUE},
    ),
    Layout(
        title="MoCo v1's official checkpoint",
        prefix="encoder_q.",
        signs=("encoder_q.fc.weight",),
        left_out={"encoder_q.fc.": PROJECTOR, "encoder_k.": MOVING_AVERAGE, "queue": QUEUE},
    ),
    Layout(
        title="MoCo v3's official checkpoint",
        prefix="base_encoder.",
        signs=("base_encoder.",),
        left_out={
            "base_encoder.fc.": PROJECTOR,
            "base_encoder.head.": PROJECTOR,
            "momentum_encoder.": MOVING_AVERAGE,
            "predictor.": PREDICTOR,
        },
        heads={384: 12, 768: 12, 1024: 16, 1280: 16},
    ),
    Layout(
        title="SimSiam's official checkpoint",
        prefix="encoder.",
        signs=("encoder.fc.6.", "predictor."),
        left_out={"encoder.fc.": PROJECTOR, "predictor.": PREDICTOR},
    ),
    Layout(
        title="SwAV's or DeepCluster v2's official checkpoint",
        signs=("conv1.", "projection_head.", "prototypes."),
        left_out={"projection_head.": PROJECTOR, "prototypes.": PROTOTYPES},
        std=(0.228, 0.224, 0.225),  # as their code has it
    ),
    Layout(
        title="DINO's official training checkpoint",
        prefix="backbone.",
        entries=("teacher",),
        signs=("backbone.", "head.last_layer."),
        left_out={"head.": PROJECTOR},
        other_entries={
            "student": "the trained network, whose moving average is the better one",
            "dino_loss": LOSS,
        },
        heads={192: 3, 384: 6, 768: 12},
    ),
    Layout(
        title="DINOv2's official checkpoint",
        signs=("mask_token", "blocks.0.ls1.gamma"),
        heads={384: 6, 768: 12, 1024: 16, 1536: 24},
    ),
    Layout(
        title="lightly's checkpoint",
        prefix="backbone.",
        signs=("backbone.", "projection_head."),
        left_out=_LIGHTLY,
        renames=_LIGHTLY_RENAMES,
    ),
    Layout(
        title="lightly's checkpoint of a teacher and a student",
        prefix="teacher_backbone.",
        signs=("teacher_backbone.", "teacher_head."),
        left_out={
            **{name: what for name, what in _LIGHTLY.items() if name != "teacher_"},
            "teacher_head.": PROJECTOR,
        },
        renames=_LIGHTLY_RENAMES,
    ),
    Layout(
        title="solo-learn's checkpoint",
        prefix="backbone.",
        signs=("backbone.", "classifier."),
        left_out=_SOLO_LEARN,
        pixels_known=False,  # those of the data set
    ),
    Layout(
        title="solo-learn's checkpoint of 2021",
        prefix="encoder.",
        signs=("encoder.", "classifier."),
        left_out=_SOLO_LEARN,
        pixels_known=False,
    ),
    Layout(
        title="Barlow Twins' or VICReg's training checkpoint",
        prefix="backbone.",
        entries=("model",),
        signs=("backbone.", "projector."),
        left_out={"projector.": PROJECTOR, "bn.": "the normalization before the loss"},
    ),
    Layout(
        title="a checkpoint of byol-pytorch",
        prefix="online_encoder.net.",
        signs=("online_encoder.net.",),
        left_out={
            "online_encoder.projector.": PROJECTOR,
            "online_predictor.": PREDICTOR,
            "target_encoder.": MOVING_AVERAGE,
            "net.": "the same tensors under a second name",
        },
    ),
    Layout(
        title="SimCLR's official checkpoint, converted by simclr-converter",
        entries=("state_dict",),
        # The converter's network names the shortcut of a block before its convolutions, because
        # TensorFlow made them in this order; nothing else tells it from torchvision's.
        first=("layer1.0.downsample.0.weight", "layer1.0.conv1.weight"),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    ),
    Layout(
        title="a plain state_dict under torchvision's or timm's names",
        entries=(
            *("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict"),
            *("backbone", "net", ""),
        ),
        pixels_known=False,
    ),
)


class Recognized(NamedTuple):
    """The backbone's tensors of a file, under torchvision's or timm's names."""

    layout: Layout
    weights: dict[str, Tensor]
    report: list[str]


def recognize(content: Mapping[str, Any], where: str) -> Recognized:
    """Find the layout of a file and take the backbone's tensors out.

    Raises:
        UserError: no layout fits, or a tensor is none that the layout knows.
    """
    for layout in LAYOUTS:
        for entry in layout.entries:
            tensors, wrapper = _unwrapped(content.get(entry, {}) if entry else content)
            if tensors and layout.fits(list(tensors)):
                weights, report = _backbone_of(tensors, layout, where)
                others = [name for name in content if name != entry] if entry else []
                if wrapper or entry:
                    origin = f" of the entry {entry!r}" if entry else ""
                    cut = f", without {wrapper!r} before every name" if wrapper else ""
                    report.insert(0, f"Read the tensors{origin}{cut}.")
                return Recognized(layout, weights, report + _on_other_entries(layout, others))
    raise UserError(
        f"{where} has no layout that is known (its first entries are "
        f"{listed(list(content)[:4]) or 'none'}): save the backbone's state_dict alone, "
        "under torchvision's or timm's names"
    )


def _unwrapped(entry: Any) -> tuple[dict[str, Tensor], str]:
    """The tensors without what wraps their network, and that; nothing if not all are tensors."""
    if not isinstance(entry, Mapping) or not all(isinstance(v, Tensor) for v in entry.values()):
        return {}, ""
    tensors = {str(name): tensor.detach() for name, tensor in entry.items()}
    cut = ""
    while tensors and (found := _wrapper(tensors)):
        tensors = {name.removeprefix(found): tensor for name, tensor in tensors.items()}
        cut += found
    return tensors, cut


def _wrapper(names: Iterable[str]) -> str:
    names = list(names)
    return next((w for w in _WRAPPERS if all(name.startswith(w) for name in names)), "")


def _backbone_of(
    tensors: Mapping[str, Tensor], layout: Layout, where: str
) -> tuple[dict[str, Tensor], list[str]]:
    weights: dict[str, Tensor] = {}
    dropped: dict[str, int] = {}
    unknown = []
    for name, tensor in tensors.items():
        beginning = max((b for b in layout.left_out if name.startswith(b)), key=len, default=None)
        own = name.removeprefix(layout.prefix)
        if beginning is not None:
            dropped[beginning] = dropped.get(beginning, 0) + 1
        elif not name.startswith(layout.prefix) or (own := _renamed(own, layout)) in weights:
            unknown.append(name)
        else:
            weights[own] = tensor
    if unknown:
        raise UserError(
            f"{where} looks like {layout.title}, but {len(unknown)} of its tensors are unknown "
            f"there, the first is {unknown[0]!r}: give the file as it was published, or the "
            "backbone's state_dict alone"
        )
    report = [f"Took {layout.prefix!r} from the beginning of every name."] if layout.prefix else []
    known = [
        old for old in layout.renames if any(n.startswith(layout.prefix + old) for n in tensors)
    ]
    if known:
        pairs = ", ".join(f"{old}* is {layout.renames[old]}*" for old in known)
        report.append(f"Renamed: {pairs}.")
    for beginning, count in dropped.items():
        what = layout.left_out[beginning]
        report.append(f"Left out {what} ({beginning}*, {tensors_text(count)}).")
    return weights, report


def _renamed(name: str, layout: Layout) -> str:
    for old, new in layout.renames.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _on_other_entries(layout: Layout, names: Sequence[str]) -> list[str]:
    known = [name for name in names if name in layout.other_entries]
    report = [f"Left out {layout.other_entries[name]} (entry {name!r})." for name in known]
    if others := [name for name in names if name not in known]:
        report.append(f"Left out what else the file holds: {listed(others)}.")
    return report


def listed(names: Iterable[str]) -> str:
    """Names out of a file, in quotes, with whatever could move a terminal's cursor escaped."""
    return ", ".join(map(repr, names))


def tensors_text(count: int, which: str = "") -> str:
    """A number of tensors in words, with its plural."""
    return f"{count} {which}tensor{'' if count == 1 else 's'}"
