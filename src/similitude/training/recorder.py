"""What a run writes and shows while it trains: metrics, checkpoints, the progress line."""

import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from similitude import slurm
from similitude.data.loader import Loader
from similitude.distributed import FlagsOfAll, any_process, decided_by_first, rank
from similitude.distributed.sharding import own_part, whole_in_first, whole_state_in_first
from similitude.evaluation.online import OnlineMonitor
from similitude.evaluation.verdict_rules import WARM_UP_STEPS
from similitude.listener import end
from similitude.nets.precision import computing
from similitude.recipes.duration import in_words
from similitude.runs.checkpoint import save_checkpoint
from similitude.runs.metrics import Metrics
from similitude.training.logs import Logger, open_loggers
from similitude.training.step import Pretraining

MEASUREMENTS = 40  # of the features, in one run at most
ROWS = 400  # of metrics.csv, in one run about
SECONDS_BETWEEN_CHECKPOINTS = 300.0
# The first that any process got counts. Windows has no SIGUSR1, and no Slurm.
STOPS = (signal.SIGTERM, getattr(signal, "SIGUSR1", signal.SIGTERM), signal.SIGINT)
FIRST_STEPS = 20  # after which the estimate of a run's length is corrected
BEGINNING = 0.1  # share of a run after which a collapse is one; the papers' rates have warmed up


