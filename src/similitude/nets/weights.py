"""Weights that come from files: what they are, and whether they fit."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from similitude.errors import UserError

RESTORE = "restore it from a copy, or start the run anew with --overwrite"


def fingerprint_of(state: Mapping[str, Tensor]) -> str:
    """Weights in 16 characters: names, shapes and every bit, but not the order."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def load_strictly(module: nn.Module, state: dict[str, Tensor], what: str) -> None:
    """Load every entry or nothing.

    Raises:
        UserError: an entry is missing, left over, of another shape or type, or not a number; says
            which.
    """
    own = module.state_dict()
    wrong = [k for k in own if k not in state] + [k for k in state if k not in own]
    wrong += [k for k in own if k in state and own[k].shape != state[k].shape]
    if wrong:
        raise UserError(
            f"the checkpoint is of another network than {what}: {len(wrong)} entries do not fit, "
            f"the first is {wrong[0]!r}; use the recipe the checkpoint was trained with"
        )
    for name, tensor in state.items():
        check_tensor(tensor, name, f"the checkpoint of {what}")
        if tensor.dtype != own[name].dtype:
            raise UserError(
                f"the checkpoint of {what}: tensor {name!r} is of {_kind(tensor)} instead of "
                f"{_kind(own[name])}, so it is damaged or of something else: {RESTORE}"
            )
        if not bool(tensor.isfinite().all()):
            raise UserError(
                f"the checkpoint of {what}: tensor {name!r} has numbers that are not finite (NaN "
                f"or infinite): {RESTORE}"
            )
    module.load_state_dict(state)


def check_tensor(tensor: Tensor, name: str, where: str) -> None:
    """Refuse what is no plain array of numbers, or claims more numbers than its file holds.

    Raises:
        UserError: says which tensor.
    """
    strange = (
        tensor.layout is not torch.strided
        or tensor.is_quantized
        or tensor.is_complex()
        or tensor.device.type == "meta"
    )
    if strange or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise UserError(f"{where}: tensor {name!r} is no plain array of numbers of its own")


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
