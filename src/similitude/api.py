"""The verbs of the command line as functions: what is asked for, a recipe, a run."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from similitude.devices import best_device
from similitude.distributed import (
    decided_by_first,
    join_processes,
    processes_of_machine,
    rank,
    world_size,
)
from similitude.distributed.launch import run_on_devices, wants_processes
from similitude.distributed.sharding import check_mean, check_sharding
from similitude.errors import UserError
from similitude.files.writing import as_path, check_writable, version_of, write_with
from similitude.listener import Listener, Silent, how_to_resume
from similitude.method import Method
from similitude.methods import build_method, given_method, method_class
from similitude.modalities import Modality, modality, modality_of
from similitude.modalities import chooser as chooser_of
from similitude.nets.start import Start
from similitude.recipes import Recipe, field_text, parse_recipe
from similitude.recipes.choose import Chooser
from similitude.recipes.duration import too_few_steps
from similitude.runs.checkpoint import Checkpoint, load_checkpoint
from similitude.runs.folder import (
    CHECKPOINT,
    check_run_folder,
    free_run_folder,
    replacing_run,
    settle,
    training_in,
)
from similitude.runs.run import Run
from similitude.runs.starts import open_start
from similitude.sample import Samples
from similitude.training.choose import (
    by_name,
    choose,
    choose_views,
    fit_to_samples,
    kind_for,
    method_name,
    opened_with,
    refuse_other_values,
    refuse_what_no_samples_mend,
    start_would_help,
    too_few_samples,
)
from similitude.training.logs import check_loggers
from similitude.training.pretrain import train
from similitude.training.request import PretrainRequest, takes
from similitude.transfer import Classifier, is_classifier


def load(run: str | Path, *, method: str | type[Method] | None = None) -> Run:
    """A run that :func:`pretrain` wrote, or the ``Classifier`` made of one.

    Args:
        run: the folder.
        method: "module:Class" of your own, or the class, if the run was trained with it.

    Raises:
        UserError: there is none in this folder, or it is of another method.
    """
    kind = Classifier if is_classifier(run) else Run
    return kind(run, method=method)


@takes(PretrainRequest)
def pretrain(request: PretrainRequest) -> Run | None:
    """Train a backbone on samples without labels.

    What is not given is chosen from the data and the machine; ``recipe.yaml`` in the run folder
    holds every choice, and ``recipe=".../recipe.yaml"`` repeats the run.

    {options}

    Returns:
        The run, or None if Ctrl-C stopped it before its end (``resume=True`` goes on).

    Raises:
        UserError: anything the caller can mend, in one sentence.
    """
    if wants_processes(request.devices, request.num_nodes):
        return _pretrain_in_processes(request)
    return _pretrain(request)


def _pretrain(request: PretrainRequest) -> Run | None:
    join_processes()
    request = request.settled(lambda folder: decided_by_first(lambda: _is_saved(folder)))
    listener = request.listener if request.listener and rank() == 0 else Silent()
    plan = _plan(request, listener)
    if request.shard:
        check_mean(plan.device)
    images = _read(plan, listener)
    recipe, start, short = plan.recipe, plan.start, None
    if plan.checkpoint is None:
        has_start = start is not None
        recipe = fit_to_samples(recipe, images, plan.request, plan.chooser, has_start=has_start)
        if plan.given is not None and recipe.method != plan.request.method:
            raise UserError(
                f"the method is for {plan.given.config.num_samples} samples, and there are "  # type: ignore[attr-defined]
                f"{len(images)}: make it with num_samples={len(images)}"
            )
    if len(images) < recipe.batch_size:
        raise too_few_samples(len(images), plan.source.name, recipe.batch_size)
    for field, reason in recipe.reasons.items():
        shown = field.removeprefix("data.")
        listener.say(f"  {shown} = {field_text(recipe, field)}: {reason}")
    if start is not None and recipe.init is not None and recipe.init.norm == "batch":
        start = plan.modality.starts.with_batchnorm(start, images, recipe.facts)
        listener.say(f"  {start.report[-1]}")
        recipe = plan.chooser.started(recipe, start)
    if plan.checkpoint is None:
        short = _warn(plan, recipe, len(images), start, listener)
    with ExitStack() as stack:
        folder = _hold(plan, recipe, stack)
        command = how_to_resume(
            "pretrain",
            request.data,
            out=folder,
            method=recipe.method.name,
            options=(
                *(["--auto-resume"] if request.auto_resume else []),
                *_processes(shard=request.shard),
            ),
        )
        run = train(
            images,
            plan.source.name,
            recipe,
            folder,
            device=plan.device,
            listener=listener,
            checkpoint=plan.checkpoint,
            method=plan.given,
            start=None if start is None else dict(start.state),
            stop_collapsed=request.stop_collapsed,
            report=request.report,
            shard=request.shard,
            profile=request.profile,
            logs=request.log,
            goes_on=command,
        )
    if run is not None and short is not None:
        took = run.checkpoint.seconds  # of the steps: what comes before and after stays
        listener.say(f"{too_few_steps(recipe, len(images), plan.device, took)}, as it went")
    return run


def _is_saved(folder: Path) -> bool:
    """Whether there is a run to go on with.

    Raises:
        UserError: there is one that is finished, and cannot be gone on with.
    """
    settle(folder)
    saved = folder.joinpath(*CHECKPOINT).exists()
    if not saved and (folder / "backbone.safetensors").exists():
        raise UserError(
            f"{folder} holds a finished run without its checkpoint, and --auto-resume would begin "
            "it anew: give another --out, or --overwrite"
        )
    return saved


@dataclass(frozen=True)
class _Plan:
    """What is trained on, how, and from what."""

    request: PretrainRequest  # with a method that a recipe can hold
    given: Method | None  # an object of the user's own, which is itself trained
    modality: Modality
    chooser: Chooser
    source: Any
    device: torch.device
    recipe: Recipe
    start: Start | None
    checkpoint: Checkpoint | None
    version: tuple[int, int]  # of the checkpoint's file, when it was read


def _plan(request: PretrainRequest, listener: Listener) -> _Plan:
    """Open what is asked for and choose the recipe: the one value that the first process decides.

    As plain values: another process may not have imported a method of the user's own yet.
    """
    mine: list[_Plan] = []

    def decide() -> dict[str, Any]:
        mine.append(_opened(request, listener))
        return mine[0].recipe.model_dump(mode="json")

    values = decided_by_first(decide)
    # the others find downloaded what the first has downloaded
    return mine[0] if mine else _opened(request, listener, values)


def _opened(
    request: PretrainRequest, listener: Listener, values: dict[str, Any] | None = None
) -> _Plan:
    given = request.method if isinstance(request.method, Method) else None
    request = by_name(request)
    if values is None:  # the first process may have begun to write when a slow one comes here
        check_run_folder(request.place, **request.modes)
    request.check()
    check_loggers(request.log)
    path = (request.place or Path()).joinpath(*CHECKPOINT)
    checkpoint, version = None, version_of(path)
    if request.resume:
        checkpoint = load_checkpoint(path, method=method_name(request))
    kind = _kind_of(request, checkpoint)
    chooser = chooser_of(kind.kind)
    if checkpoint is not None:
        refuse_other_values(checkpoint.recipe, request, chooser)
    else:
        refuse_what_no_samples_mend(request, chooser)
    settled = request if checkpoint is None else checkpoint.recipe
    _check_processes(settled, best_device(), shard=request.shard)
    said = opened_with(request, chooser) if checkpoint is None else checkpoint.recipe.data
    source = kind.open_training(request.data, said, resumed=checkpoint is not None)
    if len(source) < 2:
        raise UserError(f"{source.name} has 1 sample, but learning needs at least 2: add samples")
    together = f", shared by {world_size()} processes" if world_size() > 1 else ""
    listener.say(f"{len(source):,} {source.noun or kind.noun} in {source.name}{together}")
    for note in source.notes:
        listener.say(f"  {note}")
    around, start = chooser.surroundings(source), None
    if checkpoint is None and request.init is not None:
        start = kind.start_for(_open_start(request, kind), said)
        for sentence in start.report:
            listener.say(f"  {sentence}")
    if checkpoint is not None:
        recipe = checkpoint.recipe
    elif values is not None:
        recipe = parse_recipe(values, "the recipe")
    else:
        recipe = chooser.settle(choose(request, chooser, around, start), source)
    _check_processes(recipe, around.device, shard=request.shard)
    return _Plan(
        request, given, kind, chooser, source, around.device, recipe, start, checkpoint, version
    )


def _check_processes(asked: PretrainRequest | Recipe, device: torch.device, *, shard: bool) -> None:
    """Refuse sizes that the processes cannot share.

    Args:
        asked: what is known: all of a recipe, of a request what is given.
        device: where they compute.
        shard: whether they share the weights too.
    """
    if asked.batch_size is not None and asked.batch_size % world_size():
        raise UserError(
            f"a batch of {asked.batch_size} does not divide among {world_size()} processes: "
            f"choose a batch size that is a multiple of {world_size()}"
        )
    if shard:
        check_sharding(asked.micro_batch_size, device)


def _kind_of(request: PretrainRequest, checkpoint: Checkpoint | None) -> Modality:
    """The kind of data: of the run that goes on, of the recipe, else of what is given."""
    if checkpoint is not None:
        return modality(checkpoint.recipe.data.kind)
    return kind_for(request.method, request.data, request.recipe)


def _open_start(request: PretrainRequest, kind: Modality) -> Start:
    """The published weights that a training starts from."""
    init, backbone = request.init, request.backbone
    assert init is not None
    if not isinstance(init, str | Path):
        if backbone is not None:
            raise UserError(f"{init.name} has its own network: leave backbone out")
        return init
    if isinstance(backbone, str):
        backbone = kind.network_config(name=backbone)
    return open_start(init, backbone=backbone, kind=kind.kind)


def _read(plan: _Plan, listener: Listener) -> Samples[Any]:
    return plan.modality.load(
        plan.source,
        plan.recipe.data,
        lambda done, total: listener.progress(f"reading {plan.modality.noun}", done, total),
    )


def _warn(
    plan: _Plan, recipe: Recipe, num_images: int, start: Start | None, listener: Listener
) -> str | None:
    """Say what speaks against this training; that it is too short is also returned."""
    short = too_few_steps(recipe, num_images, plan.device)
    warnings = [short]
    if start is not None:
        warnings.append(plan.modality.starts.unfit_norm(method_class(recipe.method.name), start))
    if plan.given is None:
        warnings.append(start_would_help(recipe, plan.chooser, num_images))
    for warning in filter(None, warnings):
        listener.say(f"  {warning}")
    return short


def _hold(plan: _Plan, recipe: Recipe, stack: ExitStack) -> Path:
    """Take the run folder for this training, for as long as the stack is open."""
    request = plan.request

    def take() -> Path:
        folder = request.place or free_run_folder(request.data, recipe.method.name)
        stack.enter_context(training_in(folder, **request.modes))
        known = request.resume or request.auto_resume
        if known and plan.version != version_of(folder.joinpath(*CHECKPOINT)):
            raise UserError(
                f"another command has gone on with the run in {folder}: give this one again"
            )
        if request.overwrite:
            stack.enter_context(replacing_run(folder))
        return folder

    return decided_by_first(take)


def _processes(*, shard: bool) -> list[str]:
    """The options that start as many processes as there are, with as much in each."""
    here = processes_of_machine()
    devices = ["--devices", str(here)] if here > 1 else []
    machines = world_size() // here
    devices += ["--num-nodes", str(machines)] if machines > 1 else []
    return devices + (["--shard"] if shard else [])


def _pretrain_in_processes(request: PretrainRequest) -> Run | None:
    path = run_on_devices(
        _pretrain_in_a_process,
        {"request": replace(request, devices=None, num_nodes=1, listener=None)},
        devices=request.devices or 1,
        num_nodes=request.num_nodes,
        listener=request.listener,
    )
    method = request.method
    # one of the user's own must be said for a run to be opened
    own = isinstance(method, type) or (isinstance(method, str) and ":" in method)
    return None if path is None else Run(path, method=method if own else None)  # type: ignore[arg-type]


def _pretrain_in_a_process(*, request: PretrainRequest, listener: Listener) -> Path | None:
    run = _pretrain(replace(request, listener=listener))
    return None if run is None else run.path


def pack(
    data: Any,
    output: str | Path | None = None,
    *,
    size: int | None = None,
    channels: int | None = None,
    depth: int | None = None,
    listener: Listener | None = None,
) -> Path:
    """Decode all images once, into one file that later calls read at once in place of them.

    Args:
        data: whatever :func:`pretrain` takes, or a stream of images, whose length nobody knows:
            a data set of Hugging Face loaded with ``streaming=True``, or an iterator over the bytes
            of image files or over pairs (bytes, class number).
        output: the file, named .pack and replaced if it is there; NAME.pack if not given.
        size: side of the canvases in pixels; the median short side, at most 256, if not given.
        channels: that are kept of an image, as for :func:`pretrain`.
        depth: bits that are kept of a pixel, likewise.
        listener: hears how it goes.

    Returns:
        The file.

    Raises:
        UserError: as :func:`pretrain`, or the name does not end in .pack.
    """
    form = {"channels": channels, "depth": depth}
    given = {name: number for name, number in form.items() if number is not None}
    return modality_of(data).pack(data, output, size, listener or Silent(), **given)


def draw_views(
    data: Any,
    output: str | Path,
    *,
    method: str | type[Method] | None = None,
    recipe: str | Path | Recipe | None = None,
    overrides: Sequence[str] = (),
    seed: int = 0,
) -> None:
    """Draw a contact sheet of the views that a method makes of some images.

    Args:
        data: whatever :func:`pretrain` takes.
        output: the picture, a .png file.
        method: whose views; a name, "module:Class" of your own, or its class.
        recipe: as in :func:`pretrain`.
        overrides: as in :func:`pretrain`.
        seed: of the views.

    Raises:
        UserError: as :func:`pretrain`, or the name does not end in .png.
    """
    target = as_path(output)
    if target.suffix.lower() != ".png":
        raise UserError(f"cannot draw to {target}: the name must end in .png")
    check_writable(target)
    name = None if method is None else given_method(method)
    request = PretrainRequest(data, method=name, recipe=recipe, overrides=overrides)
    kind = _kind_of(request, None)
    chooser = chooser_of(kind.kind)
    source = kind.open_training(data, opened_with(request, chooser))
    around = replace(chooser.surroundings(source), device=torch.device("cpu"))
    chosen = choose_views(request, chooser, around)
    step = max(1, len(source) // 100)
    looked_at = kind.load_some(source, range(0, len(source), step)[:100], chosen.data)
    if recipe is None:
        given = request.overridden
        chosen = chooser.fit(chosen, looked_at, given, pixels=False, views=True)
    method_itself = build_method(chosen.method, chosen.backbone.build())
    sheet = looked_at.sheet(method_itself.views(chosen.facts), chosen.facts, seed=seed)
    write_with(target, lambda path: sheet.save(path, "PNG", compress_level=1))
