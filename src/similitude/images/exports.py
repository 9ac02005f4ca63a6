"""Formats in which a trained backbone of images is used elsewhere.

N images of ch channels and S x S pixels, from canvases of C x C; D features.
"""

import io
import json
import re
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Shaped
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from similitude.images.backbones import canvas_side, opening_snippet
from similitude.images.small_maps import plain_convolutions
from similitude.images.views.config import ImageFacts
from similitude.nets.export import Export, Exported

# Networks of timm whose tensors have the names that torchvision gives them.
TORCHVISION = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
    *("wide_resnet50_2", "wide_resnet101_2"),
)
_DEPTHS = {"resnet18": [2, 2, 2, 2], "resnet34": [3, 4, 6, 3]}  # of those with a base_width


class Pixels(nn.Module):
    """A backbone of canvases as they come out of a decoder: it resizes and normalizes them itself.

    As :func:`similitude.images.views.evaluation_view` does, in numbers, so without rounding.

    Args:
        backbone: Of images of the facts.
        facts: Of what it takes.
        depth: Bits of a pixel, which says what is white.
        classifying: Makes logits [N, K] of features; they are given beside these.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        facts: ImageFacts,
        depth: int = 8,
        classifying: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.classifying = backbone, classifying
        self.size, self.white = facts.size, 2**depth - 1
        self.register_buffer("mean", torch.tensor(facts.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(facts.std)[:, None, None])

    def forward(
        self, pixels: Shaped[Tensor, "N C C ch"]
    ) -> Float[Tensor, "N D"] | tuple[Float[Tensor, "N D"], Float[Tensor, "N K"]]:
        """Features of images, and logits of these where there are classes."""
        x = pixels.permute(0, 3, 1, 2).float() / self.white
        if x.shape[-1] != self.size:
            x = F.interpolate(x, size=(self.size, self.size), mode="bilinear", antialias=True)
        h = self.backbone((x - self.mean) / self.std)
        return h if self.classifying is None else (h, self.classifying(h))


class _OfNormalized(Export):
    """A format whose own preprocessing normalizes what the network takes, [N, ch, S, S].

    That of others is for RGB images of 8 bits; for all else the snippet has what `embed` does.
    """

    def reference(self, model: Exported) -> nn.Module:
        return model.backbone


class Timm(_OfNormalized):
    """A folder for ``timm.create_model("local-dir:...")``: its config.json says all of the input.

    Other libraries that know timm's folders read it too (OpenCLIP, transformers).
    """

    name = "timm"
    library = "timm"

    def unfit(self, model: Exported) -> str | None:
        return _more_than_one(model) or _not_by_name(model)

    def write(self, model: Exported, folder: Path) -> None:
        network, facts = model.network, model.facts
        config = {
            "architecture": network.name,
            "num_classes": 0,
            "num_features": model.backbone.num_features,
            "model_args": network.timm_options,
            "pretrained_cfg": {
                "input_size": [network.channels, facts.size, facts.size],
                "fixed_input_size": hasattr(model.backbone, "patch_embed"),
                "interpolation": "bilinear",
                "crop_pct": 1.0,
                "crop_mode": "squash",  # the whole image, as `embed` sees it
                "mean": facts.mean,
                "std": facts.std,
                "num_classes": 0,
                "pool_size": None,
                "first_conv": None,
                "classifier": None,
            },
        }
        _write_json(folder / "config.json", config)
        _write_weights(folder / "model.safetensors", model.backbone.state_dict())

    def snippet(self, model: Exported, folder: str) -> str:
        loading = (
            f"timm.create_model({f'local-dir:{folder}'!r}, pretrained=True, num_classes=0).eval()"
        )
        if not model.data.are_pictures:
            return _of_arrays(model, ["import timm"], [f"backbone = {loading}"])
        return f'''import timm
import torch
{opening_snippet(model.data, model.facts, resized=False)}


backbone = {loading}
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(backbone))


def prepare(files):
    """Of image files what the backbone takes, [N, 3, {model.facts.size}, {model.facts.size}]."""
    return torch.stack([transform(opened(file)) for file in files])


@torch.inference_mode()
def features(inputs):
    return backbone(inputs)'''


class Torchvision(_OfNormalized):
    """A state_dict for one of torchvision's ResNets."""

    name = "torchvision"
    library = "torchvision"

    def unfit(self, model: Exported) -> str | None:
        network = model.network
        if network.name not in TORCHVISION or network.options:
            options = " with options" if network.options else ""
            return (
                "of timm's networks only plain ResNets, ResNeXts and wide ResNets are "
                f"torchvision's, and this is {network.name}{options}"
            )
        return _more_than_one(model) or _not_by_name(model)

    def write(self, model: Exported, folder: Path) -> None:
        state = model.backbone.state_dict()
        through_memory(lambda file: torch.save(state, file), folder / "weights.pth")

    def snippet(self, model: Exported, folder: str) -> str:
        facts, side = model.facts, canvas_side(model.data, model.facts)
        loading = f"""backbone = torchvision.models.get_model({model.network.name!r}, weights=None)
backbone.fc = torch.nn.Identity()
backbone.load_state_dict(torch.load({f"{folder}/weights.pth"!r}, weights_only=True))
backbone.eval()"""
        if not model.data.are_pictures:
            lines = loading.splitlines()
            if (channels := model.network.channels) != 3:
                first = f"torch.nn.Conv2d({channels}, 64, 7, 2, padding=3, bias=False)"
                lines.insert(1, f"backbone.conv1 = {first}")
            return _of_arrays(model, ["import torchvision"], lines)
        return f'''import torch
import torchvision
from torchvision.transforms import v2 as transforms
{opening_snippet(model.data, facts, resized=False)}


{loading}
transform = transforms.Compose([
    transforms.Resize(({side}, {side})),
    transforms.ToImage(),
    transforms.ToDtype(torch.float32, scale=True),
    transforms.Resize(({facts.size}, {facts.size})),
    transforms.Normalize({list(facts.mean)}, {list(facts.std)}),
])


def prepare(files):
    """Of image files what the backbone takes, [N, 3, {facts.size}, {facts.size}]."""
    return torch.stack([transform(opened(file)) for file in files])


@torch.inference_mode()
def features(inputs):
    return backbone(inputs)'''


