"""The command line: parses, calls, prints; nothing else."""

import sys
from typing import Annotated, Any

import typer

from similitude import __version__
from similitude.cli.arguments import Data, Devices, Labels, OwnMethod, RunFolder
from similitude.cli.embeddings import choose, duplicates, embed, outliers, search
from similitude.cli.experiments import ablate, decide, evolve
from similitude.cli.from_requests import with_options
from similitude.errors import UserError, visible
from similitude.training.request import DistillRequest, FinetuneRequest, PretrainRequest

app = typer.Typer(
    name="similitude",
    help="Learn representations from unlabeled data by comparing views of the same thing.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool | None) -> None:
    if wanted:
        typer.echo(f"similitude {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool | None,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = None,
) -> None:
    pass


@app.command()
@with_options(PretrainRequest)
def pretrain(**options: Any) -> None:
    """Train a backbone on data without labels; what is not given is chosen and explained."""
    from similitude import api
    from similitude.cli.console import Console

    with Console() as console:
        run = api.pretrain(**options, listener=console)
    if run is None:
        raise typer.Exit(130)  # stopped by Ctrl-C; the console has said how to go on


@app.command()
def evaluate(
    run: RunFolder,
    data: Data,
    protocol: Annotated[
        str | None, typer.Option(help="Any of knn, linear, few, separated by commas. Default: all.")
    ] = None,
    labels: Labels = None,
    method: OwnMethod = None,
    group: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN|LEVEL",
            help="What belongs together and stays on one side: a column of --labels, or the level "
            "of a folder, 1 the first (that of the classes).",
        ),
    ] = None,
    draws: Annotated[int, typer.Option(min=1, help="Random draws of the few labels.")] = 10,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Published weights to score beside it: efficientnet-lite0, timm:NAME, a file or "
            "a run; repeat.",
        ),
    ] = None,
    devices: Devices = None,
) -> None:
    """Score the backbone beside raw pixels, random and published weights; write the report."""
    from similitude.api import load
    from similitude.cli.console import Console
    from similitude.transfer import is_classifier

    console = Console()
    trained = load(run, method=method)
    with console:
        table = trained.evaluate(
            data,
            protocols=protocol,
            labels=labels,
            group=group,
            draws=draws,
            against=against or (),
            devices=devices,
            listener=console,
        )
    if console.speaks:
        console.print(table.render())
        if not is_classifier(run):
            console.print(f"report: {trained.report()}")


@app.command()
def retrieve(
    run: RunFolder,
    data: Data,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help="A description of a class with {} for its name, for zero-shot classification: "
            "'a photo of a {}.'; repeat.",
        ),
    ] = None,
) -> None:
    """Find photos by texts, or entries of other sensors by each other; write the report."""
    from similitude.api import load
    from similitude.cli.console import Console

    console, trained = Console(), load(run)
    with console:
        table = trained.retrieve(data, prompts=prompt or (), listener=console)
    console.print(table.render())
    console.print(f"report: {trained.report()}")


@app.command()
@with_options(FinetuneRequest)
def finetune(**options: Any) -> None:
    """Make a classifier of a run: train backbone, head and logits on labeled samples."""
    from similitude.cli.console import Console
    from similitude.transfer import finetune

    with Console() as console:
        classifier = finetune(**options, listener=console)
    if classifier is None:
        raise typer.Exit(130)


@app.command()
@with_options(DistillRequest)
def distill(**options: Any) -> None:
    """Train a student on what a classifier says of images; labels are not needed."""
    from similitude.cli.console import Console
    from similitude.transfer import distill

    with Console() as console:
        student = distill(**options, listener=console)
    if student is None:
        raise typer.Exit(130)


@app.command()
def pack(
    photos: Annotated[str, typer.Argument(metavar="PHOTOS", help="As for pretrain.")],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="A .pack file to write. Default: NAME.pack, here.",
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(min=1, help="Side in pixels of what is kept. Default: that of the images."),
    ] = None,
    channels: Annotated[
        int | None, typer.Option(min=1, help="That are kept of an image, as for pretrain.")
    ] = None,
    depth: Annotated[
        int | None, typer.Option(metavar="BITS", help="That are kept of a pixel, 8 or 16.")
    ] = None,
) -> None:
    """Decode all images once, into one file that pretrain, evaluate and embed read at once."""
    from similitude import api
    from similitude.cli.console import Console

    with Console() as console:
        form = {"channels": channels, "depth": depth}
        path = api.pack(photos, output, size=size, listener=console, **form)
    console.print(f"packed: {path}")


@app.command()
def report(
    runs: Annotated[list[str], typer.Argument(metavar="RUN [RUN ...]", help="Run folders.")],
    out: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="PATH", help="The page. Default: report.html in the run."
        ),
    ] = None,
) -> None:
    """Write one HTML page that shows whether learning worked; two runs give a comparison."""
    from similitude.report import write_report

    typer.echo(visible(f"report: {write_report(runs, out)}"))


for command in (embed, search, duplicates, outliers, choose, ablate, decide, evolve):
    app.command()(command)


@app.command()
def methods() -> None:
    """Compare the methods by what they are made of, as measured on the running method."""
    import re

    from rich import box
    from rich.console import Console as RichConsole
    from rich.table import Table

    from similitude.methods import anatomy

    table = Table(
        title="Measured on each method with its default settings",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=0,  # 80 columns are enough for it
    )
    table.add_column("method", no_wrap=True)
    for name in anatomy.column_names():
        narrow = re.sub(r"(projec|symme|predic|nega)(?=t)", r"\1-\n", name)
        table.add_column(narrow, justify="center")
    for name, found in anatomy.table().items():
        table.add_row(name, *("yes" if value else "-" for value in vars(found).values()))
    RichConsole().print(table)


@app.command()
def views(
    data: Data,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="PATH", help="The picture, a .png file.")
    ],
    method: Annotated[
        str | None,
        typer.Option(help="Whose views: a name, or MODULE:CLASS of your own. Default: simclr."),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="A recipe by name or file, instead of a choice from the images."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="E.g. method.view.blur=0.5; repeat."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the views.")] = 0,
) -> None:
    """Draw a contact sheet: some images and the views a method makes of them."""
    from similitude import api

    api.draw_views(data, output, method=method, recipe=recipe, overrides=settings or (), seed=seed)
    typer.echo(visible(f"views: {output}"))


@app.command()
def export(
    run: RunFolder,
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="The weights, a .safetensors file; of other formats a new folder.",
        ),
    ],
    to: Annotated[
        str,
        typer.Option(
            metavar="FORMAT",
            help="safetensors; of images also timm, torchvision, huggingface, onnx, torch-export.",
        ),
    ] = "safetensors",
    images: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Images on which the other formats are compared with the run. Default: those it "
            "keeps for its report.",
        ),
    ] = None,
    method: OwnMethod = None,
) -> None:
    """Write the backbone for use elsewhere, and print Python that loads and feeds it."""
    from similitude.api import load

    snippet = load(run, method=method).export(output, to=to, images=images)
    typer.echo(f"{visible(f'# written: {output}')}\n{snippet}")


def main() -> None:
    """Entry point: one clear sentence and exit code 2 for whatever the user can mend."""
    try:
        app()
    except UserError as error:
        from similitude.distributed import is_first_of_machine

        if is_first_of_machine():  # the others would repeat it
            print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
