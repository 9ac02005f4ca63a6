"""The two stages after pretraining as functions: fine-tuning, and distillation."""

import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import ValidationError
from torch import Tensor

from similitude.devices import best_device
from similitude.distributed.launch import refuse_processes
from similitude.errors import UserError
from similitude.files.writing import as_path
from similitude.listener import Log, Silent, how_to_resume
from similitude.method import Method
from similitude.methods import given_method
from similitude.modalities import chooser
from similitude.recipes import Recipe, arithmetic_of
from similitude.recipes.rehearsal import check_parts
from similitude.runs.folder import (
    check_run_folder,
    free_run_folder,
    refuse_links,
    replacing_run,
    training_in,
)
from similitude.runs.run import Run
from similitude.sample import MultiView, NetworkConfig, Samples
from similitude.training.request import DistillRequest, FinetuneRequest, given_options, takes
from similitude.transfer import training
from similitude.transfer.classifier import (
    Classifier,
    accuracy,
    commonest_share,
    is_classifier,
    measure_accuracy,
    read_transfer,
)
from similitude.transfer.data import check_fraction, read_images, read_labeled
from similitude.transfer.network import (
    ClassifierNetwork,
    build_network,
    check_layer,
    from_teacher,
    learned_method,
    projector_layers,
)
from similitude.transfer.recipes import (
    DistillRecipe,
    FinetuneRecipe,
    as_tuned,
    choose_distillation,
    choose_finetuning,
    mild_view,
)

FROM_SCRATCH = "from_scratch"  # subfolder of the supervised baseline
RecipeT = TypeVar("RecipeT", FinetuneRecipe, DistillRecipe)


@takes(FinetuneRequest)
def finetune(request: FinetuneRequest) -> Classifier | None:
    """Train a pretrained network and a layer of logits on labeled images (SimCLR v2, Sec. 2).

    What is not given is chosen from the number of labels, with reasons. The test part of ``data``
    is used for the accuracy at the end; where it has none, a fifth is held out, the same fifth as
    :meth:`Run.evaluate` holds out.

    {options}

    Returns:
        The classifier, or None if Ctrl-C stopped it before its end (``resume=True`` goes on).

    Raises:
        UserError: anything the caller can mend, in one sentence.
    """
    run, data, resume, overwrite = request.run, request.data, request.resume, request.overwrite
    labels, method, seed = request.labels, request.method, request.seed or 0
    listener = request.listener or Silent()
    folder = _check_folder(request)
    _keep_apart(folder, run)
    own = None if method is None else given_method(method)
    stored = _stored(folder, FinetuneRecipe) if resume else None
    fraction = 1.0 if request.label_fraction is None else request.label_fraction
    check_fraction(fraction)
    if is_classifier(run):
        raise UserError(
            f"{run} is a classifier already: fine-tune the run it came from, "
            f"{read_transfer(as_path(run)).source}"
        )
    pretrained = Run(run, method=own)
    network = as_tuned(pretrained.recipe)
    learned = learned_method(pretrained)
    from_layer = request.from_layer
    if from_layer is None:
        # beside published weights the projector is new, and has learned little
        from_layer = 1 if network.init is None and len(projector_layers(learned)) > 1 else 0
    check_layer(learned, from_layer)
    parts = read_labeled(
        pretrained,
        data,
        labels,
        fraction=stored.label_fraction if stored else fraction,
        seed=stored.seed if stored else seed,
        listener=listener,
    )
    recipe = stored or _checked(
        FinetuneRecipe,
        source=str(run),
        data=parts.name,
        class_names=parts.class_names,
        from_layer=from_layer,
        label_fraction=fraction,
        view=mild_view(network),
        seed=seed,
        network=network,
        **choose_finetuning(
            network,
            len(parts.train),
            fraction,
            optimizer=request.optimizer,
            lr=request.lr,
            epochs=request.epochs,
            batch_size=request.batch_size,
        ),
    )
    _check_batch(recipe, parts.train)
    folder = folder or free_run_folder(data, "finetune")
    with _training_into(folder, resume=resume, overwrite=overwrite):
        log = Log(listener, folder / "log.txt")
        log.say(
            f"{len(parts.train):,} labeled samples of {len(parts.class_names)} classes to learn "
            f"from, {len(parts.test):,} to test on"
            + (" (a fifth, held out)" if parts.held_out else "")
        )
        again = ["--labels", str(labels)] if labels is not None else []
        again += ["--from-scratch"] if request.from_scratch else []

        def learn(net: ClassifierNetwork, how: FinetuneRecipe, place: Path) -> float | None:
            classifier = training.train_on_labels(
                net,
                parts.train,
                how,
                place,
                listener=listener,
                resume=resume and is_classifier(place),
                goes_on=how_to_resume(
                    "finetune", run, data, out=folder, method=network.method.name, options=again
                ),
            )
            return None if classifier is None else measure_accuracy(classifier, parts.test)

        classes = len(parts.class_names)
        score = learn(ClassifierNetwork(learned, recipe.from_layer, classes), recipe, folder)
        if score is None:
            return None
        log.say(
            f"test accuracy {100 * score:.1f} %, fine-tuned from {recipe.source}; always the "
            f"commonest class: {100 * commonest_share(parts.test):.1f} %"
        )
        if request.from_scratch:
            place = folder / FROM_SCRATCH
            if resume and is_classifier(place):
                baseline = _stored(place, FinetuneRecipe)
            else:
                baseline = _baseline(recipe, len(parts.train))
            score = learn(build_network(baseline), baseline, place)
            if score is None:
                return None
            log.say(f"test accuracy {100 * score:.1f} %, from scratch on the same labels")
        log.say(f"classifier: {folder}")
        return Classifier(folder)


