"""The verbs of the command line as functions."""

import dataclasses
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from similitude.data.source import ImageSource
from similitude.distributed import (
    decided_by_first,
    first_then_others,
    join_processes,
    processes_of_machine,
    rank,
    world_size,
)
from similitude.distributed.interrupts import how_to_resume
from similitude.distributed.launch import run_on_devices, wants_processes
from similitude.errors import UserError
from similitude.files.writing import as_path, check_writable, version_of, write_with
from similitude.images.backbones import PLAIN_RESNETS, BackboneConfig, build_backbone, check_input
from similitude.images.decoding import ValueRange
from similitude.images.loading import load_images, load_some, pack_images
from similitude.images.opening import Range, open_source, open_stream
from similitude.images.tiles import cut_into_tiles
from similitude.listener import Listener, Silent
from similitude.method import Method, MethodConfig
from similitude.methods import METHODS, build_method, given_method, method_class, name_of
from similitude.nets import convert_sync_batchnorm
from similitude.nets.precision import keep_freed_memory
from similitude.recipes import (
    Recipe,
    field_text,
    find_recipe,
    image_facts,
    override,
    parse_recipe,
    with_used_normalisation,
)
from similitude.recipes.choose import (
    Facts,
    better_start,
    choose_adapting,
    choose_arithmetic,
    choose_canvas_size,
    choose_epochs,
    choose_looks,
    choose_normalisation,
    choose_recipe,
    choose_view_sizes,
    input_sizes,
    set_num_samples,
    shorten_warmup,
    starting_from,
    too_few_steps,
)
from similitude.recipes.rehearsal import check_batchnorm
from similitude.runs.checkpoint import load_checkpoint
from similitude.runs.folder import (
    CHECKPOINT,
    check_run_folder,
    free_run_folder,
    replacing_run,
    training_in,
)
from similitude.runs.run import Run
from similitude.runs.starts import Start, open_start, unfit_norm, with_batchnorm
from similitude.training.pretrain import train
from similitude.transfer import Classifier, is_classifier

DEFAULT_METHOD = "simclr"


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


