"""Backbones: timm models by name, with a stem and a width for small images.

Every backbone maps images [N, C, H, W] to pooled features [N, D] and has ``num_features`` = D.
"""

import difflib
from collections.abc import Mapping
from typing import Any, Literal

import timm
import torch
from pydantic import Field, field_validator
from timm.layers.std_conv import StdConv2d
from timm.models.resnet import BasicBlock, ResNet
from torch import nn

from similitude.errors import UserError
from similitude.images.config import ImageData
from similitude.images.small_maps import convert_convolutions
from similitude.images.views.config import ImageFacts
from similitude.nets import group_norm
from similitude.sample import NetworkConfig

# Those with one 7x7 convolution as their stem, which the small stem replaces.
PLAIN_RESNETS = ("resnet18", "resnet26", "resnet34", "resnet50", "resnet101", "resnet152")

# How arguments of timm.create_model begin that read or fetch weights. A recipe, which may be
# somebody else's, rebuilds its network without a file and without a connection; what a training
# starts from is a fact of its own, kept with the run.
_WEIGHTS_OPTIONS = ("pretrained", "checkpoint", "cache_dir")

Plain = bool | int | float | str


class BackboneConfig(NetworkConfig):
    """Which network is trained and kept."""

    name: str = "resnet18"  # any name timm knows
    channels: int = Field(default=3, ge=1, le=1024)  # of images; those of the data
    # "small": 3x3 stride-1 first convolution and no max-pool, as all papers do on CIFAR.
    stem: Literal["standard", "small"] = "standard"
    # Channels of the first stage (doubling at each stage); None keeps the model's own.
    base_width: int | None = Field(default=None, ge=4, le=1024)
    # Scale 0 in the last norm of every block of a ResNet, which so starts as the identity: SimCLR,
    # SimSiam, Barlow Twins, MoCo v3 and BYOL's code. MoCo v1 and v2, InstDisc, CMC, SwAV: 1.
    zero_init_last: bool = True
    # "group": GroupNorm and standardized convolutions in place of BatchNorm, in which samples meet
    # (BYOL without batch statistics, arXiv:2010.10241). Of plain ResNets.
    norm: Literal["batch", "group"] = "batch"
    # Further arguments of timm.create_model, e.g. {"img_size": 32, "patch_size": 4} for a ViT.
    options: Mapping[str, Plain | tuple[Plain, ...]] = {}

    @property
    def input_channels(self) -> int:  # type: ignore[override]
        return self.channels

    def build(self) -> nn.Module:
        return build_backbone(self)

    @property
    def timm_options(self) -> dict[str, Any]:
        """What ``timm.create_model`` is given beside the name."""
        options: dict[str, Any] = dict(self.options)
        if self.channels != 3:
            options["in_chans"] = self.channels
        if (w := self.base_width) is not None:
            options["channels"] = (w, 2 * w, 4 * w, 8 * w)
        return options

    def loading_snippet(self, weights: str, data: ImageData, facts: ImageFacts) -> str:
        """Python that rebuilds the network with timm and torch alone, and prepares an image."""
        options = self.timm_options
        width, channels = self.base_width, self.channels
        arguments = "".join(f", {name}={value!r}" for name, value in options.items())
        lines = ["import timm", "from safetensors.torch import load_file"]
        if self.norm == "group":
            lines = ["import math", *lines, "from timm.layers import StdConv2d"]
        if self.stem == "small" or width is not None or self.norm == "group":
            lines.append("from torch import nn")
        lines += ["", f"backbone = timm.create_model({self.name!r}, num_classes=0{arguments})"]
        if width is not None:
            lines += [
                "norm_layer, block = type(backbone.bn1), type(backbone.layer1[0])",
                f"backbone.conv1 = nn.Conv2d({channels}, {width}, 7, 2, padding=3, bias=False)",
                f"backbone.bn1 = norm_layer({width})",
                f"backbone.layer1[0] = block({width}, {width}, norm_layer=norm_layer)",
            ]
        if self.stem == "small":
            out = "backbone.conv1.out_channels"
            lines += [
                f"backbone.conv1 = nn.Conv2d({channels}, {out}, 3, padding=1, bias=False)",
                "backbone.maxpool = nn.Identity()",
            ]
        if self.norm == "group":
            lines += [
                "for path, layer in list(backbone.named_modules()):",
                "    if type(layer) is nn.BatchNorm2d:",
                "        channels = layer.num_features",
                "        groups = math.gcd(64, channels) // 4 or 1",
                "        backbone.set_submodule(path, nn.GroupNorm(groups, channels))",
                "    elif type(layer) is nn.Conv2d:",
                "        layer.__class__, layer.eps = StdConv2d, 1e-6",
            ]
        lines += [f"backbone.load_state_dict(load_file({weights!r}))", "backbone.eval()"]
        return "\n".join([*lines, "", self.preparing_snippet(data, facts)])

    def preparing_snippet(self, data: ImageData, facts: ImageFacts) -> str:
        """Python with Pillow and torch alone that makes of a file what the network takes."""
        size, white, resized = facts.size, 2**data.depth - 1, ""
        if data.canvas_size not in (None, size):  # of numbers, not of integers, as in evaluation
            resized = f"""
    x = torch.nn.functional.interpolate(x, size={(size, size)}, mode="bilinear", antialias=True)"""
        what, imported = ("An RGB image", "import torch\n") if data.are_pictures else ("A file", "")
        return f'''
{imported}{opening_snippet(data, facts)}


def prepare(file):
    """{what} as the backbone wants it, [1, {data.channels}, {size}, {size}]."""
    x = torch.from_numpy(np.array(opened(file))).permute(2, 0, 1)[None] / {white}{resized}
    mean, std = torch.tensor({[facts.mean, facts.std]})[..., None, None]
    return (x - mean) / std


# features = backbone(prepare("photo.{"jpg" if data.are_pictures else "npy"}"))'''

    @field_validator("options", mode="before")
    @classmethod
    def _plain_options(cls, options: Any) -> Any:
        for name, value in options.items() if isinstance(options, Mapping) else ():
            if str(name).startswith(_WEIGHTS_OPTIONS):
                raise UserError(
                    f"backbone.options takes no {name!r}: weights to start from are given with "
                    "--init timm:NAME or --init FILE"
                )
            if name == "in_chans":
                raise UserError(
                    "backbone.options takes no 'in_chans': --channels says how many the images have"
                )
            items = value if isinstance(value, list | tuple) else [value]
            plain = all(isinstance(i, int | float | str) and len(str(i)) <= 64 for i in items)
            if not (str(name).isidentifier() and plain and len(items) <= 64):
                raise UserError(
                    f"backbone.options takes no such {str(name)[:64]!r}: an option has a name, and "
                    "is a number, true, false, a short word, or a short list of these"
                )
        return options


