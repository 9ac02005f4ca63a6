"""One training, from images and a recipe to a finished run folder."""

import json
import logging
import platform
import shlex
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch.nn.modules.batchnorm import _BatchNorm

from similitude.backbones import build_backbone
from similitude.checkpoints import Checkpoint, export_backbone, fingerprint, load_strictly
from similitude.data import CanvasLoader, ImageSet
from similitude.distributed import (
    processes_of_machine,
    rank,
    share_state_of_first,
    world_size,
)
from similitude.errors import UserError
from similitude.evaluation.health import Readings, Verdict, diagnose
from similitude.evaluation.online import OnlineMonitor
from similitude.listening import Listener, Silent
from similitude.method import Method
from similitude.methods import build_method
from similitude.pretraining import Pretraining, image_spec
from similitude.profiling import Profile, measure_limits
from similitude.recipes import Recipe, dump_recipe
from similitude.recording import Metrics, Recorder
from similitude.runs import Run
from similitude.storage import replacing, write_text, writing_error
from similitude.views import MultiView, contact_sheet


class Log:
    """Passes everything on to a listener and keeps the sentences in the run's log.txt."""

    def __init__(self, listener: Listener, path: Path) -> None:
        self.listener = listener
        self.path = path

    def say(self, sentence: str) -> None:
        """Show and keep a sentence."""
        self.listener.say(sentence)
        self._keep(sentence)

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        """Show progress; keep it where there is something to note."""
        self.listener.progress(what, done, total, note)
        if note:
            self._keep(f"{what} {done}/{total}  {note}")

    def _keep(self, line: str) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {line}\n")
        except OSError as error:
            raise writing_error(self.path, error) from error