@takes(DistillRequest)
def distill(request: DistillRequest) -> Classifier | None:
    """Train a student on what a frozen classifier says of images (SimCLR v2, Sec. 2, eq. 2).

    Labels of the training images are not looked at. The student is a backbone and logits with
    random weights. Where ``data`` has a labeled test part, student and teacher are tested on it;
    where it has class subfolders alone, a fifth is held out for that.

    {options}

    Returns:
        The student, or None if Ctrl-C stopped it before its end (``resume=True`` goes on).

    Raises:
        UserError: anything the caller can mend, in one sentence.
    """
    teacher, data = request.teacher, request.data
    resume, overwrite = request.resume, request.overwrite
    squared, temperature = request.scale_by_temperature_squared, request.temperature
    listener = request.listener or Silent()
    folder = _check_folder(request)
    _keep_apart(folder, teacher)
    master = _teacher(teacher, request.method)
    recipe = _stored(folder, DistillRecipe) if resume else None
    tau = 0.1 if temperature is None else temperature
    if tau <= 0:
        raise UserError(f"the temperature is {tau:g}; give a number above 0")
    known = master.transfer
    network = known.network if recipe else _student(known.network, request.backbone)
    name, images, tested = read_images(master, known.class_names, data, listener)
    if recipe is None:
        recipe = _checked(
            DistillRecipe,
            source=str(teacher),
            data=name,
            class_names=known.class_names,
            from_layer=0,  # the paper's students have no head
            view=mild_view(network),
            seed=request.seed or 0,
            network=network,
            temperature=tau,
            scale_by_temperature_squared=squared,
            **choose_distillation(
                known.network,
                len(images),
                tau,
                scale_by_temperature_squared=squared,
                lr=request.lr,
                epochs=request.epochs,
                batch_size=request.batch_size,
            ),
        )
    _check_batch(recipe, images)
    folder = folder or free_run_folder(data, "distill")
    with _training_into(folder, resume=resume, overwrite=overwrite):
        log = Log(listener, folder / "log.txt")
        labeled = "none" if tested is None else f"{len(tested):,}"
        log.say(
            f"{len(images):,} images to learn from without labels, {labeled} with labels to test"
        )
        criterion = from_teacher(
            _frozen(master, recipe.training.micro_batch_size),
            len(recipe.class_names),
            temperature=recipe.temperature,
            scale_by_temperature_squared=recipe.scale_by_temperature_squared,
        )
        student = training.train_network(
            build_network(recipe),
            criterion,
            images,
            recipe,
            folder,
            listener=listener,
            targets=zlib.crc32(master.network.logits.weight.detach().cpu().numpy().tobytes()),
            resume=resume,
            goes_on=how_to_resume(
                "distill", teacher, data, out=folder, method=recipe.network.method.name
            ),
        )
        if student is None:
            return None
        if tested is not None and tested.labels is not None:
            of_teacher = accuracy(master.logits(tested))
            log.say(
                f"test accuracy {100 * measure_accuracy(student, tested):.1f} % of the student, "
                f"{100 * of_teacher:.1f} % of its teacher; always the commonest class: "
                f"{100 * commonest_share(tested):.1f} %"
            )
        log.say(f"classifier: {folder}")
        return student