class HuggingFace(_OfNormalized):
    """A folder for ``AutoModel`` and ``AutoImageProcessor`` of transformers.

    Networks that timm builds by name are timm's folder, which transformers wraps; narrow ResNets,
    which timm has not, are transformers' own ``ResNetModel`` (He et al. 2015, its classes).
    """

    name = "huggingface"
    library = "transformers"
    needs = ("transformers",)
    extra = "transformers"

    def unfit(self, model: Exported) -> str | None:
        network = model.network
        if _is_narrow(network):
            return _more_than_one(model)
        return Timm().unfit(model)

    def write(self, model: Exported, folder: Path) -> None:
        network, facts = model.network, model.facts
        if not _is_narrow(network):
            Timm().write(model, folder)
            return
        width = network.base_width
        config = {
            "architectures": ["ResNetModel"],
            "model_type": "resnet",
            "layer_type": "basic",
            "num_channels": network.channels,
            "embedding_size": width,
            "hidden_sizes": [width, 2 * width, 4 * width, 8 * width],
            "depths": _DEPTHS[network.name],
            "hidden_act": "relu",
        }
        processor = {
            "image_processor_type": "ViTImageProcessor",
            "do_resize": True,
            "size": {"height": facts.size, "width": facts.size},
            "resample": 2,  # bilinear
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": facts.mean,
            "image_std": facts.std,
        }
        _write_json(folder / "config.json", config)
        _write_json(folder / "preprocessor_config.json", processor)
        state = model.backbone.state_dict()
        renamed = {transformers_name(name): tensor for name, tensor in state.items()}
        _write_weights(folder / "model.safetensors", renamed)

    def snippet(self, model: Exported, folder: str) -> str:
        size, loading = model.facts.size, f"AutoModel.from_pretrained({folder!r}).eval()"
        if not model.data.are_pictures:
            imports = ["from transformers import AutoModel"]
            pooled = "backbone(inputs).pooler_output.flatten(1)"
            return _of_arrays(model, imports, [f"backbone = {loading}"], pooled)
        return f'''import torch
from transformers import AutoImageProcessor, AutoModel
{opening_snippet(model.data, model.facts, resized=False)}


backbone = {loading}
processor = AutoImageProcessor.from_pretrained({folder!r})


def prepare(files):
    """Of image files what the backbone takes, [N, 3, {size}, {size}]."""
    images = [opened(file) for file in files]
    return processor(images, return_tensors="pt")["pixel_values"]


@torch.inference_mode()
def features(inputs):
    return backbone(inputs).pooler_output.flatten(1)'''


