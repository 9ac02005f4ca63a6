"""What a method is made of, measured on the running method instead of typed in.

Each property is an experiment on a tiny copy in float64: change something, look at the loss.
"""

from copy import deepcopy
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from similitude.method import Batch, Method, MethodConfig, Progress, Role
from similitude.methods import CONFIGS, build_method
from similitude.modalities import KINDS, Modality, modality
from similitude.sample import MultiView, Rows

SAMPLES, SIDE, FEATURES = 6, 4, 16
STEP = Progress(step=3, total_steps=10, steps_per_epoch=5)
CHANGED = 1e-9  # relative; losses are float64, whose rounding is 1e-16


@dataclass(frozen=True)
class Anatomy:
    """The columns of the comparison table; the field's metadata says how each is measured."""

    momentum_encoder: bool  # a network moves although no gradient reaches it
    stop_gradient: bool  # the loss depends on a view in a way its gradient does not tell
    predictor: bool  # a head stands on the online branch only, and the loss depends on it
    negatives: bool  # other samples are candidates: one more of them changes the loss of a sample
    projection_head: bool  # the projector is not linear, and the loss depends on it
    symmetric_loss: bool  # exchanging the two views leaves the loss as it is
    memory: bool  # the loss of a batch depends on the batch before, with all weights fixed


def small_config(name: str) -> MethodConfig:
    """The method's own defaults with heads and memory small enough for an experiment."""
    kind = CONFIGS[name]
    config = kind.model_construct().small(SAMPLES)
    known: dict[str, Any] = dict.fromkeys(config.in_role(Role.WIDTH), 8)
    known |= dict.fromkeys(config.in_role(Role.NEGATIVES), 2 * SAMPLES)
    known |= dict.fromkeys(config.in_role(Role.PARTS), 1)
    known |= dict.fromkeys(config.in_role(Role.QUEUE), 4 * SAMPLES)  # a batch that comes twice
    known |= {field: view.small(SIDE) for field, view in config.view_configs.items()}
    return config.changed(**known)


def measure(config: MethodConfig) -> Anatomy:
    """Run the experiments on a fresh method with this config (use :func:`small_config`)."""
    random_state = torch.get_rng_state()
    torch.manual_seed(0)
    method = build_method(
        config, kind_of_data(config).tiny(config.name, SIDE, FEATURES)[1]
    ).double()
    # Running statistics, not the batch's: BatchNorm and DINO's center couple samples too, but are
    # neither negatives nor memory.
    method.eval()
    for parameter in method.parameters():  # a head that starts at 0 would hide what it does
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    # What a first batch settles for good (InstDisc's Z) is settled before the experiments.
    method.training_loss(as_batch(method, noise_views(method, 6)), STEP)
    anatomy = Anatomy(
        momentum_encoder=_moves_without_gradient(method),
        stop_gradient=_hides_a_gradient(method),
        predictor=_matters(method, "predictor"),
        negatives=counts_copies(method) or looks_beside(method) or remembers(method),
        projection_head=_matters(method, "projector") and _is_curved(method, "projector"),
        symmetric_loss=_is_symmetric(method),
        memory=remembers(method),
    )
    torch.set_rng_state(random_state)
    return anatomy


def table() -> dict[str, Anatomy]:
    """The anatomy of every method under its default config."""
    return {name: measure(small_config(name)) for name in CONFIGS}


def column_names() -> list[str]:
    """The properties, in order, as a reader writes them."""
    return [field.name.replace("_", " ") for field in fields(Anatomy)]


def kind_of_data(config: MethodConfig) -> Modality:
    """The kind of data that the method's own views are of."""
    view = next(iter(config.view_configs.values()))
    return next(m for m in map(modality, KINDS) if view.kind in m.view_configs)


def _own_views(method: Method) -> list[Any]:
    """The method's views of noise, as its kind of data has them."""
    views, rows = _multi_view(method)
    return views(rows, torch.arange(SAMPLES), seed=0, epoch=0)


def _multi_view(method: Method) -> tuple[MultiView, Rows]:
    """What makes them, and the noise."""
    data, _ = kind_of_data(method.config).tiny(method.config.name, SIDE, FEATURES)
    configs = method.config.view_configs
    full = {name: data.completed(view) for name, view in configs.items()}
    method.config = method.config.changed(**full)
    return method.views(data.facts(full.values())), data.noise(SAMPLES)


