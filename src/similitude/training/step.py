"""One optimizer step of any Method for each batch."""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from similitude.data.loader import RowBatch
from similitude.devices import moved, widest
from similitude.distributed import average_gradients, mean_over_processes, rank, world_size
from similitude.distributed.sharding import hand_gradients_on, shard_, whole_in_first
from similitude.method import Batch, Method, Progress
from similitude.nets import convert_sync_batchnorm, drop_gradients
from similitude.nets.adapting import freeze_
from similitude.nets.blocks import blocks_of
from similitude.nets.precision import GradientCache, backbones_of, compiled_forwards, computing
from similitude.recipes import Recipe, arithmetic_of
from similitude.runs.checkpoint import load_backbone
from similitude.training.rates import build_optimizer, learning_rate, weight_decay


class Pretraining(nn.Module):
    """One optimizer step of a method for each batch of samples.

    Args:
        method: what learns.
        recipe: how; its seed, batch size and optimizer are read here.
        steps_per_epoch: optimizer steps in an epoch.
        first_step: steps already taken by the run that this one resumes.
        shard: let each process keep a part of the backbones alone, which must be the same in all
            processes, and on their device.
    """

    def __init__(
        self,
        method: Method,
        recipe: Recipe,
        *,
        steps_per_epoch: int,
        first_step: int = 0,
        shard: bool = False,
    ) -> None:
        super().__init__()
        self.method = convert_sync_batchnorm(method) if world_size() > 1 else method
        self.recipe = recipe
        self.step = first_step
        self.steps_per_epoch = steps_per_epoch
        self.arithmetic = arithmetic_of(recipe)
        self.shard = shard
        # FSDP takes weights in their own order alone
        placed = replace(self.arithmetic, channels_last=False) if shard else self.arithmetic
        for backbone in backbones_of(method):
            placed.place(backbone, for_training=True)
            if recipe.init is not None:
                freeze_(backbone, recipe.init.frozen)
            if shard:
                shard_(backbone, blocks_of(backbone))
        # BatchNorm over processes sends messages, which no kernel can
        compiled = recipe.compile is True and world_size() == 1
        self.compiled = compiled_forwards(self.method) if compiled else None
        self.multi_view = method.views(recipe.facts)
        self.optimizer = build_optimizer(method, recipe)

    @property
    def progress(self) -> Progress:
        """Where training stands before the next step."""
        total = self.steps_per_epoch * self.recipe.epochs
        return Progress(self.step, total, self.steps_per_epoch)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.method.parameters()).device

    def whole_backbone(self) -> nn.Module | None:
        """What is kept, to be measured: of a sharded network a copy, in the first process alone."""
        kept = self.method.kept_backbone
        if not self.shard:
            return kept
        state = whole_in_first(kept.state_dict())
        return load_backbone(self.recipe, state).to(self.device) if rank() == 0 else None

    def training_step(self, batch: RowBatch) -> dict[str, Tensor]:
        """Move weights, targets and memory by one batch; the loss and other metrics."""
        recipe, progress = self.recipe, self.progress
        optimizer = self.optimizer
        with record_function("views"):
            views = self.multi_view(
                batch.rows,
                batch.index,
                seed=recipe.seed,
                epoch=batch.epoch,
                partners=batch.partners,
            )
        index = moved(batch.index, self.device)
        rate, decay = learning_rate(recipe, progress), weight_decay(recipe, progress)
        for group in optimizer.param_groups:
            if not group.get("fixed_lr"):
                group["lr"] = rate * group["lr_scale"]
            if group["scheduled_decay"]:
                group["weight_decay"] = decay
        cache = GradientCache(recipe.micro_batch_size) if recipe.micro_batch_size else None
        with computing(self.method, self.arithmetic, cache, self.compiled):
            with record_function("heads and loss"):
                output = self.method.training_loss(Batch(views, index), progress)
            optimizer.zero_grad()
            self.method.zero_grad()  # of sharded parameters the optimizer has parts
            with record_function("backward"):
                output.loss.backward()
                if cache is not None:
                    cache.backward()
        with record_function("sum over processes"):
            average_gradients(self.method.parameters())
        with record_function("optimizer"):
            self.method.before_step(progress)
            if recipe.init is not None and progress.fraction < recipe.init.head_warmup:
                drop_gradients(self.method.backbone)  # heads of random weights would mislead it
            hand_gradients_on(optimizer)
            optimizer.step()
        with record_function("targets and schedules"):
            self.method.after_step(progress)
        self.step += 1
        with record_function("records"):
            metrics = {"loss": output.loss.detach(), **output.metrics}
            means = mean_over_processes(torch.stack([widest(value) for value in metrics.values()]))
            return dict(zip(metrics, means, strict=True))