class _OfPixels(Export):
    """A format that holds the whole computation, from pixels on, and takes every network."""

    holds_classes = True
    file: ClassVar[str]
    runtime: ClassVar[str]  # the module that loads the file

    def reference(self, model: Exported) -> Pixels:
        backbone = plain_convolutions(model.backbone)
        return Pixels(backbone, model.facts, model.data.depth, model.classifying).eval()

    def write(self, model: Exported, folder: Path) -> None:
        side = canvas_side(model.data, model.facts)
        # neither runtime has all it takes for integers of 16 bits without a sign
        dtype = torch.uint8 if model.data.depth == 8 else torch.int32
        example = torch.zeros(2, side, side, model.data.channels, dtype=dtype)
        self.save(self.reference(model), example, folder / self.file)

    @abstractmethod
    def save(self, module: Pixels, example: Shaped[Tensor, "2 C C ch"], path: Path) -> None:
        """Write the computation, for any number of images."""

    @abstractmethod
    def loading(self, path: str, outputs: Sequence[str]) -> str:
        """Python that loads the file, and defines a function for each output."""

    def snippet(self, model: Exported, folder: str) -> str:
        side = canvas_side(model.data, model.facts)
        outputs = _outputs(model)
        names = f"\n\n\nCLASSES = {list(model.class_names)!r}" if len(outputs) > 1 else ""
        return f'''import {self.runtime}
{opening_snippet(model.data, model.facts)}


def prepare(files):
    """Of files what the network takes: pixels, [N, {side}, {side}, {model.data.channels}]."""
    return np.stack([np.asarray(opened(file)) for file in files])


{self.loading(f"{folder}/{self.file}", outputs)}{names}'''


class Onnx(_OfPixels):
    """One .onnx file, input ``pixels``, output ``features``, and ``logits`` of a classifier."""

    name = "onnx"
    library = "onnx"
    needs = ("onnx", "onnxruntime", "onnxscript")
    extra = "onnx"
    file = "model.onnx"
    runtime = "onnxruntime"

    def save(self, module: Pixels, example: Shaped[Tensor, "2 C C ch"], path: Path) -> None:
        torch.onnx.export(
            module,
            (example,),
            path,
            input_names=["pixels"],
            output_names=list(_outputs(module)),
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )

    def loading(self, path: str, outputs: Sequence[str]) -> str:
        functions = [
            f"""


def {name}(inputs):
    return session.run([{name!r}], {{"pixels": inputs}})[0]"""
            for name in outputs
        ]
        return "".join([f"session = onnxruntime.InferenceSession({path!r})", *functions])


def through_memory(save: Callable[[io.BytesIO], object], path: Path) -> None:
    """Write what ``save`` makes: PyTorch's own writer to a file aborts where the disk is full.

    Raises:
        OSError: it cannot be written.
    """
    file = io.BytesIO()
    save(file)
    path.write_bytes(file.getbuffer())