class Recorder:
    """Logs, measures, saves and shows a run; stops it when asked or when it diverges.

    Args:
        folder: the run folder.
        loader: what the run reads, for the share of time spent waiting.
        images: the fingerprint of the images, kept in checkpoints.
        monitor: measures the features now and then; only the process that writes needs one.
        metrics: where the rows go.
        seconds: training time before this run, when it resumes another.
        show: called with the latest values after every row, e.g. to draw a progress line.
        tell: called with a sentence: how long the run will take, once its first steps are timed.
        collapsed: whether metrics tell of a collapse. If given, a run of which two measurements in
            a row do so, both after its beginning, is stopped: it would only burn time.
        logs: names in `logs.LOGGERS` of who is to have the curves too.

    Attributes:
        stop_signal: the signal that asked this process to stop, or 0; once a step has been
            recorded, the one that any of the processes got.
        diverged_at: the step at which the loss, a weight or a feature was found not to be a number,
            if one was.
        stopped_early: whether it diverged or collapsed before its last step.
        ended: whether no step is to follow.
    """

    def __init__(
        self,
        folder: Path,
        loader: Loader,
        images: str,
        monitor: OnlineMonitor | None,
        metrics: Metrics,
        *,
        seconds: float = 0.0,
        show: Callable[[Mapping[str, float]], None],
        tell: Callable[[str], None],
        collapsed: Callable[[Metrics], bool] | None = None,
        logs: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.loader = loader
        self.images = images
        self.monitor = monitor
        self.metrics = metrics
        self.seconds = seconds
        self.show = show
        self.tell = tell
        self.collapsed = collapsed
        self.stop_signal = 0
        self._flags: FlagsOfAll | None = None
        self._just_saved = False
        self.diverged_at: int | None = None
        self.stopped_early = False
        self.ended = False
        self._writes = rank() == 0  # all processes count and stop together; the first one writes
        self._steps = 0  # of this process
        self._second_step_at = 0.0
        self._pending: list[dict[str, Tensor]] = []
        self._logs = list(logs)
        self._loggers: list[Logger] = []

    @property
    def checkpoint_path(self) -> Path:
        """Where the run's state goes."""
        return self.folder / "checkpoints" / "last.ckpt"

    def begin(self, module: Pretraining) -> None:
        """Measure the random backbone, so that later values have something to beat."""
        if self._writes:
            self._loggers = open_loggers(
                self._logs, self.folder, module.step, module.recipe, self.tell
            )
        if module.step == 0:
            self._write({"step": 0.0, "epoch": 0.0, **self._measure(module)})
            self.save(module)  # a run that diverges at once is a run too
        self._start_segment()
        self._saved_at = self._segment_start

    def record(self, module: Pretraining, outputs: dict[str, Tensor]) -> None:
        """Count the step; log, measure and save when it is time."""
        self._pending.append(outputs)
        self._segment_steps += 1
        progress = module.progress
        self._correct_estimate(module)
        overdue = time.perf_counter() - self._saved_at > SECONDS_BETWEEN_CHECKPOINTS
        asked = [self.stop_signal == number for number in STOPS]
        self._flags = self._flags or FlagsOfAll(module.device)
        *asked, overdue = self._flags.any([*asked, overdue])
        overdue = overdue and not self._just_saved  # told one step late, it was seen to already
        stopping = any(asked)
        if stopping:
            self.stop_signal = next(n for n, told in zip(STOPS, asked, strict=True) if told)
        finished = progress.step == progress.total_steps
        log_every = max(1, min(progress.steps_per_epoch, progress.total_steps // ROWS))
        measure_every = max(progress.steps_per_epoch, progress.total_steps // MEASUREMENTS)
        measure = finished or progress.step % measure_every == 0
        save = measure or stopping or overdue
        # The loss is from before the step, which may have broken the weights.
        broken = save and any_process([not _is_finite(module.method)], module.device)[0]
        if broken or measure or stopping or progress.step % log_every == 0:
            values = self._flush(module)
            broken = broken or not math.isfinite(values["loss"])
            if measure and not broken:
                values |= self._measure(module)
                infinite = not math.isfinite(values.get("feature_std", 0.0))
                broken = any_process([infinite], module.device)[0]
            if broken:
                self.diverged_at = progress.step
                self._write(values)
                self._stop_early(finished, values["step"])
                self.ended = True
                return  # the checkpoint on disk stays: it is from before
            self._write(values)
            if measure and any_process([self._writes and self._is_lost()], module.device)[0]:
                self._stop_early(finished, values["step"])
            self._start_segment()
        if save:
            self.save(module)
        self._just_saved = save
        self.ended = stopping or self.stopped_early

    def _correct_estimate(self, module: Pretraining) -> None:
        """Say how long the run will take, from the time of its first steps but the very first."""
        now = time.perf_counter()
        self._steps += 1
        if self._steps == 1:
            self._second_step_at = now
        if self._steps == FIRST_STEPS and self._writes:
            seconds = (now - self._second_step_at) / (FIRST_STEPS - 1)
            left = module.progress.total_steps - module.step
            if left >= FIRST_STEPS:
                self.tell(
                    f"  about {in_words(left * seconds)} to go, after {FIRST_STEPS} steps at "
                    f"{module.recipe.batch_size / seconds:.0f} {self.loader.samples.noun}/s"
                )

    def agree(self, module: Pretraining) -> None:
        """Let all processes know of a signal that one has heard in the last step."""
        asked = any_process([self.stop_signal == number for number in STOPS], module.device)
        self.stop_signal = next((n for n, told in zip(STOPS, asked, strict=True) if told), 0)

    def leave(self) -> None:
        """End the process as the signal asks, if it is not Ctrl-C.

        Where Slurm has announced the time limit, the job is queued again first. No process leaves
        before the first has saved: launchers end the rest when one is gone.

        Raises:
            SystemExit: see `listener.end`.
        """
        if self.stop_signal == signal.SIGINT:
            return
        requeues = self.stop_signal != signal.SIGTERM
        if said := decided_by_first(slurm.requeue if requeues else str):
            self.tell(said)
        end(self.stop_signal, told=True)

    def close(self) -> None:
        """Close what others read the curves from."""
        for logger in self._loggers:
            logger.close()

    def save(self, module: Pretraining) -> None:
        """Write the checkpoint now."""
        self._saved_at = time.perf_counter()
        method = whole_in_first(module.method.state_dict())
        optimizer = whole_state_in_first(module.optimizer)
        if not self._writes:
            return
        save_checkpoint(
            self.checkpoint_path,
            recipe=module.recipe,
            step=module.step,
            method=method,
            optimizer=optimizer,
            seconds=self.seconds,
            images=self.images,
        )

    def _flush(self, module: Pretraining) -> dict[str, float]:
        """Mean of what the steps since the last row returned, and the speed of that stretch."""
        elapsed = time.perf_counter() - self._segment_start
        self.seconds += elapsed
        names = self._pending[0]
        means = {n: torch.stack([o[n].float() for o in self._pending]).mean().item() for n in names}
        self._pending = []
        progress, batch_size = module.progress, module.recipe.batch_size
        values = {
            "step": float(progress.step),
            "epoch": progress.step / progress.steps_per_epoch,
            **means,
            "images_per_second": self._segment_steps * batch_size / elapsed,
            "waiting_share": (self.loader.waiting_seconds - self._waited) / elapsed,
            "lr": module.optimizer.param_groups[0]["lr"],
        }
        chance = module.method.chance_loss(batch_size)
        return values if chance is None else {"chance_loss": chance} | values

    def _start_segment(self) -> None:
        self._segment_start = time.perf_counter()
        self._segment_steps = 0
        self._waited = self.loader.waiting_seconds

    def _is_lost(self) -> bool:
        """Whether the last two measurements tell of a collapse; the run's beginning does not count.

        A healthy run may still have all its images alike there, for as long as its rate warms up.
        """
        if self.collapsed is None:
            return False
        beginning = max(WARM_UP_STEPS, BEGINNING * self.loader.total_steps)
        steps = [row["step"] for row in self.metrics.rows if "feature_std" in row]
        late = [step for step in steps if step >= beginning][-2:]
        return len(late) == 2 and all(self.collapsed(self.metrics.until(step)) for step in late)

    def _stop_early(self, finished: bool, step: float) -> None:
        self.stopped_early = not finished
        if self.stopped_early and self._writes:
            self.metrics.add({"step": step, "stopped_early": 1.0})

    def _measure(self, module: Pretraining) -> dict[str, float]:
        backbone = module.whole_backbone()
        if backbone is None or self.monitor is None:
            return {}
        with computing(nn.ModuleDict({"backbone": backbone}), module.arithmetic):
            return self.monitor.measure(backbone, module.device)

    def _write(self, values: Mapping[str, float]) -> None:
        if not self._writes:
            return
        self.metrics.add(values)
        for logger in self._loggers:
            logger.add(values)
        self.show(values)


def _is_finite(method: nn.Module) -> bool:
    """Whether every weight here is a number, and all that is kept beside them."""
    values = (own_part(value) for value in method.state_dict().values())
    return bool(torch.stack([value.isfinite().all() for value in values]).all())
