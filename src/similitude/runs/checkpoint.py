"""Checkpoints: one safe, complete, atomically written file, and the backbone's weights alone."""

import io
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from similitude import __version__
from similitude.devices import best_device, on_cpu, random_state, set_random_state
from similitude.errors import UserError
from similitude.files.reading import check_archive, check_file
from similitude.files.writing import write_with
from similitude.methods import build_method
from similitude.nets.adapting import averaged
from similitude.nets.weights import RESTORE, fingerprint_of, load_strictly
from similitude.recipes import Recipe, parse_recipe
from similitude.sample import Alone

FORMAT = 1
START_FILE = "start.safetensors"  # in a run folder


class Checkpoint(NamedTuple):
    """Everything a run needs to go on as if it had never stopped."""

    recipe: Recipe
    step: Annotated[int, Field(ge=0)]  # optimizer steps taken
    method: dict[str, Tensor]  # state_dict of the method: networks, memory, everything
    optimizer: dict[str, Any]  # state_dict of the optimizer; read by the optimizer alone
    random_state: Tensor  # torch's global generator, for dropout and the like
    cuda_random_state: Tensor | None  # that of the GPU, of whatever kind, if there was one
    images: str  # fingerprint of the training images
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]  # training time so far
    version: str  # of similitude

    @property
    def backbone(self) -> dict[str, Tensor]:
        """The state_dict of the kept backbone alone."""
        prefix = f"{self.recipe.method.kept}."
        return {k.removeprefix(prefix): v for k, v in self.method.items() if k.startswith(prefix)}

    def restore_random_state(self) -> None:
        """Put the global generators where they were."""
        torch.set_rng_state(self.random_state)
        device, state = best_device(), self.cuda_random_state
        # not where the checkpoint comes from another kind of GPU
        if device.type != "cpu" and state is not None and state.shape == random_state(device).shape:
            set_random_state(state, device)


def save_checkpoint(
    path: Path,
    *,
    recipe: Recipe,
    step: int,
    method: Mapping[str, Tensor],
    optimizer: Mapping[str, Any],
    seconds: float,
    images: str,
) -> None:
    """Write a checkpoint atomically. It holds tensors, numbers and texts: no pickled objects.

    Args:
        path: the file.
        recipe: of the run.
        step: optimizer steps taken.
        method: its state dict, with whole tensors.
        optimizer: its state dict, with whole tensors.
        seconds: training time so far.
        images: fingerprint of the training images.

    Raises:
        UserError: the disk is full or cannot be written; an older checkpoint at ``path`` stays.
    """
    device = best_device()
    content = {
        "format": FORMAT,
        "recipe": recipe.model_dump(mode="json"),
        "step": step,
        "method": method,
        "optimizer": optimizer,
        "random_state": torch.get_rng_state(),
        "cuda_random_state": random_state(device) if device.type != "cpu" else None,
        "images": images,
        "seconds": seconds,
        "version": __version__,
    }

    # through memory: torch's own writer to a file hides why it failed
    buffer = io.BytesIO()
    torch.save(on_cpu(content), buffer)
    write_with(path, lambda temporary: temporary.write_bytes(buffer.getbuffer()))


_FIELDS = TypeAdapter(Checkpoint, config=ConfigDict(arbitrary_types_allowed=True, strict=True))


