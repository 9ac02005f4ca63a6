"""Checkpoints: one safe, complete, atomically written file, and the backbone's weights alone."""

import hashlib
import io
import pickle
import zlib
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from similitude.adapting import averaged
from similitude.backbones import WEIGHTS_OPTIONS, build_backbone
from similitude.data import ImageSet
from similitude.errors import UserError
from similitude.method import Method
from similitude.methods import build_method
from similitude.recipes import Recipe, parse_recipe
from similitude.storage import write_with

FORMAT = 1
START_FILE = "start.safetensors"  # in a run folder


class Checkpoint(NamedTuple):
    """Everything a run needs to go on as if it had never stopped."""

    recipe: Recipe
    step: int  # optimizer steps taken
    method: dict[str, Tensor]  # state_dict of the method: networks, memory, everything
    optimizer: dict[str, Any]  # state_dict of the optimizer
    random_state: Tensor  # torch's global generator, for dropout and the like
    cuda_random_state: Tensor | None  # that of the GPU, if there was one
    images: str  # fingerprint of the training images
    seconds: float  # training time so far
    version: str  # of similitude

    @property
    def backbone(self) -> dict[str, Tensor]:
        """The state_dict of the kept backbone alone."""
        prefix = f"{self.recipe.method.kept}."
        return {k.removeprefix(prefix): v for k, v in self.method.items() if k.startswith(prefix)}

    def restore_random_state(self) -> None:
        """Put the global generators where they were."""
        torch.set_rng_state(self.random_state)
        if self.cuda_random_state is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(self.cuda_random_state)


def fingerprint(images: ImageSet) -> str:
    """Number and names of the images in a few characters; positions are what views depend on."""
    names = "\n".join(images.names).encode()
    return f"{len(images)}-{zlib.crc32(names):08x}"


def fingerprint_of(state: Mapping[str, Tensor]) -> str:
    """Weights in 16 characters: names, shapes and every bit, but not the order."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def save_checkpoint(
    path: Path,
    *,
    recipe: Recipe,
    step: int,
    method: Method,
    optimizer: torch.optim.Optimizer,
    seconds: float,
    images: str,
) -> None:
    """Write a checkpoint atomically. It holds tensors, numbers and texts: no pickled objects.

    Raises:
        UserError: the disk is full or cannot be written; an older checkpoint at ``path`` stays.
    """
    content = {
        "format": FORMAT,
        "recipe": recipe.model_dump(mode="json"),
        "step": step,
        "method": method.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random_state": torch.get_rng_state(),
        "cuda_random_state": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "images": images,
        "seconds": seconds,
        "version": version("similitude"),
    }

    # through memory: torch's own writer to a file hides why it failed
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_with(path, lambda temporary: temporary.write_bytes(buffer.getbuffer()))


def load_checkpoint(path: Path, *, own_methods: bool = True) -> Checkpoint:
    """Read a checkpoint without running any code in it (``weights_only``).

    Args:
        path: the file.
        own_methods: whether a method "module:Class" that it names may be imported.

    Raises:
        UserError: the file is missing, damaged, or not one of ours.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(
            f"no checkpoint {path}: the run has saved none yet, or {path.parent.parent} is no run; "
            "--overwrite starts it anew"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
        raise UserError(f"the checkpoint {path} is damaged or not a checkpoint") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path} is not a checkpoint of this version of similitude")
    recipe, name = content["recipe"], ""
    with suppress(LookupError, TypeError, AttributeError):  # parse_recipe says what is wrong
        for option in WEIGHTS_OPTIONS:  # the weights of old runs are here
            recipe["backbone"]["options"].pop(option, None)
    with suppress(LookupError, TypeError):
        name = str(recipe["method"]["name"])
    if not own_methods and ":" in name:
        raise UserError(
            f"the run in {path.parent.parent} is of a method that is not of similitude, {name}: "
            "to start from it, export its backbone first"
        )
    return Checkpoint(
        recipe=parse_recipe(recipe, f"the recipe in {path}"),
        **{name: content[name] for name in Checkpoint._fields if name != "recipe"},
    )


def fresh_backbone(recipe: Recipe) -> nn.Module:
    """What the recipe's method keeps, with random weights drawn from torch's global generator."""
    return build_method(recipe.method, build_backbone(recipe.backbone)).kept_backbone


def load_backbone(recipe: Recipe, state: dict[str, Tensor]) -> nn.Module:
    """What a run keeps, with these weights, in evaluation mode.

    Raises:
        UserError: the weights do not fit the backbone that the recipe names.
    """
    with torch.random.fork_rng(devices=[]):  # of several processes only the first may come here
        backbone = fresh_backbone(recipe)
    load_strictly(backbone, state, f"backbone {recipe.backbone.name!r}")
    return backbone.eval()


def kept_weights(checkpoint: Checkpoint, start: dict[str, Tensor] | None) -> dict[str, Tensor]:
    """The weights that are exported and evaluated: the trained ones, or between them and the start.

    Args:
        checkpoint: of the run.
        start: the published weights it started from, if it did.
    """
    init = checkpoint.recipe.init
    if init is None or start is None or init.average == 0:
        return checkpoint.backbone
    return averaged(checkpoint.backbone, start, init.average)


def read_start(folder: Path, recipe: Recipe) -> dict[str, Tensor] | None:
    """The published weights that a run keeps of its start; None where it began with random ones.

    Raises:
        UserError: the file is missing, damaged, or holds other weights.
    """
    if recipe.init is None:
        return None
    path = folder / START_FILE
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"cannot read {path}, which holds the weights that the run started from: {error}"
        ) from error
    if fingerprint_of(state) != recipe.init.fingerprint:
        raise UserError(
            f"{path} does not hold the weights of {recipe.init.name} that the run started from: "
            "it is damaged, or of another run"
        )
    return state


def load_strictly(module: nn.Module, state: dict[str, Tensor], what: str) -> None:
    """Load every entry or nothing.

    Raises:
        UserError: an entry is missing, left over or of another shape; says which.
    """
    own = module.state_dict()
    wrong = [k for k in own if k not in state] + [k for k in state if k not in own]
    wrong += [k for k in own if k in state and own[k].shape != state[k].shape]
    if wrong:
        raise UserError(
            f"the checkpoint is of another network than {what}: {len(wrong)} entries do not fit, "
            f"the first is {wrong[0]!r}; use the recipe the checkpoint was trained with"
        )
    module.load_state_dict(state)


def export_backbone(state: dict[str, Tensor], path: Path) -> None:
    """Write backbone weights as safetensors, with timm's names.

    Raises:
        UserError: the disk is full or cannot be written; an older file at ``path`` stays.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}

    content = save(tensors, metadata={"format": "pt"})
    write_with(path, lambda temporary: temporary.write_bytes(content))