def _check_folder(request: FinetuneRequest | DistillRequest) -> Path | None:
    """Refuse a place where something would be lost, and options that a resumed run has set."""
    refuse_processes("finetune and distill")
    folder = None if request.out is None else as_path(request.out)
    check_run_folder(folder, resume=request.resume, overwrite=request.overwrite)
    is_other = folder and (folder / "recipe.yaml").exists() and not is_classifier(folder)
    if request.overwrite and is_other:
        raise UserError(
            f"{request.out} is a run of another kind, which --overwrite would lose: give another "
            "--out"
        )
    if request.resume and folder is None:
        raise UserError("--resume needs the classifier to go on with: --out runs/NAME")
    if request.resume and given_options(request):
        raise UserError(
            "--resume goes on with the classifier's own recipe: leave out its options, such as "
            "--epochs and --seed"
        )
    return folder


def _keep_apart(folder: Path | None, source: str | Path) -> None:
    if folder is not None and folder.resolve() == as_path(source).resolve():
        raise UserError(f"{source} is where it starts from: give another --out")


@contextmanager
def _training_into(folder: Path, *, resume: bool, overwrite: bool) -> Iterator[None]:
    """Hold the folder; what it held comes back unless the new training gets under way."""
    refuse_links(folder, FROM_SCRATCH)
    with ExitStack() as stack:
        stack.enter_context(training_in(folder, resume=resume, overwrite=overwrite))
        refuse_links(folder / FROM_SCRATCH)
        if overwrite:
            baseline = [FROM_SCRATCH] if is_classifier(folder / FROM_SCRATCH) else []
            stack.enter_context(replacing_run(folder, *baseline))
        yield


def _stored(folder: Path | None, kind: type[RecipeT]) -> RecipeT:
    """The recipe of the classifier to resume."""
    assert folder is not None
    recipe = read_transfer(folder)
    if not isinstance(recipe, kind):
        raise UserError(
            f"{folder} was made by similitude {recipe.stage}: resume it with that command"
        )
    return recipe


def _checked(kind: type[RecipeT], **fields: Any) -> RecipeT:
    try:
        return kind(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{name} ({first['input']!r}): {first['msg']}") from error


def _baseline(recipe: FinetuneRecipe, num_labels: int) -> FinetuneRecipe:
    """The same network, labels, epochs and batches with random weights, and rates for those."""
    chosen = choose_finetuning(
        recipe.network,
        num_labels,
        recipe.label_fraction,
        from_scratch=True,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
    )
    return _checked(FinetuneRecipe, **{**dict(recipe), **chosen, "from_scratch": True})


def _check_batch(recipe: FinetuneRecipe | DistillRecipe, images: Samples[Any]) -> None:
    if len(images) < recipe.batch_size:
        raise UserError(
            f"{len(images)} images of {recipe.data} are fewer than one batch of "
            f"{recipe.batch_size}: give a smaller --batch-size"
        )
    if (micro := recipe.training.micro_batch_size) is not None:
        seen = recipe.network
        noise = seen.data.noise(1)
        (view,) = MultiView(recipe.view.on(seen.facts))(
            noise, torch.zeros(1).long(), seed=0, epoch=0
        )
        advice = f"give a --batch-size that is a multiple of {micro}, of at least {2 * micro}"
        network = build_network(recipe)
        check_parts(network.backbone, view.shape[1:], recipe.batch_size, micro, advice=advice)


def _teacher(folder: str | Path, method: str | type[Method] | None) -> Classifier:
    if as_path(folder).is_dir() and not is_classifier(folder):
        raise UserError(
            f"{folder} is not a classifier and has no classes to teach: make one with: similitude "
            f"finetune {folder} LABELED"
        )
    return Classifier(folder, method=method)


def _student(teacher: Recipe, backbone: str | NetworkConfig | None) -> Recipe:
    """The recipe of the teacher's network with the student's backbone.

    A name keeps the teacher's stem where it can.
    """
    if backbone is None:
        return teacher
    choose = chooser(teacher.data.kind)
    config = choose.network(backbone, teacher) if isinstance(backbone, str) else backbone
    network = teacher.changed(backbone=config)
    choose.check(network, config.build())
    return network


def _frozen(teacher: Classifier, micro_batch_size: int | None) -> Callable[[Tensor], Tensor]:
    """The teacher as a function of views that nothing trains, in its own arithmetic."""
    device = best_device()
    network = teacher.network.to(device).requires_grad_(False)
    backbone = arithmetic_of(teacher.transfer.network).wrap(network.backbone)

    def logits(view: Any) -> Tensor:
        parts = view.split(micro_batch_size or len(view))
        return torch.cat([network.logits(network.head(backbone(part))) for part in parts])

    return logits
