"""One training, from images and a recipe to a finished run folder."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from similitude.distributed import rank, share_state_of_first
from similitude.errors import UserError, visible
from similitude.evaluation import ScoreTable, read_scores
from similitude.evaluation.comparison import PRETRAINED_BACKBONE
from similitude.evaluation.online import OnlineMonitor
from similitude.evaluation.retrieval_table import RetrievalTable, read_retrieval
from similitude.evaluation.verdict import Readings, Verdict, diagnose
from similitude.files.writing import write_text, write_with
from similitude.listener import Listener, Log, Silent
from similitude.method import Method
from similitude.methods import build_method
from similitude.nets.weights import fingerprint_of, load_strictly
from similitude.recipes import Recipe, dump_recipe
from similitude.runs.checkpoint import (
    START_FILE,
    Checkpoint,
    export_backbone,
    kept_alone,
    load_backbone,
    read_start,
)
from similitude.runs.environment import write_environment
from similitude.runs.gallery import write_gallery
from similitude.runs.metrics import Metrics
from similitude.runs.run import Run
from similitude.sample import MultiView, Samples
from similitude.training.loop import run_steps
from similitude.training.recorder import Recorder
from similitude.training.step import Pretraining

# What is written of weights, how it is read, and the command that writes it.
SCORES: dict[str, tuple[Callable[[Path], ScoreTable | RetrievalTable | None], str]] = {
    "evaluation.json": (read_scores, "evaluate"),
    "scores.json": (read_scores, "evaluate"),
    "retrieval.json": (read_retrieval, "retrieve"),
}
WATCHED = 2_500  # images whose features are measured while training runs
# A published network is many times as large as a chosen one, and its images too.
WATCHED_ADAPTING = 300


def train(
    images: Samples[Any],
    data: str,
    recipe: Recipe,
    folder: Path,
    *,
    device: torch.device,
    listener: Listener,
    checkpoint: Checkpoint | None = None,
    method: Method | None = None,
    start: dict[str, Tensor] | None = None,
    stop_collapsed: bool = False,
    report: bool = True,
    shard: bool = False,
    profile: bool = False,
    logs: Sequence[str] = (),
    goes_on: str = "pretrain with resume=True",
) -> Run | None:
    """Train, judge, and write everything a run folder holds.

    Args:
        images: at least a batch of them.
        data: what the images are, in words.
        recipe: how to train; that of ``checkpoint`` when resuming.
        folder: the run folder; new, or the one the checkpoint is from.
        device: where to compute.
        listener: hears how it goes.
        checkpoint: where to go on.
        method: what learns, with the weights it has; None makes it from the recipe.
        start: the published weights of its backbone, where the recipe says that it has some; a run
            that is resumed has kept them.
        stop_collapsed: stop where two measurements in a row tell of a collapse.
        report: write report.html too.
        shard: let each process keep a part of the backbones alone.
        profile: see :func:`run_steps`.
        logs: see `Recorder`.
        goes_on: what resumes the run, for whoever stops it.

    Returns:
        The run, or None if Ctrl-C stopped it before its end.

    Raises:
        SystemExit: with 143, if SIGTERM did; with 138, if SIGUSR1 did in a job of Slurm.
    """
    first = rank() == 0  # of several processes it speaks and writes
    log = Log(listener, folder / "log.txt") if first else Silent()
    torch.manual_seed(recipe.seed)
    if checkpoint is not None:
        start = read_start(folder, recipe)
    if method is None:
        backbone = recipe.backbone.build()
        if start is not None:
            load_strictly(backbone, start, f"backbone {recipe.backbone.name!r}")
            backbone.has_pretrained_weights = True  # type: ignore[assignment]
        method = build_method(recipe.method, backbone)
    first_step = 0 if checkpoint is None else checkpoint.step
    steps_per_epoch = len(images) // recipe.batch_size
    if checkpoint is not None:
        if checkpoint.images != images.fingerprint():
            raise UserError(
                f"{data} is not what the run in {folder} was trained on ({len(images)} images with "
                "other names or another number): resume with the same images"
            )
        load_strictly(method, checkpoint.method, f"method {recipe.method.name!r} of {folder}")
    method.to(device)  # before the optimizer takes its parameters
    share_state_of_first(method)
    module = Pretraining(
        method, recipe, steps_per_epoch=steps_per_epoch, first_step=first_step, shard=shard
    )
    total = module.progress.total_steps
    if checkpoint is not None and first_step < total:
        log.say(f"goes on in {folder} from step {first_step:,} of {total:,}")
    monitor = None
    if first:
        monitor = OnlineMonitor(
            images,
            recipe.facts,
            module.multi_view,
            seed=recipe.seed,
            start=None if start is None else load_backbone(recipe, start).to(device),
            size=WATCHED if start is None else WATCHED_ADAPTING,
        )
    if first and checkpoint is not None and first_step < total:
        # they would be taken for those of the backbone that training ends with
        for name, (_, command) in SCORES.items():
            if (folder / name).exists():
                (folder / name).unlink()
                log.say(f"  {name} is of step {first_step:,} and is removed: {command} again")
    if checkpoint is None:
        if first:
            _write_start(folder, recipe, images, module.multi_view)
            if start is not None:
                export_backbone(start, folder / START_FILE)
        _tell_unreadable(images, folder, log)
        for sentence in images.told_missing():
            log.say(f"  {sentence}")
    unreadable_at_start = len(images.unreadable)
    if module.multi_view.has_partner and not images.has_partners:
        log.say(
            "  no image lies beside another (tile_size cuts large images into tiles that do): the "
            "view of a partner is of the same image"
        )
    norms = [m for m in method.backbone.modules() if isinstance(m, _BatchNorm)]
    if recipe.micro_batch_size and norms:
        splits = max(getattr(norm, "num_splits", 1) for norm in norms)
        log.say(
            f"  micro-batches: BatchNorm in the backbone sees {recipe.micro_batch_size // splits} "
            "images at a time, so the gradient is not quite the whole batch's; heads and loss see "
            "it all"
        )
    if first_step >= total:
        log.say(
            f"the run in {folder} was finished already, after {first_step:,} steps; to train "
            "longer, give its recipe.yaml, more --epochs and another --out"
        )
    if module.compiled is not None:
        log.say("  the first step takes a minute or more: torch.compile makes its kernels then")
    recorder = run_steps(
        module,
        images,
        images.fingerprint(),
        folder,
        monitor,
        checkpoint,
        log=log,
        listener=listener,
        collapsed=(lambda m: judge(m, images).state == "collapsed") if stop_collapsed else None,
        profile=profile,
        logs=logs,
    )
    if len(images.unreadable) > unreadable_at_start:
        _tell_unreadable(images, folder, log)
    if first:
        measured = (recorder.metrics, recorder.seconds, device)
        write_environment(folder, data, images, *measured, recipe.method.title)
    if recorder.stop_signal:
        log.say(
            f"stopped after step {module.step:,} of {total:,}; everything is saved, and this "
            f"goes on: {goes_on}"
        )
        return recorder.leave()
    if recorder.stopped_early:
        log.say(f"stopped early, after step {module.step:,} of {total:,}")
    if not first:
        return Run(folder)
    run = Run(folder)
    if start is not None:  # what is kept is not what trained at last, and is judged on more images
        begun = load_backbone(recipe, start).to(device)
        monitor = OnlineMonitor(
            images, recipe.facts, module.multi_view, seed=recipe.seed, start=begun, size=WATCHED
        )
        values = monitor.measure(run.backbone.to(device), device)
        recorder.metrics.add({"step": float(module.step), **values})
    _drop_other_scores(run, log)
    if first_step < total:
        speed = recorder.metrics.last("images_per_second") or 0.0
        log.say(
            f"trained {module.step:,} steps in {recorder.seconds:.0f} s, {speed:.0f} "
            f"{images.noun}/s at last"
        )
    _finish(run, images, recorder, log)
    if report:
        log.say(f"report: {run.report()}")
    return run


def _drop_other_scores(run: Run, log: Listener) -> None:
    """Remove scores of weights that training went on from, as of `evaluate` while it ran."""
    for name, (read, command) in SCORES.items():
        scores = read(run.path / name)
        weights = None if scores is None else scores.weights.get(PRETRAINED_BACKBONE)
        if weights is not None and weights != fingerprint_of(run.backbone.state_dict()):
            (run.path / name).unlink()
            log.say(f"  {name} is of weights before the last step and is removed: {command} again")


def _finish(run: Run, images: Samples[Any], recorder: Recorder, listener: Listener) -> None:
    """The verdict, the backbone and the gallery."""
    verdict = judge(recorder.metrics, images, recorder.diverged_at, run.weight_change())
    write_text(run.path / "health.json", json.dumps(verdict.to_json(), indent=2))
    _, weights = kept_alone(run.recipe, run.kept_weights)
    export_backbone(weights, run.path / "backbone.safetensors")
    write_gallery(run, images)
    listener.say(verdict.sentence)
    for advice in verdict.advice:
        listener.say(f"  try: {advice}")


def judge(
    metrics: Metrics,
    images: Samples[Any],
    nan_step: int | None = None,
    weight_change: float | None = None,
) -> Verdict:
    """The verdict over what was measured during a run that diverged at ``nan_step``, if at all."""
    last = metrics.last
    losses = [row["loss"] for row in metrics.rows if "loss" in row]
    steps = last("step")
    unreadable = len(images.unreadable)
    from_start = last("knn_start")
    return diagnose(
        Readings(
            loss=losses[-1] if losses else None,
            nan_step=nan_step,
            chance_loss=last("chance_loss"),
            loss_floor=last("loss_floor"),
            feature_std=last("feature_std"),
            feature_dim=last("feature_dim"),
            feature_std_start=metrics.first("feature_std"),
            projection_std=last("projection_std"),
            projection_std_peak=metrics.largest("projection_std"),
            projection_std_lowest=metrics.smallest("projection_std"),
            center_share=last("center_share"),
            extra_center_share=last("extra_center_share"),
            extra_center_cosine=last("extra_center_cosine"),
            extra_residual_cosine=last("extra_residual_cosine"),
            target_entropy=last("target_entropy"),
            target_kl=last("target_kl"),
            prototype_entropy=last("prototype_entropy"),
            effective_rank=last("effective_rank"),
            alignment=last("alignment"),
            uniformity=last("uniformity"),
            knn=last("knn"),
            knn_random=metrics.first("knn") if from_start is None else from_start,
            knn_raw=last("knn_raw"),
            knn_queries=last("knn_queries"),
            drift=last("drift"),
            weight_change=weight_change,
            copies=last("copies"),
            steps=steps,
            num_images=len(images),
            unreadable_share=unreadable / (unreadable + len(images)),
        ),
        images.noun,
        images.raw_name,
    )


def _write_start(folder: Path, recipe: Recipe, images: Samples[Any], views: MultiView) -> None:
    write_text(folder / "recipe.yaml", dump_recipe(recipe))
    sheet = images.sheet(views, recipe.facts, seed=recipe.seed)
    # level 1: a fifth more bytes than the usual one for a fifth of its time
    write_with(folder / "views.png", lambda path: sheet.save(path, "PNG", compress_level=1))


def _tell_unreadable(images: Samples[Any], folder: Path, log: Listener) -> None:
    """Say how many files cannot be read, and list them in unreadable.txt."""
    if not images.unreadable or rank() > 0:
        return
    lines = [f"{visible(name)}\t{visible(reason)}\n" for name, reason in images.unreadable]
    write_text(folder / "unreadable.txt", "".join(lines))
    log.say(f"  {len(images.unreadable)} unreadable files are left out: {folder}/unreadable.txt")