def opening_snippet(data: ImageData, facts: ImageFacts, *, resized: bool = True) -> str:
    """Python with Pillow and NumPy that opens a file as ``embed`` does.

    Of other channels than red, green and blue, and of 16 bits, it opens ``.npy`` files.

    Args:
        data: how images are decoded.
        facts: of what the network takes.
        resized: whether to the square canvas of before the last resizing; otherwise it stays as
            large as it is.
    """
    side, deep = canvas_side(data, facts), ""
    if not data.are_pictures:
        return _arrays_snippet(data, side)
    resizing = f".resize(({side}, {side}), Image.Resampling.BILINEAR)" if resized else ""
    if data.value_range is not None:
        black, white = data.value_range
        deep = f"""
    if image.mode[0] in "IF":  # 16 bits, floats
        shown = (np.array(image, dtype=float) - {black}) * (255 / ({white} - {black}))
        image = Image.fromarray(shown.round().clip(0, 255).astype(np.uint8))"""
    numpy = "import numpy as np\n" if resized or deep else ""
    return f'''{numpy}from PIL import Image, ImageOps


def opened(file):
    """An upright RGB image, on white where it is transparent."""
    image = ImageOps.exif_transpose(Image.open(file)){deep}
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB"){resizing}'''


def _arrays_snippet(data: ImageData, side: int) -> str:
    largest, kept = 2**data.depth - 1, "uint8" if data.depth == 8 else "int32"
    black, white = data.value_range or (0, 65535)
    return f'''import numpy as np
import torch


def opened(file):
    """The pixels of an .npy file [H, W, {data.channels}]: bytes, or deeper ones."""
    pixels = torch.from_numpy(np.load(file).astype(np.float32))
    if np.load(file, mmap_mode="r").dtype == np.uint8:
        pixels = pixels * {largest // 255}
    else:
        pixels = ((pixels - {black}) * ({largest} / ({white} - {black}))).round().clip(0, {largest})
    x = pixels.permute(2, 0, 1)[None]
    x = torch.nn.functional.interpolate(x, size={(side, side)}, mode="bilinear", antialias=True)
    return x[0].permute(1, 2, 0).round().numpy().astype(np.{kept})'''


def canvas_side(data: ImageData, facts: ImageFacts) -> int:
    """Side of the canvas that becomes the input of a network."""
    return data.canvas_size or facts.size


def check_name(name: str) -> None:
    """Refuse a network that timm does not know.

    Raises:
        UserError: with the names that are near.
    """
    if "." in name or not timm.is_model(name):  # it ignores what follows a dot
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "see timm.list_models()"
        raise UserError(f"unknown backbone {name!r}: {hint}")


