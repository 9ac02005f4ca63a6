"""What several commands take."""

from typing import Annotated

import typer

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A folder of images, sounds or videos, an .npy, .npz or .pack file, tar or Parquet "
        "files of them or a URL of such (s3://, https://, hf://), a graph, a table (CSV, Parquet) "
        "of several sensors, or one of: fashion-mnist, cifar10, cifar100, stl10, digits.",
    ),
]
Devices = Annotated[
    int | None,
    typer.Option(min=1, help="Processes that share the work, e.g. one for each GPU. Default: 1."),
]
Labels = Annotated[
    str | None,
    typer.Option(
        metavar="PATH", help="CSV with rows FILE,LABEL; default: names of the class subfolders."
    ),
]
OwnMethod = Annotated[
    str | None,
    typer.Option(
        "--method", help="MODULE:CLASS of your own, if the run was trained with it: it is imported."
    ),
]
RunFolder = Annotated[str, typer.Argument(metavar="RUN", help="A run folder, e.g. runs/photos.")]
