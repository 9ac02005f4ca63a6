"""Optimizers with layer-wise adaptive rates.

A trust ratio makes the length of a tensor's update proportional to the length of the tensor, so
that one learning rate serves all layers at batch sizes of thousands (You et al., arXiv:1708.03888).
No step waits for the device: all decisions are tensors.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer
from torch.optim.optimizer import ParamsT

from similitude.distributed.sharding import is_part, norms
from similitude.errors import UserError

# pyright: reportPrivateImportUsage=false
# torch._foreach_* (what torch.optim itself runs on) treats all tensors in one call.

Tensors = tuple[Tensor, ...] | list[Tensor]
MomentumStyle = Literal["outside", "classic", "popular"]


class LARS(Optimizer):
    """SGD with momentum and a trust ratio per tensor.

    With g the gradient, w the weights, v the momentum buffer and q the trust ratio,
    q(u) = trust_coefficient |w| / |u|, or 1 where either norm is 0::

        outside   u = g + wd w;   v = mu v + q(u) u;        w = w - lr v
        classic   u = g + wd w;   v = mu v + lr q(u) u;     w = w - v
        popular   v = mu v + g + wd w;                      w = w - lr q(v) v

    "outside" is the code of BYOL, Barlow Twins, MoCo v3 and DINO. "classic" is SimCLR's default:
    the same path while the rate is constant, another while it changes. "popular" is SimCLR's
    other setting.

    Args:
        params: tensors or groups; every keyword below may differ per group.
        lr: learning rate.
        momentum: mu, in [0, 1).
        weight_decay: wd, added to the gradient.
        trust_coefficient: eta in the papers.
        exclude_1d: tensors of one dimension (biases, norms) get neither weight decay nor a trust
            ratio, as in all these papers. False treats all tensors alike. A group with
            ``adapt: False`` is wholly excluded, whatever its tensors.
        momentum_style: "outside", "classic" or "popular", as above.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
        *,
        exclude_1d: bool = True,
        momentum_style: MomentumStyle = "outside",
    ) -> None:
        _refuse_negative(
            lr=lr, momentum=momentum, weight_decay=weight_decay, trust_coefficient=trust_coefficient
        )
        if momentum_style not in ("outside", "classic", "popular"):
            raise UserError(
                f"momentum_style is {momentum_style!r}; choose outside, classic or popular"
            )
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "weight_decay": weight_decay,
                "trust_coefficient": trust_coefficient,
                "exclude_1d": exclude_1d,
                "momentum_style": momentum_style,
            },
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Take one step.

        Args:
            closure: computes the loss and its gradients again; its value is returned.
        """
        loss = _evaluate(closure)
        for group in self.param_groups:
            adapted, plain = [], []
            for p in _with_gradient(group):
                adapt = group.get("adapt", p.ndim > 1 or not group["exclude_1d"])
                (adapted if adapt else plain).append(p)
            self._move(adapted, group, adapt=True)
            self._move(plain, group, adapt=False)
        return loss

    def _move(self, w: list[Tensor], group: dict[str, Any], *, adapt: bool) -> None:
        if not w:
            return
        lr, style, eta = group["lr"], group["momentum_style"], group["trust_coefficient"]
        into_buffer, into_weights = (lr, 1.0) if style == "classic" else (1.0, lr)
        u: Tensors = _gradients(w)
        if adapt:
            u = torch._foreach_add(u, w, alpha=group["weight_decay"])
            if style != "popular":
                torch._foreach_mul_(u, _trust_ratios(w, u, eta))
        v: Tensors = _momentum_buffers(self, w)
        torch._foreach_mul_(v, group["momentum"])
        torch._foreach_add_(v, u, alpha=into_buffer)
        if adapt and style == "popular":
            v = torch._foreach_mul(v, _trust_ratios(w, v, eta))
        torch._foreach_add_(w, v, alpha=-into_weights)


class LARC(Optimizer):
    """SGD with momentum whose gradients are scaled per tensor first, as SwAV uses apex's LARC.

    With g the gradient and w the weights, for *every* tensor, biases and norms included::

        q = trust_coefficient |w| / (|g| + wd |w| + eps)
        g = q (g + wd w)               untouched, without decay, where |w| or |g| is 0

    then v = mu v + g and w = w - lr v. With ``clip``, q = min(q / lr, 1): the rate of a tensor
    never exceeds ``lr``.

    Args:
        params: tensors or groups; or an SGD optimizer, as in apex, whose groups are then shared.
        lr: learning rate; taken from the groups of a given SGD.
        momentum: mu, in [0, 1).
        weight_decay: wd.
        trust_coefficient: eta in the papers; 0.001 in SwAV.
        clip: False, as in SwAV, scales; True clips (apex's default).
        eps: keeps q finite.
    """

    def __init__(
        self,
        params: ParamsT | SGD,
        lr: float | None = None,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
        *,
        clip: bool = False,
        eps: float = 1e-8,
    ) -> None:
        if isinstance(params, SGD):
            lr = params.defaults["lr"]
            params = _plain_momentum_groups(params)
        if lr is None:
            raise UserError("LARC has no learning rate; give lr")
        _refuse_negative(
            lr=lr, momentum=momentum, weight_decay=weight_decay, trust_coefficient=trust_coefficient
        )
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "weight_decay": weight_decay,
                "trust_coefficient": trust_coefficient,
                "clip": clip,
                "eps": eps,
            },
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Take one step.

        Args:
            closure: computes the loss and its gradients again; its value is returned.
        """
        loss = _evaluate(closure)
        for group in self.param_groups:
            self._move(_with_gradient(group), group)
        return loss

    def _move(self, w: list[Tensor], group: dict[str, Any]) -> None:
        if not w:
            return
        lr, decay = group["lr"], group["weight_decay"]
        grads = _gradients(w)
        w_norm, g_norm = _norms(w, w), _norms(grads, w)
        q = group["trust_coefficient"] * w_norm / (g_norm + decay * w_norm + group["eps"])
        if group["clip"]:
            q = (q / lr).clamp_max(1.0)
        active = (w_norm != 0) & (g_norm != 0)
        of_grads, of_weights = torch.where(active, q, 1.0), torch.where(active, q * decay, 0.0)
        v = _momentum_buffers(self, w)
        torch._foreach_mul_(v, group["momentum"])
        torch._foreach_add_(v, torch._foreach_mul(grads, of_grads.unbind()))
        torch._foreach_add_(v, torch._foreach_mul(w, of_weights.unbind()))
        torch._foreach_add_(w, v, alpha=-lr)


OPTIMIZERS: dict[str, type[Optimizer]] = {
    "sgd": SGD,
    "lars": LARS,
    "larc": LARC,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


def _trust_ratios(w: Tensors, u: Tensors, coefficient: float) -> tuple[Tensor, ...]:
    w_norm, u_norm = _norms(w, w), _norms(u, w)
    # Where u is 0 the quotient is infinite, and where() drops it.
    ratios = torch.where((w_norm > 0) & (u_norm > 0), coefficient * w_norm / u_norm, 1.0)
    return ratios.unbind()


def _norms(tensors: Tensors, of: Tensors) -> Tensor:
    """One number for each tensor that belongs to a parameter, sharded or not, in one tensor."""
    return norms(tensors, [is_part(parameter) for parameter in of])


def _with_gradient(group: dict[str, Any]) -> list[Tensor]:
    return [p for p in group["params"] if p.grad is not None]


def _gradients(w: list[Tensor]) -> list[Tensor]:
    return [p.grad for p in w if p.grad is not None]


def _momentum_buffers(optimizer: Optimizer, w: list[Tensor]) -> list[Tensor]:
    for p in w:
        if "momentum_buffer" not in optimizer.state[p]:
            optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
    return [optimizer.state[p]["momentum_buffer"] for p in w]


def _evaluate(closure: Callable[[], Any] | None) -> Any:
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def _refuse_negative(**settings: float) -> None:
    for name, value in settings.items():
        if value < 0:
            raise UserError(f"{name} is {value}; an optimizer needs 0 or more")


def _plain_momentum_groups(sgd: SGD) -> list[dict[str, Any]]:
    if any(g["nesterov"] or g["dampening"] or g["maximize"] for g in sgd.param_groups):
        raise UserError("LARC takes an SGD with plain momentum: no nesterov, dampening, maximize")
    return sgd.param_groups
