"""The commands that make embeddings, and those that use them."""

from typing import Annotated, Any

import typer

from similitude.cli.arguments import Devices, OwnMethod

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A run folder, e.g. runs/photos, or published weights without any training: "
        "efficientnet-lite0, timm:NAME, a file.",
    ),
]
Embeddings = Annotated[
    str,
    typer.Argument(
        metavar="EMBEDDINGS",
        help="A .npz or .parquet file of embeddings; or, with DATA, what makes them: a run folder, "
        "efficientnet-lite0, timm:NAME, a file of weights.",
    ),
]
Data = Annotated[
    str | None, typer.Argument(metavar="DATA", help="What is embedded first; as for pretrain.")
]
Answer = Annotated[
    str,
    typer.Option(
        "--output",
        "-o",
        metavar="PATH",
        help="A .csv file to write. Where pictures are known, a page beside it ends in .html.",
    ),
]
Pictures = Annotated[
    str | None,
    typer.Option(
        metavar="DATA", help="Where the samples of a file of embeddings are, to be shown."
    ),
]
Approximate = Annotated[
    bool,
    typer.Option(
        "--approximate", help="Search a graph (usearch) in place of all pairs: for a million."
    ),
]
Backbone = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The network of a file of weights that does not tell it."),
]


def embed(
    model: Model,
    data: Annotated[str, typer.Argument(metavar="DATA", help="As for pretrain.")],
    output: Annotated[
        str,
        typer.Option("--output", "-o", metavar="PATH", help="A .npz or .parquet file to write."),
    ],
    neighbors: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="K",
            help="Nearest rows that a Parquet file lists. Default: 10 of up to 100,000.",
        ),
    ] = None,
    projection: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Of a Parquet file's map: pca, umap, none. Default: pca."
        ),
    ] = None,
    patches: Annotated[
        bool, typer.Option("--patches", help="Of every place of an image, into an .npz file.")
    ] = False,
    method: OwnMethod = None,
    backbone: Backbone = None,
    devices: Devices = None,
) -> None:
    """Write the embedding of every sample: name and vector; a stopped command goes on."""
    from similitude.cli.console import Console
    from similitude.embeddings import embed as write
    from similitude.embeddings import embed_patches

    console = Console()
    if patches:
        with console:
            shape = embed_patches(
                model, data, output, method=method, devices=devices, listener=console
            )
        if console.speaks:
            count, rows, columns, dim = shape
            of = f"{rows} x {columns} places, {dim} numbers each"
            console.print(f"{count:,} embeddings of {of}: {output}")
        return
    with console:
        count, dim = write(
            model,
            data,
            output,
            method=method,
            backbone=backbone,
            neighbors=neighbors,
            projection=projection,
            devices=devices,
            listener=console,
        )
    if console.speaks:
        console.print(f"{count:,} embeddings of {dim} numbers: {output}")


def search(
    embeddings: Embeddings,
    output: Answer,
    data: Data = None,
    query: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A sample by its name; repeat. Default: each of them."),
    ] = None,
    queries: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Other samples: with DATA what the same model embeds, else a file of embeddings.",
        ),
    ] = None,
    count: Annotated[int, typer.Option("--count", "-k", min=1, help="Nearest of each.")] = 10,
    approximate: Approximate = False,
    pictures: Pictures = None,
    method: OwnMethod = None,
    backbone: Backbone = None,
) -> None:
    """Find the samples that are most alike, by the cosine of their embeddings."""
    asked = {"query": query or (), "queries": queries, "count": count, "approximate": approximate}
    _answer("search", embeddings, data, output, pictures, method, backbone, asked)


def duplicates(
    embeddings: Embeddings,
    output: Answer,
    data: Data = None,
    threshold: Annotated[
        float, typer.Option(help="Least cosine of a pair; 1 finds equal embeddings.")
    ] = 0.98,
    approximate: Approximate = False,
    pictures: Pictures = None,
    method: OwnMethod = None,
    backbone: Backbone = None,
) -> None:
    """Find groups of samples that are nearly the same, also across training and test part."""
    asked = {"threshold": threshold, "approximate": approximate}
    _answer("duplicates", embeddings, data, output, pictures, method, backbone, asked)


def outliers(
    embeddings: Embeddings,
    output: Answer,
    data: Data = None,
    count: Annotated[int, typer.Option("--count", "-k", min=1, help="How many are listed.")] = 100,
    neighbor: Annotated[
        int, typer.Option(min=1, help="To which neighbor a sample's distance is measured.")
    ] = 10,
    approximate: Approximate = False,
    pictures: Pictures = None,
    method: OwnMethod = None,
    backbone: Backbone = None,
) -> None:
    """Find the samples that are unlike all others: those far from their neighbors."""
    asked = {"count": count, "neighbor": neighbor, "approximate": approximate}
    _answer("outliers", embeddings, data, output, pictures, method, backbone, asked)


def choose(
    embeddings: Embeddings,
    output: Answer,
    data: Data = None,
    count: Annotated[int, typer.Option("--count", "-k", min=1, help="How many are chosen.")] = 100,
    by: Annotated[
        str, typer.Option(help="typical: for the first few labels; diverse: for many.")
    ] = "typical",
    labels: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="CSV with rows FILE,LABEL: what is labeled already."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the clusters of typical.")] = 0,
    pictures: Pictures = None,
    method: OwnMethod = None,
    backbone: Backbone = None,
) -> None:
    """Choose which samples to label next."""
    asked = {"count": count, "by": by, "labels": labels, "seed": seed}
    _answer("choose", embeddings, data, output, pictures, method, backbone, asked)


def _answer(
    verb: str,
    embeddings: str,
    data: str | None,
    output: str,
    pictures: str | None,
    method: str | None,
    backbone: str | None,
    asked: dict[str, Any],
) -> None:
    """Call the function of this name, which writes and tells what it finds."""
    from similitude import embeddings as functions
    from similitude.cli.console import Console
    from similitude.distributed.launch import refuse_processes

    refuse_processes(verb)
    with Console() as console:
        getattr(functions, verb)(
            embeddings,
            data,
            output=output,
            pictures=pictures,
            method=method,
            backbone=backbone,
            listener=console,
            **asked,
        )