def noise_views(method: Method, seed: int) -> list[Tensor]:
    """Noise in the shapes of the method's own views; of several sensors one after the other."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        for view in _own_views(method)
        for tensor in ([view] if isinstance(view, Tensor) else view.of.values())
    ]


def as_batch(method: Method, views: list[Tensor], index: Tensor | None = None) -> Batch:
    """The tensors of :func:`noise_views` as the method takes them."""
    index = torch.arange(len(views[0])) % SAMPLES if index is None else index
    if len(_multi_view(method)[0]) == len(views):  # each view is a tensor
        return Batch(list(views), index)
    left = iter(views)
    return Batch([view.refilled(left) for view in _own_views(method)], index)


def _loss(method: Method, views: list[Tensor], *earlier: list[Tensor]) -> Tensor:
    """The loss of ``views`` after the batches ``earlier``, on a copy: nothing is kept."""
    twin = deepcopy(method)
    for batch in earlier:
        twin.training_loss(as_batch(method, batch), STEP)
    return twin.training_loss(as_batch(method, views), STEP).loss


def _differ(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs() > CHANGED * (1 + a.abs()))


def _moves_without_gradient(method: Method) -> bool:
    twin = deepcopy(method)
    for parameter in twin.parameters():
        if parameter.requires_grad:
            parameter.data.add_(1.0)
    frozen = [p.clone() for p in twin.parameters() if not p.requires_grad]
    twin.after_step(STEP)
    after = [p for p in twin.parameters() if not p.requires_grad]
    return any(not torch.equal(a, b) for a, b in zip(frozen, after, strict=True))


def _hides_a_gradient(method: Method) -> bool:
    """Compare autograd's slope along a direction with the slope of the loss itself."""
    views, direction, size = noise_views(method, 0), noise_views(method, 1), 1e-5
    leaves = [view.clone().requires_grad_() for view in views]
    _loss(method, leaves).backward()
    for i, leaf in enumerate(leaves):
        told = 0.0 if leaf.grad is None else float((leaf.grad * direction[i]).sum())
        shifted = [
            [v + sign * size * direction[i] if i == j else v for j, v in enumerate(views)]
            for sign in (1, -1)
        ]
        up, down = (_loss(method, shift).item() for shift in shifted)
        true = (up - down) / (2 * size)
        if abs(true - told) > 1e-5 * (abs(true) + abs(told) + 1e-3):
            return True
    return False


def _matters(method: Method, name: str) -> bool:
    """Does the loss change when the head ``name`` gets other weights?"""
    twin = deepcopy(method)
    head = getattr(twin, name, None)
    if head is None:
        return False
    generator = torch.Generator().manual_seed(2)
    for parameter in head.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        parameter.data.add_(noise)
    views = noise_views(method, 0)
    return _differ(_loss(method, views), _loss(twin, views))


def _is_curved(method: Method, name: str) -> bool:
    """Is the head anything but an affine map? f(a) + f(b) = f(a + b) + f(0) for affine maps."""
    head = getattr(method, name)
    a, b = torch.randn(2, SAMPLES, FEATURES, dtype=torch.float64)
    with torch.no_grad():
        gap = head(a) + head(b) - head(a + b) - head(torch.zeros_like(a))
    return bool(gap.abs().max() > CHANGED)


def counts_copies(method: Method) -> bool:
    """Does the loss change when every sample comes twice?

    A copy is one more candidate to a contrastive loss. The mean over samples does not notice it,
    nor do statistics of the batch: Barlow Twins' correlations, SwAV's assignments.
    """
    views = noise_views(method, 0)
    return _differ(_loss(method, views), _loss(method, [torch.cat([v, v]) for v in views]))


def looks_beside(method: Method) -> bool:
    """Does the loss change when the same samples stand in another order?

    It does where each is told from the one beside it.
    """
    views, order = noise_views(method, 0), torch.tensor([0, 2, 4, 1, 3, 5])
    moved = as_batch(method, [v[order] for v in views], order)
    return _differ(_loss(method, views), deepcopy(method).training_loss(moved, STEP).loss)


def _is_symmetric(method: Method) -> bool:
    v1, *others = noise_views(method, 0)
    if not others or others[0].shape != v1.shape:
        return False
    v2, *rest = others
    return not _differ(_loss(method, [v1, v2, *rest]), _loss(method, [v2, v1, *rest]))


def remembers(method: Method) -> bool:
    """Does the loss of a batch change with the batch before it?"""
    views = noise_views(method, 0)
    return _differ(
        _loss(method, views, noise_views(method, 4)), _loss(method, views, noise_views(method, 5))
    )
