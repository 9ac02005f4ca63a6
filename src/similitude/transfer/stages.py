"""The two stages after pretraining as functions: fine-tuning, and distillation."""

import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import ValidationError
from torch import Tensor

from similitude.distributed.interrupts import how_to_resume
from similitude.distributed.launch import refuse_processes
from similitude.errors import UserError
from similitude.files.writing import as_path
from similitude.images.backbones import BackboneConfig, build_backbone, check_input
from similitude.images.image_set import ImageSet
from similitude.listener import Listener, Log, Silent
from similitude.method import Method
from similitude.methods import build_method, given_method
from similitude.nets.precision import keep_freed_memory
from similitude.recipes import Recipe, arithmetic_of
from similitude.recipes.rehearsal import check_parts
from similitude.runs.checkpoint import load_strictly
from similitude.runs.folder import (
    check_run_folder,
    free_run_folder,
    refuse_links,
    replacing_run,
    training_in,
)
from similitude.runs.run import Run
from similitude.transfer import training
from similitude.transfer.classifier import (
    Classifier,
    accuracy,
    commonest_share,
    is_classifier,
    measure_accuracy,
    read_transfer,
)
from similitude.transfer.data import check_fraction, read_images, read_labelled
from similitude.transfer.network import (
    ClassifierNetwork,
    build_network,
    check_layer,
    from_labels,
    from_teacher,
    projector_layers,
)
from similitude.transfer.recipes import (
    DistillRecipe,
    FinetuneRecipe,
    choose_distillation,
    choose_finetuning,
    crop_and_flip,
    student_backbone,
)

FROM_SCRATCH = "from_scratch"  # subfolder of the supervised baseline
RecipeT = TypeVar("RecipeT", FinetuneRecipe, DistillRecipe)