def train(
    images: ImageSet,
    data: str,
    recipe: Recipe,
    folder: Path,
    *,
    device: torch.device,
    listener: Listener,
    checkpoint: Checkpoint | None = None,
    method: Method | None = None,
    stop_collapsed: bool = False,
    report: bool = True,
    profile: bool = False,
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
        stop_collapsed: stop where two measurements in a row tell of a collapse.
        report: write report.html too.
        profile: see :func:`run_steps`.

    Returns:
        The run, or None if it was stopped before its end.
    """
    first = rank() == 0  # of several processes it speaks and writes
    log = Log(listener, folder / "log.txt") if first else Silent()
    torch.manual_seed(recipe.seed)
    if method is None:
        method = build_method(recipe.method, build_backbone(recipe.backbone))
    first_step = 0 if checkpoint is None else checkpoint.step
    steps_per_epoch = len(images) // recipe.batch_size
    if checkpoint is not None:
        if checkpoint.images != fingerprint(images):
            raise UserError(
                f"{data} is not what the run in {folder} was trained on ({len(images)} images with "
                "other names or another number): resume with the same images"
            )
        load_strictly(method, checkpoint.method, f"method {recipe.method.name!r}")
    module = Pretraining(method, recipe, steps_per_epoch=steps_per_epoch, first_step=first_step)
    module.to(device)
    share_state_of_first(method)
    monitor = OnlineMonitor(images, image_spec(recipe), module.multi_view, seed=recipe.seed)
    if checkpoint is None:
        if first:
            _write_start(folder, recipe, images, module.multi_view)
        _tell_unreadable(images, folder, log)
    unreadable_at_start = len(images.unreadable)
    if module.multi_view.has_neighbour and not images.has_neighbours:
        log.say(
            "  no image lies beside another (tile_size cuts large images into tiles that do): the "
            "view of a neighbour is of the same image"
        )
    if recipe.micro_batch_size and any(
        isinstance(m, _BatchNorm) for m in method.backbone.modules()
    ):
        log.say(
            f"  micro-batches: BatchNorm in the backbone sees {recipe.micro_batch_size} images at "
            "a time, so the gradient is not quite the whole batch's; heads and loss see it all"
        )
    recorder = run_steps(
        module,
        images,
        fingerprint(images),
        folder,
        monitor,
        checkpoint,
        log=log,
        listener=listener,
        collapsed=(lambda m: judge(m, images).state == "collapsed") if stop_collapsed else None,
        profile=profile,
    )
    if len(images.unreadable) > unreadable_at_start:
        _tell_unreadable(images, folder, log)
    if first:
        write_environment(folder, data, images, recorder, device)
    total = module.progress.total_steps
    if recorder.stopped_early:
        log.say(f"stopped early, after step {module.step:,} of {total:,}")
    elif recorder.diverged_at is None and module.step < total:
        log.say(
            f"stopped after step {module.step:,} of {total:,}; everything is saved, and this "
            f"goes on: similitude pretrain {data} --out {folder} --resume"
        )
        return None
    if not first:
        return Run(folder)
    run = _finish(folder, images, recorder, module.step, log)
    if report:
        log.say(f"report: {run.report()}")
    return run


def _finish(
    folder: Path, images: ImageSet, recorder: Recorder, steps: int, listener: Listener
) -> Run:
    """The verdict, the backbone and the gallery."""
    verdict = judge(recorder.metrics, images, recorder.diverged_at)
    write_text(folder / "health.json", json.dumps(verdict.to_json(), indent=2))
    run = Run(folder)
    export_backbone(run.checkpoint.backbone, folder / "backbone.safetensors")
    run.write_gallery(images)
    speed = recorder.metrics.last("images_per_second") or 0.0
    listener.say(
        f"trained {steps:,} steps in {recorder.seconds:.0f} s, {speed:.0f} images/s at last"
    )
    listener.say(verdict.sentence)
    for advice in verdict.advice:
        listener.say(f"  try: {advice}")
    return run


def training_note(values: Mapping[str, float]) -> str:
    """The latest values of a training in a few words: speed, loss beside chance, kNN."""
    parts = []
    if "images_per_second" in values:
        parts.append(f"{values['images_per_second']:.0f} images/s")
    if "loss" in values:
        chance = values.get("chance_loss")
        beside = "" if chance is None else f" (chance {chance:.3g})"
        parts.append(f"loss {values['loss']:.4g}{beside}")
    if "knn" in values:
        parts.append(f"kNN {100 * values['knn']:.1f}")
    if values.get("waiting_share", 0.0) >= 0.02:
        parts.append(f"{100 * values['waiting_share']:.0f} % of the time waiting for images")
    return "  ".join(parts)


def judge(metrics: Metrics, images: ImageSet, nan_step: int | None = None) -> Verdict:
    """The verdict over what was measured during a run that diverged at ``nan_step``, if at all."""
    last = metrics.last
    losses = [row["loss"] for row in metrics.rows if "loss" in row]
    steps = last("step")
    unreadable = len(images.unreadable)
    return diagnose(
        Readings(
            loss=losses[-1] if losses else None,
            nan_step=nan_step,
            chance_loss=last("chance_loss"),
            feature_std=last("feature_std"),
            feature_dim=last("feature_dim"),
            projection_std=last("projection_std"),
            projection_std_peak=metrics.largest("projection_std"),
            target_entropy=last("target_entropy"),
            target_kl=last("target_kl"),
            prototype_entropy=last("prototype_entropy"),
            effective_rank=last("effective_rank"),
            alignment=last("alignment"),
            uniformity=last("uniformity"),
            knn=last("knn"),
            knn_random=metrics.first("knn"),
            steps=steps,
            num_images=len(images),
            unreadable_share=unreadable / (unreadable + len(images)),
        )
    )


def run_steps(
    module: Pretraining,
    images: ImageSet,
    key: str,
    folder: Path,
    monitor: OnlineMonitor,
    checkpoint: Checkpoint | None,
    *,
    log: Listener,
    listener: Listener,
    collapsed: Callable[[Metrics], bool] | None = None,
    profile: bool = False,
) -> Recorder:
    """Take the optimizer steps that are left, and write metrics and checkpoints of them.

    Args:
        module: what trains, on its device; its method has the weights of ``checkpoint``.
        images: what it trains on.
        key: tells these images from others; kept in checkpoints.
        folder: of the run.
        monitor: measures the features now and then.
        checkpoint: where to go on.
        log: hears measurements.
        listener: hears everything else.
        collapsed: see `Recorder`.
        profile: time the stages of some steps, and write profile.txt.

    Returns:
        What has been recorded, and how the training ended.
    """
    first_step = 0
    if checkpoint is not None:
        first_step = checkpoint.step
        module.optimizer.load_state_dict(checkpoint.optimizer)
        checkpoint.restore_random_state()
    total_steps = module.progress.total_steps
    loader = CanvasLoader(
        images,
        batch_size=module.recipe.batch_size,
        seed=module.recipe.seed,
        first_step=first_step,
        total_steps=total_steps,
        device=module.device,
        part=rank(),
        parts=world_size(),
        neighbours=module.multi_view.has_neighbour,
    )

    def show(values: Mapping[str, float]) -> None:
        heard = log if "feature_std" in values else listener
        heard.progress("training", int(values["step"]), total_steps, training_note(values))

    recorder = Recorder(
        folder,
        loader,
        key,
        monitor,
        Metrics(folder / "metrics.csv", first_step),
        seconds=0.0 if checkpoint is None else checkpoint.seconds,
        show=show,
        collapsed=collapsed,
    )
    if profile:
        module.stages = Profile(module.method, module.device, lambda: loader.waiting_seconds)
        with module.stages.counting():
            module.rehearse(loader.batch(first_step % total_steps))
    if first_step < total_steps:
        _fit(module, loader, recorder, total_steps - first_step)
    if isinstance(module.stages, Profile):
        limits = measure_limits(module.arithmetic.dtype, module.device)
        text = module.stages.table(limits)
        if rank() == 0:
            write_text(folder / "profile.txt", text)
            log.say(text)
    return recorder


def _fit(module: Pretraining, loader: CanvasLoader, recorder: Recorder, steps: int) -> None:
    """Take ``steps`` optimizer steps under Lightning; Ctrl-C ends them after the one under way."""
    # Lightning's notices (no TPU, tips) are about Lightning; ours go to the listener.
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    trainer = lightning.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cuda" if loader.device.type == "cuda" else "cpu",
        **_processes(),
        callbacks=[recorder],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    with _stopping_on_interrupt(recorder), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\.")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning's own use of torch
        trainer.fit(module, train_dataloaders=_Stream(loader))


class _Together(DDPStrategy):
    """Lightning's processes without its wrapper: the module averages gradients itself.

    DDP's averages while a backward pass runs, and so only one; micro-batches need several.
    """

    def configure_ddp(self) -> None:
        """No wrapper."""


def _processes() -> dict[str, Any]:
    """What the trainer has to know of the processes that train together."""
    if world_size() == 1:
        return {"devices": 1}
    devices = processes_of_machine()
    return {
        "devices": devices,
        "num_nodes": world_size() // devices,
        "strategy": _Together(cluster_environment=TorchElasticEnvironment()),
    }


class _Stream:
    """The loader without a length: to Lightning the run is one pass, whatever step it starts at."""

    def __init__(self, loader: CanvasLoader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader)


@contextmanager
def _stopping_on_interrupt(recorder: Recorder) -> Iterator[None]:
    """The first Ctrl-C ends the run after its step and saves it; the second one kills."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals reach the main thread only
        return

    def stop(signum: int, frame: FrameType | None) -> None:
        recorder.stop_requested = True
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _write_start(folder: Path, recipe: Recipe, images: ImageSet, views: MultiView) -> None:
    write_text(folder / "recipe.yaml", dump_recipe(recipe))
    few = images.subset(range(0, len(images), max(1, len(images) // 8))[:8])
    draw_contact_sheet(few, recipe, views, folder / "views.png", recipe.seed)


def _tell_unreadable(images: ImageSet, folder: Path, log: Listener) -> None:
    """Say how many files cannot be read, and list them in unreadable.txt."""
    if not images.unreadable or rank() > 0:
        return
    lines = [f"{name}\t{reason}\n" for name, reason in images.unreadable]
    write_text(folder / "unreadable.txt", "".join(lines))
    log.say(f"  {len(images.unreadable)} unreadable files are left out: {folder}/unreadable.txt")


def draw_contact_sheet(
    images: ImageSet, recipe: Recipe, views: MultiView, path: Path, seed: int
) -> None:
    """Draw some images and their views to a .png file."""
    sheet = contact_sheet(
        images.pixels[:],
        views,
        image_spec(recipe),
        columns_per_view=max(1, 8 // len(views)),  # ten views in four epochs would not fit a screen
        seed=seed,
        aspect=images.aspect,
    )
    with replacing(path) as temporary:
        sheet.save(temporary, format="PNG")


def write_environment(
    folder: Path, data: str, images: ImageSet, recorder: Recorder, device: torch.device
) -> None:
    """Write environment.json: software, machine, command, data and speed."""
    rows = [row for row in recorder.metrics.rows if "images_per_second" in row]
    speeds = sorted(row["images_per_second"] for row in rows)
    waits = [row["waiting_share"] for row in rows]
    packages = ("similitude", "torch", "torchvision", "timm", "lightning")
    content = {
        **{name: version(name) for name in packages},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "processes": world_size(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "data": data,
        "num_images": len(images),
        "unreadable": len(images.unreadable),
        "ended": time.strftime("%Y-%m-%d %H:%M:%S"),
        "seconds": recorder.seconds,
        "images_per_second": speeds[len(speeds) // 2] if speeds else None,
        "waiting_share": sum(waits) / len(waits) if waits else None,
    }
    write_text(folder / "environment.json", json.dumps(content, indent=2))


def _processor() -> str:
    """The processor's name; the platform module does not tell it on Linux."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