class TorchExport(_OfPixels):
    """One .pt2 file, for ``torch.export.load`` alone: neither timm nor the network's code."""

    name = "torch-export"
    library = "pytorch"
    file = "model.pt2"
    runtime = "torch"

    def save(self, module: Pixels, example: Shaped[Tensor, "2 C C ch"], path: Path) -> None:
        batch = torch.export.Dim("batch")
        program = torch.export.export(module, (example,), dynamic_shapes=({0: batch},))
        through_memory(lambda file: torch.export.save(program, file), path)

    def loading(self, path: str, outputs: Sequence[str]) -> str:
        functions = [
            f"""


@torch.inference_mode()
def {name}(inputs):
    return network(torch.from_numpy(inputs)){"" if len(outputs) == 1 else f"[{i}]"}"""
            for i, name in enumerate(outputs)
        ]
        return "".join([f"network = torch.export.load({path!r}).module()", *functions])


def _outputs(model: Exported | Pixels) -> tuple[str, ...]:
    return ("features",) if model.classifying is None else ("features", "logits")


def _of_arrays(
    model: Exported,
    imports: Sequence[str],
    loading: Sequence[str],
    features: str = "backbone(inputs)",
) -> str:
    """The snippet where images are no RGB of 8 bits: it prepares them itself."""
    preparing = model.network.preparing_snippet(model.data, model.facts).rpartition("\n\n\n#")[0]
    return "\n".join(
        [
            *imports,
            preparing.replace("def prepare(", "def prepared(").strip(),
            *("", "", *loading, "", ""),
            "def prepare(files):",
            '    """Of files what the backbone takes."""',
            "    return torch.cat([prepared(file) for file in files])",
            *("", "", "@torch.inference_mode()", "def features(inputs):", f"    return {features}"),
        ]
    )


def transformers_name(name: str) -> str:
    """What transformers calls a tensor of a timm ResNet of basic blocks.

    ``layer2.0.conv1.weight`` is ``encoder.stages.1.layers.0.layer.0.convolution.weight``.
    """
    parts = {"conv": "convolution", "bn": "normalization", "0": "convolution", "1": "normalization"}
    block = re.fullmatch(r"layer(\d)\.(\d+)\.(downsample\.|conv|bn)(\d)\.(\w+)", name)
    if block is None:
        stem = re.fullmatch(r"(conv|bn)1\.(\w+)", name)
        assert stem is not None, name
        return f"embedder.embedder.{parts[stem[1]]}.{stem[2]}"
    stage, number, part, which, tensor = block.groups()
    if part == "downsample.":
        place = f"shortcut.{parts[which]}"
    else:
        place = f"layer.{int(which) - 1}.{parts[part]}"
    return f"encoder.stages.{int(stage) - 1}.layers.{number}.{place}.{tensor}"


def _more_than_one(model: Exported) -> str | None:
    return "its method keeps more than one network for whole images" if model.is_wrapped else None


def _not_by_name(model: Exported) -> str | None:
    network = model.network
    changes = {
        "a base_width": network.base_width is not None,
        "the stem for small images": network.stem == "small",
        "GroupNorm": network.norm == "group",
    }
    changed = next((what for what, is_so in changes.items() if is_so), None)
    return None if changed is None else f"a {network.name} with {changed} is built by no name there"


def _is_narrow(network: Any) -> bool:
    """Whether it is a plain ResNet but for its width."""
    return (
        network.base_width is not None
        and (network.name, network.stem, network.norm)
        in {(n, "standard", "batch") for n in _DEPTHS}
        and not network.options
    )


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _write_weights(path: Path, state: dict[str, Tensor]) -> None:
    tensors = {name: tensor.detach().contiguous().clone() for name, tensor in state.items()}
    path.write_bytes(save(tensors, metadata={"format": "pt"}))


EXPORTS = {e.name: e for e in (Timm(), Torchvision(), HuggingFace(), Onnx(), TorchExport())}
