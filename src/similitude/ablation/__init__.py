"""Ablations: one run with some settings varied, over several seeds, as one table and one page."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from similitude.ablation.design import Design
from similitude.ablation.findings import Ablation, CellFinding, RunFinding, values_by_cell
from similitude.ablation.grid import folder_name, parse_variations
from similitude.ablation.studies import STUDIES
from similitude.ablation.study import Study, judge
from similitude.ablation.work import Work
from similitude.distributed.launch import refuse_processes
from similitude.errors import UserError, did_you_mean
from similitude.experiment import FAILED, load, open_parts, read_plan, scorable, some, write_plan
from similitude.files.writing import as_path, check_writable
from similitude.listener import Listener, Silent
from similitude.method import MethodConfig
from similitude.methods import given_method
from similitude.modalities import chooser
from similitude.recipes import Recipe, touched_fields
from similitude.recipes.choose import set_num_samples
from similitude.report.ablation import write_ablation_page
from similitude.runs.folder import holding
from similitude.training.choose import kind_for, opened_with
from similitude.training.request import PretrainRequest

__all__ = ["Ablation", "ablate"]

SEEDS = 3
TEST_IMAGES = 5_000  # of a study: two standard errors of an accuracy are 1.4 points


def ablate(
    method: str | MethodConfig | None = None,
    data: Any = None,
    *,
    vary: Sequence[str] | Mapping[str, Sequence[Any]] = (),
    study: str | None = None,
    seeds: int | None = None,
    epochs: int | None = None,
    images: int | None = None,
    recipe: str | Path | Recipe | None = None,
    overrides: Sequence[str] = (),
    out: str | Path | None = None,
    listener: Listener | None = None,
) -> Ablation | None:
    """Train every combination of some settings over several seeds, score all, compare them.

    Every run is a folder as :func:`similitude.pretrain` makes it; one that collapses or diverges
    is stopped early. Where images have labels, each is scored by kNN and a linear probe on the
    test part, or on a fifth held out. The same call goes on where the last one was stopped:
    finished runs are read, an unfinished one is resumed bit for bit.

    Args:
        method: a name, or a config; not with ``study``.
        data: whatever :func:`similitude.pretrain` takes. A study does without: it then takes
            "cifar10" if that is here or can be downloaded, else "digits".
        vary: ``["stop_gradient=true,false"]`` or ``{"stop_gradient": [True, False]}``; the cells
            are all combinations. A field is a path as in ``overrides``, or one of the method.
        study: one of :data:`similitude.ablation.studies.STUDIES` by name, instead of a grid.
        seeds: runs of each cell, with the seeds 0, 1, ...; 3, or the study's own number.
        epochs: as in :func:`similitude.pretrain`; the same for all cells.
        images: training images at most, drawn once; all, or the study's own number.
        recipe: as in :func:`similitude.pretrain`; what all cells start from.
        overrides: as in :func:`similitude.pretrain`; for all cells.
        out: the folder of the ablation; ``ablations/NAME``.
        listener: hears how it goes.

    Returns:
        What was found, or None if Ctrl-C stopped it. ``ablation.json``, ``ablation.csv`` and
        ``ablation.html`` in the folder hold it too. A run that fails is told, and the others go on.

    Raises:
        UserError: anything the caller can mend, in one sentence.
    """
    listener = listener or Silent()
    refuse_processes("ablate")
    if method is not None:
        given_method(method if isinstance(method, str) else method.name)
    for name, number in (("seed", seeds), ("epoch", epochs), ("image", images)):
        if number is not None and number < 1:
            raise UserError(f"an ablation needs at least one {name}, not {number}")
    if any(text.partition("=")[0].strip() == "seed" for text in overrides):
        raise UserError("--set seed is not possible: an ablation runs the seeds 0, 1, ...")
    design = Design(
        study,
        None if study is None else find_study(study),
        method,
        parse_variations(vary),
        recipe,
        tuple(overrides),
        epochs,
        images,
        kind_for(method, data, recipe),
    )
    design.check(data)
    try:
        with ExitStack() as held:
            return _carry_out(design, data, seeds, out, listener, held)
    except (KeyboardInterrupt, SystemExit) as ended:
        listener.say("stopped; the same command goes on with what is not finished")
        if isinstance(ended, SystemExit):
            raise
        return None


def _carry_out(
    design: Design,
    data: Any,
    seeds: int | None,
    out: str | Path | None,
    listener: Listener,
    held: ExitStack,
) -> Ablation | None:
    source, test_source = _open(design, data, listener)
    if out is None:
        of = Path(str(data)).stem if isinstance(data, str | Path) else "images"
        parts = [design.name] if design.name else [of, design.label, *design.fields]
        out = Path("ablations") / folder_name("-".join(parts))
    folder, count = as_path(out), design.images_of(source)
    check_writable(folder, "ablation.json")
    stored = read_plan(folder, "ablation", design.request())
    bases = design.bases(source, count) if stored is None else stored[1]
    config = design.data(bases)
    images = some(load(design.modality, source, config, listener), count)
    if stored is None:
        bases = {name: set_num_samples(base, len(images)) for name, base in bases.items()}
        if design.study is None and design.recipe is None:
            given = touched_fields(design.overrides)
            bases[""] = chooser(design.modality.kind).fit(
                bases[""], images, given, pixels=True, views=False
            )
    elif stored[0] != images.fingerprint():
        raise UserError(f"{folder} holds an ablation on other images: give another --out")
    cells = design.cells(bases, source, len(images))
    if stored is None:
        write_plan(folder, "ablation", design.request(), images, bases)
    held.enter_context(holding(folder))
    test = None
    if test_source is not None and scorable(images):
        test = load(design.modality, test_source, config, listener)
        test = test if design.study is None else some(test, TEST_IMAGES)
    seeds = seeds or (SEEDS if design.study is None else design.study.seeds)
    listener.say(
        f"{len(cells)} cells x {seeds} {'seed' if seeds == 1 else 'seeds'} on {len(images):,} "
        f"images in {source.name}, in {folder}"
    )
    study = design.study
    work = Work(
        folder,
        images,
        test,
        source.name,
        listener,
        len(cells) * seeds,
        label_fraction=study.label_fraction if study else 0.0,
        from_layer=study.from_layer if study else 0,
    )
    work.check(cells, seeds)
    found: dict[str, list[RunFinding]] = {cell.name: [] for cell in cells}
    for seed in range(seeds):  # the first seed of all cells is a table already
        for cell in cells:
            try:
                run = work.finding(cell, seed)
            except Exception as error:  # whatever it is, it says nothing of the other runs
                run = work.failure(cell, seed, error)
            if run is None:
                listener.say("the same command goes on with what is not finished")
                return None
            found[cell.name].append(run)
    if all(run.state == FAILED for runs in found.values() for run in runs):
        raise UserError(f"every run failed; {work.failures[0]}")
    findings = [CellFinding(cell.name, cell.settings, found[cell.name]) for cell in cells]
    values = values_by_cell(findings)
    result = Ablation(
        folder,
        study.title if study else f"{design.label}: {' x '.join(design.fields)}",
        study.question if study else "",
        design.fields,
        work.notes(),
        next(iter(work.baselines.values()), {}),
        findings,
        [judge(expectation, values) for expectation in (study.expected if study else ())],
    )
    result.write()
    write_ablation_page(folder)
    return result


def _open(design: Design, data: Any, listener: Listener) -> tuple[Any, Any]:
    """Training images, and test images where there are some."""
    if data is None:
        try:
            design.modality.open_training("cifar10", None)
            data = "cifar10"
        except UserError as error:
            listener.say(f"no DATA was given, and {error}; taking digits, which are too easy")
            data = "digits"
        else:
            listener.say("no DATA was given: taking cifar10")
    asked = PretrainRequest(None, overrides=design.overrides)
    return open_parts(design.modality, data, opened_with(asked, chooser(design.modality.kind)))


def find_study(name: str) -> Study:
    """The study of this name.

    Raises:
        UserError: there is none.
    """
    if name not in STUDIES:
        raise UserError(f"unknown study {name!r}: {did_you_mean(name, STUDIES)}")
    return STUDIES[name]
