"""The commands that train many runs to answer one question."""

from typing import Annotated

import typer

from similitude.cli.arguments import Data, Labels
from similitude.errors import UserError

Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="For all runs; repeat.")
]


def ablate(
    first: Annotated[
        str | None, typer.Argument(metavar="METHOD", help="Whose settings vary; not with --study.")
    ] = None,
    second: Annotated[
        str | None,
        typer.Argument(metavar="DATA", help="As for pretrain. A study does without: cifar10."),
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=A,B,C", help="E.g. stop_gradient=true,false; repeat."),
    ] = None,
    study: Annotated[
        str | None, typer.Option(help="A ready-made study, with what its papers found.")
    ] = None,
    list_studies: Annotated[bool, typer.Option("--list", help="Show the studies.")] = False,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Runs of each cell. Default: 3, or the study's.")
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Passes over the images. Default: chosen, or the study's."),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(min=2, help="Training images at most. Default: all, or the study's."),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="What all cells start from: a recipe by name or file.")
    ] = None,
    settings: Settings = None,
    out: Annotated[
        str | None, typer.Option(metavar="PATH", help="The folder. Default: ablations/NAME.")
    ] = None,
) -> None:
    """Vary settings over several seeds, score every run, and compare them in one table and page.

    The same command goes on where it was stopped.
    """
    from similitude.cli.console import Console

    console = Console()
    if list_studies:
        from similitude.ablation.findings import studies_table

        console.print(studies_table())
        return
    if study is not None and second is not None:
        raise UserError(f"a study has its own methods: give DATA alone, not {first} {second}")
    from similitude.ablation import ablate

    with console:
        found = ablate(
            None if study is not None else first,
            first if study is not None else second,
            vary=vary or (),
            study=study,
            seeds=seeds,
            epochs=epochs,
            images=images,
            recipe=recipe,
            overrides=settings or (),
            out=out,
            listener=console,
        )
    if found is None:
        raise typer.Exit(130)  # stopped by Ctrl-C; the console has said how to go on
    console.print(found.render())
    console.print(f"page: {found.path / 'ablation.html'}")
    if found.failed:
        raise UserError(f"{found.failed} runs failed, see above; the same command tries them again")


def evolve(
    data: Annotated[str, typer.Argument(metavar="DATA", help="As for pretrain.")],
    method: Annotated[str | None, typer.Option(help="Whose numbers are searched.")] = None,
    search: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD=LOW..HIGH[:log]",
            help="A number of the recipe, or a table of numbers; bounds may be left out where the "
            "field has its own; repeat. Default: what the method says.",
        ),
    ] = None,
    generations: Annotated[int, typer.Option(min=1, help="That follow each other.")] = 4,
    population: Annotated[int, typer.Option(min=4, help="Individuals of a generation.")] = 8,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Of an individual. Default: a tenth of the run's own.")
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=2, help="Samples at most. Default: all.")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="That train individuals side by side.")] = 1,
    recipe: Annotated[
        str | None, typer.Option(help="What all individuals start from: a recipe by name or file.")
    ] = None,
    settings: Settings = None,
    clusters: Annotated[int, typer.Option(min=2, help="Of the fitness.")] = 10,
    unit_length: Annotated[
        bool, typer.Option("--unit-length", help="Scale features to length 1 for the fitness.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, draws and strategy.")] = 0,
    out: Annotated[
        str | None, typer.Option(metavar="PATH", help="The folder. Default: evolutions/NAME.")
    ] = None,
) -> None:
    """Find numbers of a recipe by evolution, on a fitness that needs no label.

    Each generation trains some individuals briefly; CMA-ES makes the next one of their fitness. The
    same command goes on where it was stopped.
    """
    from similitude.cli.console import Console
    from similitude.evolution import evolve

    console = Console()
    with console:
        found = evolve(
            data,
            method=method,
            search=search or (),
            generations=generations,
            population=population,
            epochs=epochs,
            images=images,
            processes=processes,
            recipe=recipe,
            overrides=settings or (),
            seed=seed,
            clusters=clusters,
            unit_length=unit_length,
            out=out,
            listener=console,
        )
    if found is None:
        raise typer.Exit(130)  # stopped by Ctrl-C; the console has said how to go on
    console.print(found.render())
    console.print(f"page: {found.path / 'evolution.html'}")


def decide(
    data: Data,
    labeled: Annotated[
        str | None,
        typer.Argument(metavar="LABELED", help="Labeled samples, where DATA has no labels."),
    ] = None,
    labels: Labels = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Published weights: efficientnet-lite0, timm:NAME, a file or a run; repeat. "
            "Default: efficientnet-lite0 for photos, if it is installed.",
        ),
    ] = None,
    minutes: Annotated[
        float, typer.Option(help="That all trainings may take, where nothing else runs.")
    ] = 10.0,
    group: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN|LEVEL",
            help="What belongs together and stays on one side of the test: a column of --labels, "
            "or the level of a folder, 1 the first (that of the classes).",
        ),
    ] = None,
    settings: Settings = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything that is drawn.")] = 0,
    out: Annotated[
        str | None, typer.Option(metavar="PATH", help="The folder. Default: decisions/NAME.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on; refuse to begin anew.")] = False,
) -> None:
    """Say which to use on your data: a published model, an adapted one, or one of your own.

    The same command goes on where it was stopped.
    """
    from similitude.cli.console import Console
    from similitude.decision import decide

    console = Console()
    with console:
        found = decide(
            data,
            labeled,
            labels=labels,
            against=against or None,
            minutes=minutes,
            group=group,
            overrides=settings or (),
            seed=seed,
            out=out,
            resume=resume,
            listener=console,
        )
    if found is None:
        raise typer.Exit(130)  # stopped by Ctrl-C; the console has said how to go on
    console.print(found.render())
    console.print(f"page: {found.path / 'decision.html'}")