def pretrain(
    data: Any,
    *,
    method: str | MethodConfig | type[Method] | Method | None = None,
    backbone: str | BackboneConfig | None = None,
    init: str | Path | Start | None = None,
    minutes: float | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    micro_batch_size: int | None = None,
    out: str | Path | None = None,
    recipe: str | Path | Recipe | None = None,
    overrides: Sequence[str] = (),
    seed: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    devices: int | None = None,
    num_nodes: int = 1,
    stop_collapsed: bool = False,
    report: bool = True,
    profile: bool = False,
    listener: Listener | None = None,
) -> Run | None:
    """Train a backbone on images without labels.

    What is not given is chosen from the images and the machine; ``recipe.yaml`` in the run folder
    holds every choice, and ``recipe=".../recipe.yaml"`` repeats the run.

    Args:
        data: a folder, an .npy or .npz file, an array, or a name such as "fashion-mnist".
        method: a name, or a config such as ``BYOLConfig(ema_decay=0.99)``; a method of your own is
            "module:Class", the class, or an object of it, which is then itself trained. Whoever
            goes on with a recipe or a run of such a method names it too.
        backbone: a name timm knows, or a config.
        init: published weights to go on from instead of random ones: "efficientnet-lite0",
            "timm:NAME", a file, a run, or what :func:`similitude.runs.starts.open_start` returned.
        minutes: that the training may take, by an estimate that counts its work; by default 10 on a
            CPU and 60 on an accelerator.
        epochs: passes over the images, instead of minutes.
        batch_size: images the loss compares.
        micro_batch_size: images in memory at once; the loss still sees the whole batch.
        out: the run folder; ``runs/NAME-METHOD`` with a number if that is taken.
        recipe: a recipe, its name, or a YAML file.
        overrides: assignments such as ``"method.temperature=0.2"``, applied last.
        seed: of weights, order and views.
        resume: go on with the run in ``out``, bit for bit as if it had not stopped.
        overwrite: replace the run in ``out``.
        devices: processes on this machine that share every batch, exactly; one for each GPU, or
            parts of a CPU. A script that asks for several needs ``if __name__ == "__main__":``.
        num_nodes: machines; the same call runs on each (see the guide on exactness).
        stop_collapsed: end the run where two measurements in a row tell of a collapse.
        report: write report.html at the end, a few seconds of work.
        profile: write where the time of a step goes to profile.txt.
        listener: hears the choices and the progress.

    On Linux the process keeps freed memory from then on, which saves a third of the views' time.

    Returns:
        The run, or None if Ctrl-C stopped it before its end (``resume=True`` goes on).

    Raises:
        UserError: anything the caller can mend, in one sentence.
    """
    if wants_processes(devices, num_nodes):
        path = run_on_devices(
            _pretrain_in_a_process,
            {
                "data": data,
                "method": method,
                "backbone": backbone,
                "init": init,
                "minutes": minutes,
                "epochs": epochs,
                "batch_size": batch_size,
                "micro_batch_size": micro_batch_size,
                "out": out,
                "recipe": recipe,
                "overrides": tuple(overrides),
                "seed": seed,
                "resume": resume,
                "overwrite": overwrite,
                "stop_collapsed": stop_collapsed,
                "report": report,
                "profile": profile,
            },
            devices=devices or 1,
            num_nodes=num_nodes,
            listener=listener,
        )
        own = method if isinstance(method, str | type) else None
        return None if path is None else Run(path, method=own if _is_own(own) else None)
    join_processes()
    keep_freed_memory()
    overrides = [overrides] if isinstance(overrides, str) else overrides
    listener = Silent() if listener is None or rank() > 0 else listener
    given = method if isinstance(method, Method) else None
    if given is not None:
        if backbone is not None or any(
            f.startswith(("method", "backbone")) for f in _touched(overrides)
        ):
            raise UserError(
                "a method that is given as an object has its backbone and settings already: leave "
                "out backbone and what --set says of method and backbone"
            )
        backbone = _origin(given)
    wanted = _by_name(method)
    named = wanted if isinstance(wanted, str) else None
    place = None if out is None else as_path(out)
    modes = {"resume": resume, "overwrite": overwrite}
    decided_by_first(lambda: check_run_folder(place, **modes))
    if minutes is not None and epochs is not None:
        raise UserError("--minutes and --epochs both say how long to train: give one of them")
    if minutes is not None and not 0 < minutes < float("inf"):
        raise UserError(f"--minutes {minutes:g}: give a number above 0")
    wishes = _Wishes(
        method=None if resume and named else wanted,  # which only allows what is resumed
        backbone=backbone,
        minutes=minutes,
        epochs=epochs,
        batch_size=batch_size,
        micro_batch_size=micro_batch_size,
        recipe=recipe,
        overrides=tuple(overrides),
        seed=seed,
    )
    checkpoint, read = None, None
    if resume:
        if place is None:
            raise UserError("--resume needs the run to go on with: --out runs/NAME")
        if init is not None or wishes != _Wishes():
            raise UserError(
                "--resume goes on with the run's own recipe: leave out --method, --backbone, "
                "--init, --minutes, --epochs, --batch-size, --micro-batch-size, --recipe, --seed "
                "and --set"
            )
        path = place.joinpath(*CHECKPOINT)
        checkpoint, read = load_checkpoint(path, method=named), version_of(path)
    # of a run of before, None: each picture in the range of its type
    shown = _range_of(recipe) if checkpoint is None else checkpoint.recipe.value_range
    source = first_then_others(lambda: open_source(data, values=shown))
    source = _in_tiles(source, recipe if checkpoint is None else checkpoint.recipe, overrides)
    if len(source) < 2:
        raise UserError(f"{source.name} has 1 image, but learning needs at least 2: add images")
    together = f", shared by {world_size()} processes" if world_size() > 1 else ""
    listener.say(f"{len(source):,} images in {source.name}{together}")
    for note in source.notes:
        listener.say(f"  {note}")

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    facts = Facts(len(source), _short_sides(source), device, source.name)
    start = None
    if checkpoint is not None:
        chosen = checkpoint.recipe
    else:
        if init is not None:
            start = _opened(init, backbone, given)
            for sentence in start.report:
                listener.say(f"  {sentence}")
        # As plain values: another process may not have imported a method of the user's own yet.
        values = decided_by_first(lambda: _resolve(facts, wishes, start).model_dump(mode="json"))
        chosen = parse_recipe(values, "the recipe")
    if chosen.batch_size % world_size():
        raise UserError(
            f"a batch of {chosen.batch_size} does not divide among {world_size()} processes: "
            f"choose a batch size that is a multiple of {world_size()}"
        )
    if chosen.value_range is not None:  # --set may say another
        source = source.with_values(ValueRange(*chosen.value_range))
    elif source.values is not None:
        reasons = chosen.reasons | {"value_range": "measured on these pictures"}
        chosen = chosen.changed(value_range=source.values, reasons=reasons)
    images = load_images(
        source,
        chosen.canvas_size,
        on_progress=lambda done, total: listener.progress("reading images", done, total),
    )
    if checkpoint is None:
        chosen = set_num_samples(chosen, len(images))
        if given is not None and chosen.method != wanted:
            raise UserError(
                f"the method is for {given.config.num_samples} samples, and there are "
                f"{len(images)} images: make it with num_samples={len(images)}"
            )
        if recipe is None and start is None:
            chosen = choose_normalisation(chosen, images, overrides)
        if recipe is None and not isinstance(wanted, MethodConfig):
            chosen = choose_looks(chosen, images, overrides)
        chosen = with_used_normalisation(chosen)
    if len(images) < chosen.batch_size:
        raise UserError(
            f"{len(images)} images in {source.name} are fewer than one batch of "
            f"{chosen.batch_size}; {_smaller_batch(len(images))}"
        )
    for field, reason in chosen.reasons.items():
        listener.say(f"  {field} = {field_text(chosen, field)}: {reason}")
    short = None
    if checkpoint is None:
        if start is not None and chosen.init is not None and chosen.init.norm == "batch":
            start = with_batchnorm(start, images, image_facts(chosen))
            listener.say(f"  {start.report[-1]}")
            chosen = starting_from(chosen, start)
        facts = dataclasses.replace(facts, num_images=len(images))
        short = too_few_steps(chosen, facts)
        warnings = [short]
        if start is not None:
            warnings.append(unfit_norm(method_class(chosen.method.name), start))
        if given is None and _keeps_its_backbone(chosen):
            warnings.append(better_start(chosen, facts))
        for warning in filter(None, warnings):
            listener.say(f"  {warning}")
    name = chosen.method.name
    folder = place or decided_by_first(lambda: free_run_folder(data, name))
    with ExitStack() as stack:
        decided_by_first(lambda: stack.enter_context(training_in(folder, **modes)))
        if read is not None and read != version_of(folder.joinpath(*CHECKPOINT)):
            raise UserError(
                f"another command has gone on with the run in {folder}: give this one again"
            )
        if overwrite:
            decided_by_first(lambda: stack.enter_context(replacing_run(folder)))
        run = train(
            images,
            source.name,
            chosen,
            folder,
            device=device,
            listener=listener,
            checkpoint=checkpoint,
            method=given,
            start=None if start is None else dict(start.state),
            stop_collapsed=stop_collapsed,
            report=report,
            profile=profile,
            goes_on=how_to_resume(
                "pretrain", data, out=folder, method=chosen.method.name, options=_processes()
            ),
        )
    if run is not None and short is not None:
        listener.say(f"whatever the verdict: {short}")
    return run


