"""The optimizer steps of a run, one after the other."""

import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.profiler import profile

from similitude.data.loader import Loader
from similitude.distributed import rank, telling_of_lost_machines, world_size
from similitude.distributed.sharding import load_whole_state
from similitude.errors import UserError
from similitude.evaluation.online import OnlineMonitor
from similitude.files.writing import write_text
from similitude.listener import Listener, hearing
from similitude.runs.checkpoint import Checkpoint
from similitude.runs.metrics import Metrics
from similitude.sample import Samples
from similitude.training.profiling import STEPS, WARM_UP, own_seconds, step_profiler, table
from similitude.training.recorder import Recorder
from similitude.training.step import Pretraining


def run_steps(
    module: Pretraining,
    samples: Samples[Any],
    key: str,
    folder: Path,
    monitor: OnlineMonitor | None,
    checkpoint: Checkpoint | None,
    *,
    log: Listener,
    listener: Listener,
    collapsed: Callable[[Metrics], bool] | None = None,
    profile: bool = False,
    logs: Sequence[str] = (),
) -> Recorder:
    """Take the optimizer steps that are left, and write metrics and checkpoints of them.

    Args:
        module: what trains, on its device; its method has the weights of ``checkpoint``.
        samples: what it trains on.
        key: tells these samples from others; kept in checkpoints.
        folder: of the run.
        monitor: measures the features now and then; only the first process needs one.
        checkpoint: where to go on.
        log: hears measurements.
        listener: hears everything else.
        collapsed: see `Recorder`.
        profile: time the stages of some steps, and write profile.txt.
        logs: see `Recorder`.

    Returns:
        What has been recorded, and how the training ended.
    """
    first_step = 0
    if checkpoint is not None:
        first_step = checkpoint.step
        try:
            load_whole_state(module.optimizer, checkpoint.optimizer)
            for parameter, state in module.optimizer.state.items():
                for value in state.values():
                    if isinstance(value, Tensor) and value.shape not in (parameter.shape, ()):
                        raise ValueError("a state of another shape than its parameter")
            checkpoint.restore_random_state()
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(
                f"the state of the optimizer in {folder} is not of this recipe: start the run anew "
                "with --overwrite"
            ) from error
    total_steps = module.progress.total_steps
    loader = Loader(
        samples,
        batch_size=module.recipe.batch_size,
        seed=module.recipe.seed,
        first_step=first_step,
        total_steps=total_steps,
        device=module.device,
        part=rank(),
        parts=world_size(),
        partners=module.multi_view.has_partner,
    )

    def show(values: Mapping[str, float]) -> None:
        heard = log if "feature_std" in values else listener
        note = training_note(values, samples.noun)
        heard.progress("training", int(values["step"]), total_steps, note)

    recorder = Recorder(
        folder,
        loader,
        key,
        monitor,
        Metrics(folder / "metrics.csv", first_step),
        seconds=0.0 if checkpoint is None else checkpoint.seconds,
        show=show,
        tell=log.say,
        collapsed=collapsed,
        logs=logs,
    )
    steps = total_steps - first_step
    profiler = step_profiler(module.device) if profile and steps > WARM_UP else None
    if profile and profiler is None:
        log.say(
            f"--profile needs more than {WARM_UP} steps, and this run has {steps} left: no "
            "profile.txt will be written; a new run with more --epochs has more"
        )
    if steps > 0:
        with profiler or nullcontext():
            _take_steps(module, loader, recorder, profiler)
    taken = min(STEPS, module.step - first_step - WARM_UP)
    if profiler is not None and taken > 0 and rank() == 0:
        text = table(own_seconds(profiler.events()), taken)
        write_text(folder / "profile.txt", text)
        for line in text.splitlines():
            log.say(line)
    return recorder


def _take_steps(
    module: Pretraining, loader: Loader, recorder: Recorder, profiler: profile | None
) -> None:
    """Take the steps of the loader.

    Stop signals end them after the one under way, a second Ctrl-C at once. Others may come more
    than once: systemd sends SIGTERM to every process, and those who started this one pass it on.
    """

    def hear(number: int) -> None:
        if recorder.stop_signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        recorder.stop_signal = number

    with hearing(hear), telling_of_lost_machines():
        recorder.begin(module)
        for batch in loader:
            recorder.record(module, module.training_step(batch))
            if profiler is not None:
                profiler.step()
            if recorder.ended:
                break
        recorder.agree(module)
        recorder.close()


def training_note(values: Mapping[str, float], nouns: str = "images") -> str:
    """The latest values of a training in a few words: speed, loss beside chance, kNN."""
    parts = []
    if "images_per_second" in values:
        parts.append(f"{values['images_per_second']:.0f} {nouns}/s")
    if "loss" in values:
        chance = values.get("chance_loss")
        beside = "" if chance is None else f" (chance {chance:.3g})"
        parts.append(f"loss {values['loss']:.4g}{beside}")
    if "knn" in values:
        parts.append(f"kNN {100 * values['knn']:.1f}")
    if values.get("waiting_share", 0.0) >= 0.02:
        parts.append(f"{100 * values['waiting_share']:.0f} % of the time waiting for {nouns}")
    return "  ".join(parts)