def build_backbone(config: BackboneConfig) -> nn.Module:
    """Build the network with fresh random weights, drawn from torch's global generator.

    Raises:
        UserError: timm does not know the name, or the network has no such stem, width or option.
    """
    check_name(config.name)
    options = config.timm_options
    try:
        backbone = timm.create_model(config.name, num_classes=0, **options)
    except (TypeError, ValueError, AssertionError) as error:
        if config.base_width is not None and "'channels'" in str(error):
            raise UserError(
                f"backbone {config.name!r} has no base_width to choose: leave it out, or take a "
                "ResNet"
            ) from error
        raise UserError(
            f"backbone {config.name!r} does not take the options {options}: {error}"
        ) from error
    if config.base_width is not None:
        _narrow_stem(backbone, config)
    if config.stem == "small":
        _small_stem(backbone, config)
    if config.norm == "group":
        _group_norm(backbone, config)
    if isinstance(backbone, ResNet):
        backbone.init_weights(zero_init_last=config.zero_init_last)
    convert_convolutions(backbone)
    # Of networks with a layer between pooling and classifier timm's num_features is its input.
    width = getattr(backbone, "head_hidden_size", None) or backbone.num_features
    backbone.num_features = width  # type: ignore[assignment]
    backbone.built_from = config  # type: ignore[assignment]
    backbone.has_pretrained_weights = False  # type: ignore[assignment]
    return backbone


def takes_size(config: BackboneConfig, size: int) -> bool:
    """Whether the network takes images of so many pixels a side."""
    with torch.random.fork_rng(devices=[]):
        network = build_backbone(config)
    try:
        check_input(network, config, size, size)
    except UserError:
        return False
    return True


def check_input(backbone: nn.Module, config: BackboneConfig, size: int, image_size: int) -> None:
    """Send one empty image through the network, which is for this check alone.

    Args:
        backbone: the network.
        config: what it was built from.
        size: side of the image, in pixels.
        image_size: side of the images in evaluation; views may have another.

    Raises:
        UserError: the network does not take images of this size, or gives no row of features.
    """
    try:
        with torch.no_grad():
            features = backbone.eval()(torch.zeros(1, config.channels, size, size))
    except (AssertionError, RuntimeError) as error:
        hint = f"a ViT wants --set 'backbone.options={{img_size: {image_size}}}'"
        made_for = getattr(getattr(backbone, "patch_embed", None), "img_size", None)
        if isinstance(made_for, tuple) and made_for[0] == made_for[1] != image_size:
            hint += f", or images of the size it was made for: --set image_size={made_for[0]}"
        if size != image_size:
            hint += " and views of that size: --set method.view.size=null"
        raise UserError(
            f"backbone {config.name!r} does not take images of {size} px "
            f"({str(error).splitlines()[0]}); {hint}"
        ) from error
    if features.shape != (1, backbone.num_features):
        raise UserError(
            f"backbone {config.name!r} makes {list(features.shape)} of one image, and a method "
            "needs one row of features: choose a network with global pooling"
        )


def _narrow_stem(backbone: nn.Module, config: BackboneConfig) -> None:
    """Give the stem the width of the first stage; timm keeps 64 channels whatever the stages."""
    if not (
        isinstance(backbone, ResNet) and isinstance(backbone.get_submodule("layer1.0"), BasicBlock)
    ):
        raise UserError(
            f"backbone {config.name!r} has no base_width; only ResNets of basic blocks "
            "(resnet10t, resnet18, resnet34) do: leave backbone.base_width out"
        )
    width = config.base_width
    assert width is not None
    if not isinstance(backbone.conv1, nn.Conv2d):
        raise UserError(f"backbone {config.name!r} has a deep stem: leave backbone.base_width out")
    backbone.conv1 = nn.Conv2d(config.channels, width, 7, stride=2, padding=3, bias=False)
    norm_layer = type(backbone.bn1)  # timm's "norm_layer" option may name another than BatchNorm
    backbone.bn1 = norm_layer(width)
    backbone.set_submodule("layer1.0", BasicBlock(width, width, norm_layer=norm_layer))


def _small_stem(backbone: nn.Module, config: BackboneConfig) -> None:
    if not (isinstance(backbone, ResNet) and isinstance(backbone.conv1, nn.Conv2d)):
        raise UserError(
            f"backbone {config.name!r} has no small-image stem (plain ResNets do): "
            "use --set backbone.stem=standard"
        )
    width = backbone.conv1.out_channels
    backbone.conv1 = nn.Conv2d(config.channels, width, 3, padding=1, bias=False)
    backbone.maxpool = nn.Identity()


def _group_norm(backbone: nn.Module, config: BackboneConfig) -> None:
    """Give the network norms of single samples, and standardized convolutions."""
    if not isinstance(backbone, ResNet) or type(backbone.bn1) is not nn.BatchNorm2d:
        raise UserError(
            f"backbone {config.name!r} has no BatchNorm that could become GroupNorm (plain ResNets "
            "do): use --set backbone.norm=batch"
        )
    for path, layer in list(backbone.named_modules()):
        if type(layer) is nn.BatchNorm2d:
            backbone.set_submodule(path, group_norm(layer.num_features))
        elif type(layer) is nn.Conv2d:
            layer.__class__ = StdConv2d  # keeps the weights that are drawn
            layer.eps = 1e-6  # type: ignore[assignment]