def _range_of(recipe: str | Path | Recipe | None) -> Range:
    """How a recipe shows deep pictures; to be measured where it does not say."""
    if recipe is None:
        return "measured"
    found = (recipe if isinstance(recipe, Recipe) else find_recipe(recipe)).value_range
    return "measured" if found is None else found


def _is_own(method: str | type[Method] | None) -> bool:
    """Whether a method is one of the user's own, which must be said for a run to be opened."""
    return isinstance(method, type) or (method is not None and ":" in method)


def _processes() -> list[str]:
    """The options that start as many processes as there are."""
    here = processes_of_machine()
    devices = ["--devices", str(here)] if here > 1 else []
    machines = world_size() // here
    return devices + (["--num-nodes", str(machines)] if machines > 1 else [])


def choose(
    source: ImageSource,
    num_images: int,
    *,
    method: str | MethodConfig | None = None,
    epochs: int | None = None,
    recipe: str | Path | Recipe | None = None,
    overrides: Sequence[str] = (),
) -> Recipe:
    """The recipe :func:`pretrain` would train ``num_images`` of a source with.

    Only what is measured on decoded images is left open: the normalisation and, in methods with a
    slot for each image, their number.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    facts = Facts(num_images, _short_sides(source), device, source.name)
    wishes = _Wishes(method=method, epochs=epochs, recipe=recipe, overrides=tuple(overrides))
    return _resolve(facts, wishes)


def _by_name(
    method: str | MethodConfig | type[Method] | Method | None,
) -> str | MethodConfig | None:
    """A class and an object as what a recipe can hold: the place they are imported from.

    Raises:
        UserError: there is no such method.
    """
    if isinstance(method, Method):
        config, kind = method.config, type(method)
        name = config.name if METHODS.get(config.name) is kind else name_of(kind)
        return config.model_copy(update={"name": name})
    if isinstance(method, MethodConfig):
        given_method(method.name)
    return given_method(method) if isinstance(method, str | type) else method


def _origin(method: Method) -> BackboneConfig:
    """What the backbone of an object was built from."""
    for module in method.backbone.modules():
        if isinstance(config := getattr(module, "built_from", None), BackboneConfig):
            return config
    raise UserError(
        "the backbone of this method was not made by build_backbone, so a saved run could not make "
        "it again: build it with similitude.build_backbone(BackboneConfig(...)), or give backbone"
    )


def _pretrain_in_a_process(*, listener: Listener, **arguments: Any) -> Path | None:
    run = pretrain(**arguments, listener=listener)
    return None if run is None else run.path


def pack(
    data: Any,
    output: str | Path | None = None,
    *,
    size: int | None = None,
    listener: Listener | None = None,
) -> Path:
    """Decode all images once, into one file that later calls read at once in place of them.

    Args:
        data: whatever :func:`pretrain` takes, or a stream of images, whose length nobody knows:
            a data set of Hugging Face loaded with ``streaming=True``, or an iterator over the bytes
            of image files or over pairs (bytes, class number).
        output: the file, named .pack and replaced if it is there; NAME.pack if not given.
        size: side of the canvases in pixels; the median short side, at most 256, if not given.
        listener: hears how it goes.

    Returns:
        The file.

    Raises:
        UserError: as :func:`pretrain`, or the name does not end in .pack.
    """
    listener = listener or Silent()
    source = open_stream(data) or open_source(data)
    for note in source.notes:
        listener.say(f"  {note}")
    name = Path(data).resolve().stem if isinstance(data, str | Path) else "images"
    path = as_path(output) if output is not None else Path(f"{name}.pack")
    check_writable(path)
    if output is None and path.exists():
        open_source(path)  # or it is no pack, and nobody said that it may go
        listener.say(f"  replaces {path}")
    images = pack_images(
        source,
        path,
        size,
        on_progress=lambda done, total: listener.progress("reading images", done, total),
    )
    listener.say(f"{len(images):,} images of {source.name}, {images.size} px")
    if (told := images.told_unreadable(source.name)) is not None:
        listener.say(f"  {told}")
    return path


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
    source = _in_tiles(open_source(data, values=_range_of(recipe)), recipe, overrides)
    facts = Facts(len(source), _short_sides(source), torch.device("cpu"))
    if recipe is None:
        chosen = choose_recipe(name or DEFAULT_METHOD, facts)
    else:
        chosen = _given_recipe(recipe, name)
    chosen = override(chosen, overrides)
    if recipe is None:
        chosen = choose_view_sizes(chosen, _touched(overrides))
    step = max(1, len(source) // 100)
    looked_at = load_some(source, range(0, len(source), step)[:100], chosen.canvas_size)
    if recipe is None:
        chosen = choose_looks(chosen, looked_at, overrides)
    method_itself = build_method(chosen.method, build_backbone(chosen.backbone))
    image = image_facts(chosen)
    sheet = looked_at.sheet(method_itself.views(image), image, seed=seed)
    write_with(target, lambda path: sheet.save(path, format="PNG"))


def _short_sides(source: ImageSource) -> list[int]:
    """Of a sample of the images, in pixels."""
    sizes = source.probe_sizes()
    if not sizes:  # no header can be read: decoding says why, or gets further than the headers
        sizes = [(load_images(source).size,) * 2]
    return [min(size) for size in sizes]


def _smaller_batch(num_images: int) -> str:
    if num_images < 16:  # a comparison of fewer images is none
        return "add images"
    fitting = 2 ** max(3, (num_images // 4).bit_length() - 1)
    return f"add images or use --batch-size {fitting}"


def _in_tiles(
    source: ImageSource, recipe: str | Path | Recipe | None, overrides: Sequence[str]
) -> ImageSource:
    """The source, cut into tiles if recipe or overrides say so: all other choices depend on it."""
    named = recipe if isinstance(recipe, Recipe) else find_recipe(recipe or "cifar10.simclr")
    sizes = [a for a in overrides if a.partition("=")[0].strip() == "tile_size"]
    tile_size = override(named, sizes).tile_size
    return source if tile_size is None else cut_into_tiles(source, tile_size)


def _touched(overrides: Sequence[str]) -> set[str]:
    """The fields that assignments set."""
    return {assignment.partition("=")[0].strip() for assignment in overrides}


@dataclass(frozen=True)
class _Wishes:
    """What the caller asks of a recipe; None and () are left to choose."""

    method: str | MethodConfig | None = None
    backbone: str | BackboneConfig | None = None
    minutes: float | None = None
    epochs: int | None = None
    batch_size: int | None = None
    micro_batch_size: int | None = None
    recipe: str | Path | Recipe | None = None
    overrides: tuple[str, ...] = ()
    seed: int | None = None


def _opened(
    init: str | Path | Start, backbone: str | BackboneConfig | None, given: Method | None
) -> Start:
    """The published weights that a training starts from."""
    if given is not None:
        raise UserError("a method that is given as an object has its weights: leave out --init")
    if isinstance(init, Start):
        if backbone is not None:
            raise UserError(f"{init.name} has its own network: leave backbone out")
        return init
    config = BackboneConfig(name=backbone) if isinstance(backbone, str) else backbone
    return first_then_others(lambda: open_start(init, backbone=config))


def _resolve(facts: Facts, wishes: _Wishes, start: Start | None = None) -> Recipe:
    """Given values, then the recipe's, then choices."""
    method, recipe = wishes.method, wishes.recipe
    if recipe is not None:
        chosen = _given_recipe(
            recipe, method if isinstance(method, str) else getattr(method, "name", None)
        )
        chosen = override(chosen, [a for a in wishes.overrides if a.partition("=")[0] == "init"])
        if chosen.init is not None and start is None:
            raise UserError(
                f"the recipe starts from published weights, {chosen.init.name}, which a recipe "
                f"does not hold: give them with --init, or train without: --set init=null"
            )
        if start is not None:
            chosen = starting_from(chosen, start)
    else:
        name = method if isinstance(method, str) else getattr(method, "name", DEFAULT_METHOD)
        if start is not None:
            chosen = choose_adapting(name, facts, start, wishes.batch_size)
        else:
            chosen = choose_recipe(
                name,
                facts,
                wishes.batch_size,
                wishes.minutes,
                own_backbone=wishes.backbone is not None,
            )
    touched = _touched(wishes.overrides)
    if start is not None:
        _refuse_what_start_decides(touched)
    if wishes.minutes is not None and "epochs" in touched:
        raise UserError("--minutes and --set epochs both say how long to train: give one of them")
    backbone = _backbone_config(wishes.backbone, chosen, recipe is not None)
    given: dict[str, Any] = {
        "method": method if isinstance(method, MethodConfig) else None,
        "backbone": backbone if start is None else None,  # which is its own
        "batch_size": wishes.batch_size,
        "micro_batch_size": wishes.micro_batch_size,
        "seed": wishes.seed,
        "epochs": wishes.epochs,
    }
    given = {field: value for field, value in given.items() if value is not None}
    reasons = {f: r for f, r in chosen.reasons.items() if f.split(".")[0] not in given}
    chosen = chosen.changed(**(given | {"reasons": reasons}))
    chosen = override(chosen, wishes.overrides)
    if chosen.batch_size > facts.num_images:  # told before any work
        raise UserError(
            f"{facts.num_images} images in {facts.name} are fewer than one batch of "
            f"{chosen.batch_size}; "
            f"{_smaller_batch(facts.num_images)}"
        )
    if recipe is None:
        chosen = choose_canvas_size(chosen, touched)
    if recipe is None and start is None and not isinstance(method, MethodConfig):
        chosen = choose_view_sizes(chosen, touched)
    network = build_backbone(chosen.backbone)
    sizes = input_sizes(chosen)
    for size in sizes:
        evaluated = chosen.image_size if chosen.image_size in sizes else size
        check_input(network, chosen.backbone, size, evaluated)
    check_batchnorm(chosen)
    if start is not None:
        _check_kept(chosen, network, start)
    chosen = choose_arithmetic(chosen, network, facts.device)
    epochs_are_free = recipe is None and wishes.epochs is None and "epochs" not in touched
    if epochs_are_free or wishes.minutes is not None:
        chosen = choose_epochs(chosen, facts, wishes.minutes)
    if recipe is None and "optimizer.warmup_epochs" not in touched:
        chosen = shorten_warmup(chosen)
    return chosen


