"""One stage, from a network and images to a finished folder."""

import zlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from similitude.devices import best_device
from similitude.errors import UserError
from similitude.evaluation import LinearProbe, extract_features
from similitude.evaluation.few_labels import FIXED_PENALTY
from similitude.evaluation.online import OnlineMonitor
from similitude.files.writing import write_text
from similitude.listener import Listener, Log
from similitude.nets.adapting import freeze_, keep_statistics_
from similitude.recipes import dump_recipe, field_text
from similitude.runs.checkpoint import export_backbone, load_checkpoint
from similitude.runs.environment import write_environment
from similitude.sample import Samples
from similitude.training.loop import run_steps
from similitude.training.step import Pretraining
from similitude.transfer.classifier import Classifier, load_network
from similitude.transfer.network import ClassifierNetwork, Criterion, Learner, from_labels
from similitude.transfer.recipes import DistillRecipe, FinetuneRecipe

WATCHED = 200  # images on which the features are measured during training


def train_on_labels(
    network: ClassifierNetwork,
    images: Samples[Any],
    recipe: FinetuneRecipe,
    folder: Path,
    *,
    listener: Listener,
    resume: bool = False,
    goes_on: str,
) -> Classifier | None:
    """Fine-tune on labels, all of which are known; see :func:`train_network`."""
    labels = images.labels
    assert labels is not None
    freeze_(network.backbone, recipe.frozen)
    if recipe.batchnorm == "kept":
        keep_statistics_(network.backbone)
    if recipe.probe_first and not resume:
        begin_with_probe_(network, images, recipe)
    return train_network(
        network,
        from_labels(labels, len(recipe.class_names)),
        images,
        recipe,
        folder,
        listener=listener,
        targets=zlib.crc32(labels.numpy().tobytes()),
        resume=resume,
        goes_on=goes_on,
    )


def begin_with_probe_(
    network: ClassifierNetwork, images: Samples[Any], recipe: FinetuneRecipe
) -> None:
    """Give the logits the weights of a linear probe on the features as they are."""
    device = best_device()
    below = nn.Sequential(network.backbone, network.head)
    found = extract_features(below, images, recipe.network.facts, device=device)
    assert found.y is not None
    alone = int(found.y.bincount().max()) < 2  # then nothing can be held out to choose by
    penalties = (FIXED_PENALTY,) if alone else None
    probe = LinearProbe(penalties, seed=recipe.seed).fit(found.x, found.y)
    weight = probe.weight_ / probe.std_[:, None]  # of features that are not standardized
    with torch.no_grad():
        network.logits.weight.copy_(weight.T)
        network.logits.bias.copy_(probe.bias_ - probe.mean_ @ weight)


def train_network(
    network: ClassifierNetwork,
    criterion: Criterion,
    images: Samples[Any],
    recipe: FinetuneRecipe | DistillRecipe,
    folder: Path,
    *,
    listener: Listener,
    targets: int,
    resume: bool = False,
    goes_on: str,
) -> Classifier | None:
    """Train, and write what a classifier's folder holds.

    Args:
        network: learns; moved to the device.
        criterion: from what.
        images: at least a batch of them.
        recipe: how.
        folder: new, or that of the training to resume.
        listener: hears how it goes; the log keeps it.
        targets: a number that tells the labels or the teacher from others.
        resume: go on from the folder's checkpoint.
        goes_on: the command that resumes the training, for whoever stops it.

    Returns:
        The classifier, or None if Ctrl-C stopped it before its end.

    Raises:
        SystemExit: with 143, if SIGTERM did; with 138, if SIGUSR1 did in a job of Slurm.
        UserError: other images than those of the training to resume, or the loss diverged.
    """
    log = Log(listener, folder / "log.txt")
    device = best_device()
    training = recipe.training
    method = training.method
    key = f"{images.fingerprint()}-{targets:08x}"
    checkpoint = load_checkpoint(folder / "checkpoints" / "last.ckpt") if resume else None
    first_step = 0 if checkpoint is None else checkpoint.step
    torch.manual_seed(recipe.seed)
    if checkpoint is not None:
        if checkpoint.images != key:
            raise UserError(
                f"{recipe.data} is not what {folder} was trained on ({len(images)} images, with "
                "other names, labels or another teacher): resume with the same"
            )
        load_network(network, checkpoint.method, method.kept, folder)
    learner = Learner(network, method, recipe.view, criterion).to(device)
    module = Pretraining(
        learner, training, steps_per_epoch=len(images) // recipe.batch_size, first_step=first_step
    )
    if checkpoint is None:
        write_text(folder / "recipe.yaml", dump_recipe(recipe))
        for field, reason in recipe.reasons.items():
            log.say(f"  {field} = {field_text(recipe, field)}: {reason}")
    unlabeled = images.without_labels()  # an online kNN among labels already learned is none
    monitor = OnlineMonitor(
        unlabeled, training.facts, module.multi_view, seed=recipe.seed, size=WATCHED
    )
    recorder = run_steps(
        module, images, key, folder, monitor, checkpoint, log=log, listener=listener
    )
    write_environment(folder, recipe.data, images, recorder.metrics, recorder.seconds, device)
    if recorder.diverged_at is not None:
        peak_lr = recipe.optimizer.base_lr * recipe.batch_size / 256
        raise UserError(
            f"the training in {folder} diverged at step {recorder.diverged_at} (the loss is not a "
            f"number): use --overwrite and a lower --lr than {peak_lr:.3g}"
        )
    if recorder.stop_signal:
        log.say(
            f"stopped after step {module.step:,} of {module.progress.total_steps:,}; everything is "
            f"saved, and this goes on: {goes_on}"
        )
        return recorder.leave()
    classifier = Classifier(folder)
    export_backbone(classifier.checkpoint.backbone, folder / "backbone.safetensors")
    return classifier
