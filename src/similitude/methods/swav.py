"""SwAV: swapping assignments between views (Caron et al., NeurIPS 2020, arXiv:2006.09882).

    v1, v2 = t(x), t(x); v3, ... = small crops      multi-crop (Sec. 3.2)
    z = unit(projector(backbone(v)))
    s = z . C                            C: K prototypes of unit length, trained
    q = Sinkhorn(s / epsilon)            of v1 and v2, over the whole batch: eq. 3; no gradient
    loss = mean over q1, q2 of the cross-entropy to softmax(s / t) of every other view: eqs. 1, 6

Prototypes are scaled to unit length before each forward pass, outside the graph; their gradients
are dropped in the first steps. Small batches add the embeddings of earlier ones to the assignment
(a queue, from an epoch on).

Differs from the reference code (facebookresearch/swav): Sinkhorn runs on logarithms, with the same
result; the queue is one for all processes and need not be a multiple of the batch; the peak of the
learning rate occurs once, not twice. As in the code, LARC with its weight decay acts on every
parameter, biases and norms too.
"""

import math
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from similitude.distributed import gather, rank
from similitude.images.views import ImageViewConfig
from similitude.losses import sinkhorn, swapped_prediction
from similitude.method import (
    Batch,
    Method,
    MethodConfig,
    Progress,
    Prototypes,
    QueueLength,
    StepOutput,
    Width,
)
from similitude.nets import build_head, drop_gradients, mlp, multi_crop_features, output_readings
from similitude.nets.backbone import Backbone
from similitude.sample import AnyView, MultiView

_VIEW = ImageViewConfig(
    crop_scale=(0.14, 1.0),  # (0.08, 1) without local views
    jitter=(0.8, 0.8, 0.8, 0.2),
    jitter_probability=0.8,
    grey=0.2,
    blur=0.5,
)
ASSIGNED = 2  # the global views


class SwAVConfig(MethodConfig):
    """Defaults are the paper's for ImageNet, ResNet-50, batch 4,096 (App. A)."""

    name: Literal["swav"] = "swav"
    title: ClassVar[str] = "SwAV"
    view: AnyView = _VIEW  # of the two global views
    local_view: AnyView = _VIEW.changed(size=96, crop_scale=(0.05, 0.14))
    local_views: int = Field(default=6, ge=0)  # Sec. 3.2; 0: no multi-crop
    projector: Literal["mlp", "linear", "none"] = "mlp"
    hidden_dim: Width = 2048
    projection_dim: Width = 128
    num_prototypes: Prototypes = 3000  # K
    temperature: float = Field(default=0.1, gt=0)
    assignment: Literal["sinkhorn", "softmax"] = "sinkhorn"  # softmax: nothing keeps it from one
    epsilon: float = Field(default=0.05, gt=0)  # 0.03 where the loss stays at ln K
    sinkhorn_iterations: int = Field(default=3, ge=1)
    stop_gradient: bool = True  # through the assignments
    freeze_prototypes_steps: int = Field(default=313, ge=0)  # 5,005 at batch 256
    queue_length: QueueLength = 0  # of each global view; 3,840 at batch 256
    queue_start_epoch: int = Field(default=15, ge=0)  # fills from here on, counts once full


class SwAV(Method):
    """See the module's docstring."""

    decays_all = True  # biases and norms too, and LARC adapts them, as in the reference code
    queue_rows: Tensor

    def __init__(self, backbone: Backbone, config: SwAVConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        features = backbone.num_features
        dims = [features, config.hidden_dim, config.projection_dim]
        self.projector, dim = build_head(
            config.projector, features, dims[-1], lambda: mlp(dims, hidden_bias=True)
        )
        self.prototypes = nn.Linear(dim, config.num_prototypes, bias=False)
        # Unit embeddings of earlier batches, newest first; zeros until it is full.
        self.register_buffer("queue_rows", torch.zeros(ASSIGNED, config.queue_length, dim))
        self.is_queue_full = False  # a GPU is asked while it fills alone
        self.register_load_state_dict_post_hook(_ask_again)

    def views(self, facts: Any) -> MultiView:
        view, local = self.config.view.on(facts), self.config.local_view.on(facts)
        return MultiView(view, view, *[local] * self.config.local_views)

    def training_loss(self, batch: Batch, progress: Progress) -> StepOutput:
        config, count = self.config, len(batch.views)
        queues = bool(config.queue_length) and progress.epoch >= config.queue_start_epoch
        if queues and not self.is_queue_full:
            self.is_queue_full = bool(self.queue_rows[0, -1].any())
        with torch.no_grad():
            self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))
        h = multi_crop_features(self.backbone, batch.views)
        z = F.normalize(self.projector(h), dim=1)
        scores = self.prototypes(z).chunk(count)
        embeddings = z.detach().chunk(count)[:ASSIGNED]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not config.stop_gradient):
            assignments = [self._assign(scores[v], v) for v in range(ASSIGNED)]
        loss = swapped_prediction(scores, assignments, temperature=config.temperature)
        metrics = {
            **output_readings(embeddings[0]),
            "prototype_entropy": _usage_entropy(torch.cat(scores[:ASSIGNED])),
        }
        if queues:
            self._enqueue(embeddings)
        return StepOutput(loss, features=h[: len(batch.index)].detach(), metrics=metrics)

    def _assign(self, scores: Tensor, view: int) -> Tensor:
        """Soft codes [N, K] of one global view: rows sum to 1, prototypes are used alike."""
        config, n = self.config, len(scores)
        if config.assignment == "softmax":
            return (scores / config.epsilon).softmax(dim=1)
        everybody = gather(scores)
        if self.is_queue_full:
            # A copy: the queue moves on before a backward pass through the codes.
            queue = self.queue_rows[view].clone()
            everybody = torch.cat([everybody, self.prototypes(queue)])
        q = sinkhorn(everybody, epsilon=config.epsilon, iterations=config.sinkhorn_iterations)
        return q[rank() * n : (rank() + 1) * n]

    @torch.no_grad()
    def _enqueue(self, embeddings: tuple[Tensor, ...]) -> None:
        newest = torch.stack([gather(z) for z in embeddings])
        rows = torch.cat([newest.to(self.queue_rows), self.queue_rows], dim=1)
        self.queue_rows.copy_(rows[:, : self.config.queue_length])

    def before_step(self, progress: Progress) -> None:
        if progress.step < self.config.freeze_prototypes_steps:
            drop_gradients(self.prototypes)

    def chance_loss(self, batch_size: int) -> float:
        return math.log(self.config.num_prototypes)


def _ask_again(method: SwAV, _: Any) -> None:
    method.is_queue_full = False  # other weights have been loaded


def _usage_entropy(scores: Tensor) -> Tensor:
    """Entropy in nats of how often each prototype is the nearest one; 0: always the same one."""
    nearest = gather(scores.argmax(dim=1))
    # not bincount: it asks the numbers for the largest, and a GPU would have to be waited for
    share = scores.new_zeros(scores.shape[1]).index_add_(0, nearest, scores.new_ones(len(nearest)))
    share = share / len(nearest)
    return -torch.special.xlogy(share, share).sum()