def _given_recipe(recipe: str | Path | Recipe, method: str | None) -> Recipe:
    """The recipe that the user names, which is for the method that he names, if he does.

    Raises:
        UserError: it is for another method, or there is no such recipe.
    """
    found = recipe if isinstance(recipe, Recipe) else find_recipe(recipe)
    if method not in (None, found.method.name):
        raise UserError(
            f"--method {method} and a recipe for {found.method.name} contradict each other; "
            "give one of them"
        )
    return found


def _refuse_what_start_decides(touched: Collection[str]) -> None:
    """Refuse settings that published weights have decided already.

    Raises:
        UserError: says which.
    """
    fixed = ("init", "init.name", "init.fingerprint")
    wrong = [field for field in touched if field in fixed or field.split(".")[0] == "backbone"]
    if wrong:
        raise UserError(f"--init decides {wrong[0]}: leave --set {wrong[0]} or --init out")


def _check_kept(recipe: Recipe, network: nn.Module, start: Start) -> None:
    """Refuse published weights that are not of what the method keeps.

    Raises:
        UserError: the method wraps its network, as CPC and CMC do.
    """
    method = _with_little_memory(recipe, network)
    if world_size() > 1:
        convert_sync_batchnorm(method)  # says which layers cannot be shared
    if method.kept_backbone.state_dict().keys() != start.state.keys():
        raise UserError(
            f"{recipe.method.name} makes a network of its own from the backbone, which the weights "
            f"of {start.name} do not fit: choose another --method, or leave out --init"
        )


def _with_little_memory(recipe: Recipe, network: nn.Module) -> Method:
    """The method for a look at its networks: its memory may be large."""
    config = recipe.method.of_samples(2)
    with torch.random.fork_rng(devices=[]):
        return build_method(config, network)


def _keeps_its_backbone(recipe: Recipe) -> bool:
    """Whether published weights of the backbone would fit what the method keeps."""
    with torch.random.fork_rng(devices=[]):
        network = build_backbone(recipe.backbone)
    names = network.state_dict().keys()
    return _with_little_memory(recipe, network).kept_backbone.state_dict().keys() == names


def _backbone_config(
    backbone: str | BackboneConfig | None, chosen: Recipe, from_recipe: bool
) -> BackboneConfig | None:
    if not isinstance(backbone, str):
        return backbone
    if from_recipe and backbone == chosen.backbone.name:
        return chosen.backbone
    if backbone not in PLAIN_RESNETS:
        return BackboneConfig(name=backbone)
    # Only plain ResNets have a small-image stem, and a normalisation that one may choose.
    options = {k: v for k, v in chosen.backbone.options.items() if k == "norm_layer"}
    return BackboneConfig(name=backbone, stem=chosen.backbone.stem, options=options)