def finetune(
    run: str | Path,
    data: Any,
    *,
    method: str | type[Method] | None = None,
    labels: str | Path | None = None,
    label_fraction: float | None = None,
    from_layer: int | None = None,
    from_scratch: bool = False,
    optimizer: str | None = None,
    lr: float | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    listener: Listener | None = None,
) -> Classifier | None:
    """Train a pretrained network and a layer of logits on labelled images (SimCLR v2, Sec. 2).

    What is not given is chosen from the number of labels, with reasons. The test part of ``data``
    is used for the accuracy at the end; where it has none, a fifth is held out, the same fifth as
    :meth:`Run.evaluate` holds out.

    Args:
        run: a folder that :func:`similitude.pretrain` wrote, of any method.
        data: labelled images: a named set, or a folder with one subfolder for each class.
        method: "module:Class" of your own, or the class, if the run was trained with it.
        labels: a CSV file of ``file,label`` rows, for folders without class subfolders.
        label_fraction: of the training labels to use, (0, 1], as many of each class, drawn with
            the seed; default 1.
        from_layer: layers of the run's projector to keep; 0 is the backbone alone. By default 1
            where the projector is an MLP, else 0.
        from_scratch: train the same network from random weights too, on the same labels, in the
            subfolder ``from_scratch``: the supervised baseline.
        optimizer: "sgd" or "lars".
        lr: peak learning rate.
        epochs: passes over the labelled images.
        batch_size: images in a step.
        seed: of the labels drawn, order and views; default 0.
        out: the folder; ``runs/NAME-finetune`` with a number if that is taken.
        resume: go on with the training in ``out``, bit for bit as if it had not stopped.
        overwrite: replace what is in ``out``.
        listener: hears the choices and the progress.

    Returns:
        The classifier, or None if Ctrl-C stopped it before its end (``resume=True`` goes on).

    Raises:
        UserError: anything the caller can mend, in one sentence.
    """
    keep_freed_memory()
    listener = listener or Silent()
    given = (label_fraction, from_layer, optimizer, lr, epochs, batch_size, seed)
    folder = _check_folder(out, resume=resume, overwrite=overwrite, given=given)
    _keep_apart(folder, run)
    own = None if method is None else given_method(method)
    stored = _stored(folder, FinetuneRecipe) if resume else None
    fraction = 1.0 if label_fraction is None else label_fraction
    check_fraction(fraction)
    if is_classifier(run):
        raise UserError(
            f"{run} is a classifier already: fine-tune the run it came from, "
            f"{read_transfer(as_path(run)).source}"
        )
    pretrained = Run(run, method=own)
    network = pretrained.recipe
    learned = build_method(network.method, build_backbone(network.backbone))
    load_strictly(learned, pretrained.checkpoint.method, f"method {network.method.name!r} of {run}")
    learned.kept_backbone.load_state_dict(pretrained.kept_weights)
    if from_layer is None:
        from_layer = 1 if len(projector_layers(learned)) > 1 else 0
    check_layer(learned, from_layer)
    parts = read_labelled(
        pretrained,
        data,
        labels,
        fraction=stored.label_fraction if stored else fraction,
        seed=stored.seed if stored else seed or 0,
        listener=listener,
    )
    recipe = stored or _checked(
        FinetuneRecipe,
        source=str(run),
        data=parts.name,
        class_names=parts.class_names,
        from_layer=from_layer,
        label_fraction=fraction,
        view=crop_and_flip(network),
        seed=seed or 0,
        network=network,
        **choose_finetuning(
            network,
            len(parts.train),
            fraction,
            optimizer=optimizer,
            lr=lr,
            epochs=epochs,
            batch_size=batch_size,
        ),
    )
    _check_batch(recipe, parts.train)
    folder = folder or free_run_folder(data, "finetune")
    with _training_into(folder, resume=resume, overwrite=overwrite):
        log = Log(listener, folder / "log.txt")
        log.say(
            f"{len(parts.train):,} labelled images of {len(parts.class_names)} classes to learn "
            f"from, {len(parts.test):,} to test on"
            + (" (a fifth, held out)" if parts.held_out else "")
        )
        assert parts.train.labels is not None
        targets = zlib.crc32(parts.train.labels.numpy().tobytes())
        criterion = from_labels(parts.train.labels, len(parts.class_names))
        again = ["--labels", str(labels)] if labels is not None else []
        again += ["--from-scratch"] if from_scratch else []

        def learn(net: ClassifierNetwork, how: FinetuneRecipe, place: Path) -> float | None:
            classifier = training.train_network(
                net,
                criterion,
                parts.train,
                how,
                place,
                listener=listener,
                targets=targets,
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
        if from_scratch:
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


def distill(
    teacher: str | Path,
    data: Any,
    *,
    method: str | type[Method] | None = None,
    backbone: str | BackboneConfig | None = None,
    temperature: float | None = None,
    scale_by_temperature_squared: bool = False,
    lr: float | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    listener: Listener | None = None,
) -> Classifier | None:
    """Train a student on what a frozen classifier says of images (SimCLR v2, Sec. 2, eq. 2).

    Labels of the training images are not looked at. The student is a backbone and logits with
    random weights. Where ``data`` has a labelled test part, student and teacher are tested on it;
    where it has class subfolders alone, a fifth is held out for that.

    Args:
        teacher: a folder that :func:`finetune` or :func:`distill` wrote.
        data: images, better many; labels are not needed.
        method: "module:Class" of your own, or the class, if the teacher's network was pretrained
            with it.
        backbone: the student's, a name timm knows or a config; by default the teacher's.
        temperature: of both networks' logits; default 0.1.
        scale_by_temperature_squared: multiply the loss by the temperature squared, as the authors'
            notebook does and the paper does not.
        lr: peak learning rate.
        epochs: passes over the images; by default those of the pretraining.
        batch_size: images in a step; by default that of the pretraining.
        seed: of weights, order and views; default 0.
        out: the folder; ``runs/NAME-distill`` with a number if that is taken.
        resume: go on with the training in ``out``, bit for bit as if it had not stopped.
        overwrite: replace what is in ``out``.
        listener: hears the choices and the progress.

    Returns:
        The student, or None if Ctrl-C stopped it before its end (``resume=True`` goes on).

    Raises:
        UserError: anything the caller can mend, in one sentence.
    """
    keep_freed_memory()
    listener = listener or Silent()
    squared = scale_by_temperature_squared
    given = (backbone, temperature, lr, epochs, batch_size, seed, squared or None)
    folder = _check_folder(out, resume=resume, overwrite=overwrite, given=given)
    _keep_apart(folder, teacher)
    master = _teacher(teacher, method)
    recipe = _stored(folder, DistillRecipe) if resume else None
    tau = 0.1 if temperature is None else temperature
    if tau <= 0:
        raise UserError(f"the temperature is {tau:g}; give a number above 0")
    known = master.transfer
    network = known.network if recipe else _student(known.network, backbone)
    name, images, tested = read_images(master, known.class_names, data, listener)
    if recipe is None:
        recipe = _checked(
            DistillRecipe,
            source=str(teacher),
            data=name,
            class_names=known.class_names,
            from_layer=0,  # the paper's students have no head
            view=crop_and_flip(network),
            seed=seed or 0,
            network=network,
            temperature=tau,
            scale_by_temperature_squared=squared,
            **choose_distillation(
                known.network,
                len(images),
                tau,
                scale_by_temperature_squared=squared,
                lr=lr,
                epochs=epochs,
                batch_size=batch_size,
            ),
        )
    _check_batch(recipe, images)
    folder = folder or free_run_folder(data, "distill")
    with _training_into(folder, resume=resume, overwrite=overwrite):
        log = Log(listener, folder / "log.txt")
        labelled = "none" if tested is None else f"{len(tested):,}"
        log.say(
            f"{len(images):,} images to learn from without labels, {labelled} with labels to test"
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


def _check_folder(
    out: str | Path | None, *, resume: bool, overwrite: bool, given: tuple[Any, ...]
) -> Path | None:
    """Refuse a place where something would be lost, and options that a resumed run has set."""
    refuse_processes("finetune and distill")
    folder = None if out is None else as_path(out)
    check_run_folder(folder, resume=resume, overwrite=overwrite)
    if overwrite and folder and (folder / "recipe.yaml").exists() and not is_classifier(folder):
        raise UserError(
            f"{out} is a run of another kind, which --overwrite would lose: give another --out"
        )
    if resume and out is None:
        raise UserError("--resume needs the classifier to go on with: --out runs/NAME")
    if resume and any(value is not None for value in given):
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


def _check_batch(recipe: FinetuneRecipe | DistillRecipe, images: ImageSet) -> None:
    if len(images) < recipe.batch_size:
        raise UserError(
            f"{len(images)} images of {recipe.data} are fewer than one batch of "
            f"{recipe.batch_size}: give a smaller --batch-size"
        )
    if (micro := recipe.training.micro_batch_size) is not None:
        side = recipe.view.size or recipe.network.image_size
        advice = f"give a --batch-size that is a multiple of {micro}, of at least {2 * micro}"
        network = build_network(recipe)
        check_parts(network.backbone, (3, side, side), recipe.batch_size, micro, advice=advice)


def _teacher(folder: str | Path, method: str | type[Method] | None) -> Classifier:
    if as_path(folder).is_dir() and not is_classifier(folder):
        raise UserError(
            f"{folder} is not a classifier and has no classes to teach: make one with: similitude "
            f"finetune {folder} LABELLED"
        )
    return Classifier(folder, method=method)


def _student(teacher: Recipe, backbone: str | BackboneConfig | None) -> Recipe:
    """The recipe of the teacher's network with the student's backbone."""
    config = student_backbone(backbone, teacher)
    network = teacher.changed(backbone=config)
    trial, size = build_backbone(config), network.image_size
    for side in sorted({size, crop_and_flip(network).size or size}):
        check_input(trial, config, side, size)
    return network


def _frozen(teacher: Classifier, micro_batch_size: int | None) -> Callable[[Tensor], Tensor]:
    """The teacher as a function of views that nothing trains, in its own arithmetic."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = teacher.network.to(device).requires_grad_(False)
    backbone = arithmetic_of(teacher.transfer.network).wrap(network.backbone)

    def logits(view: Tensor) -> Tensor:
        parts = view.split(micro_batch_size or len(view))
        return torch.cat([network.logits(network.head(backbone(part))) for part in parts])

    return logits