def load_checkpoint(
    path: Path, *, method: str | None = None, own_methods: bool = True
) -> Checkpoint:
    """Read a checkpoint without running any code in it (``weights_only``).

    Args:
        path: the file.
        method: which the run should be of, where the user has named one.
        own_methods: whether it may be of a method "module:Class" that is loaded.

    Raises:
        UserError: the file is missing, damaged, not one of ours, or of another method.
    """
    if not path.exists():
        raise UserError(
            f"no checkpoint {path}: the run has saved none yet, or {path.parent.parent} is no run; "
            "--overwrite starts it anew"
        )
    try:
        check_archive(path, RESTORE)
        with zipfile.ZipFile(path) as archive:
            # torch writes checksums of its records, and does not compare them
            if archive.testzip() is not None:
                raise UserError(
                    f"the checkpoint {path} is damaged, its checksum is of other content: {RESTORE}"
                )
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # a damaged file makes torch and zipfile raise nearly anything
        raise UserError(f"the checkpoint {path} is damaged or not a checkpoint") from error
    number = content.get("format") if isinstance(content, dict) else None
    if not isinstance(number, int) or number != FORMAT:
        raise UserError(f"{path} is not a checkpoint of this version of similitude")
    recipe, name = content.get("recipe"), ""
    with suppress(LookupError, TypeError):  # parse_recipe says what is wrong
        name = str(recipe["method"]["name"])  # type: ignore[index]
    if not own_methods and ":" in name:
        raise UserError(
            f"the run in {path.parent.parent} is of a method that is not of similitude, {name}: "
            "to start from it, export its backbone first"
        )
    parsed = parse_recipe(recipe, f"the recipe in {path}")
    if method not in (None, parsed.method.name):
        raise UserError(f"{path} is of the method {parsed.method.name}, not {method}")
    try:
        return _FIELDS.validate_python(
            {name: content[name] for name in Checkpoint._fields if name in content}
            | {"recipe": parsed}
        )
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UserError(f"the checkpoint {path} is damaged: {field}: {first['msg']}") from error


def fresh_backbone(recipe: Recipe) -> nn.Module:
    """What the recipe's method keeps, with random weights drawn from torch's global generator."""
    return build_method(recipe.method, recipe.backbone.build()).kept_backbone


def load_backbone(recipe: Recipe, state: dict[str, Tensor], place: Path | None = None) -> nn.Module:
    """What a run keeps, with these weights, in evaluation mode.

    Args:
        recipe: of the run.
        state: the weights.
        place: where they are, for errors.

    Raises:
        UserError: the weights do not fit the backbone that the recipe names.
    """
    with torch.random.fork_rng(devices=[]):  # of several processes only the first may come here
        backbone = fresh_backbone(recipe)
    of = "" if place is None else f" of {place}"
    load_strictly(backbone, state, f"backbone {recipe.backbone.name!r}{of}")
    return backbone.eval()


def kept_weights(checkpoint: Checkpoint, start: dict[str, Tensor] | None) -> dict[str, Tensor]:
    """The weights that are exported and evaluated: the trained ones, or between them and the start.

    Args:
        checkpoint: of the run.
        start: the published weights it started from, if it did.

    Raises:
        UserError: they are of another network.
    """
    init = checkpoint.recipe.init
    if init is None or start is None or init.average == 0:
        return checkpoint.backbone
    trained = checkpoint.backbone
    if {n: t.shape for n, t in trained.items()} != {n: t.shape for n, t in start.items()}:
        raise UserError(
            f"{START_FILE} holds other tensors than the run of {init.name} that lies beside it: it "
            "is damaged, or of another run"
        )
    return averaged(trained, start, init.average)


def kept_alone(recipe: Recipe, weights: dict[str, Tensor]) -> tuple[Alone, dict[str, Tensor]]:
    """The network that is used after the training, and its own of the weights that are kept."""
    alone = recipe.backbone.alone(recipe.data, recipe.facts)
    prefix = alone.prefix
    own = {n.removeprefix(prefix): t for n, t in weights.items() if n.startswith(prefix)}
    if own:
        return alone, own
    return Alone(recipe.backbone, recipe.data, recipe.facts), weights  # as the method wraps them


def read_start(folder: Path, recipe: Recipe) -> dict[str, Tensor] | None:
    """The published weights that a run keeps of its start; None where it began with random ones.

    Raises:
        UserError: the file is missing, damaged, or holds other weights.
    """
    if recipe.init is None:
        return None
    path = folder / START_FILE
    check_file(path)
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


def export_backbone(state: dict[str, Tensor], path: Path) -> None:
    """Write backbone weights as safetensors, with timm's names.

    Raises:
        UserError: the disk is full or cannot be written; an older file at ``path`` stays.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}

    content = save(tensors, metadata={"format": "pt"})
    write_with(path, lambda temporary: temporary.write_bytes(content))
