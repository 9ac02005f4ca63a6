"""What a training is asked for: every option once, for Python and for the command line.

This module imports nothing that takes time: `similitude --help` reads it.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, Field, dataclass, field, fields, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from similitude.errors import UserError, did_you_mean
from similitude.files.writing import as_path
from similitude.listener import Listener

if TYPE_CHECKING:
    from similitude.method import Method, MethodConfig
    from similitude.nets.start import Start
    from similitude.recipes import Recipe
    from similitude.sample import NetworkConfig

    AnyMethod = str | MethodConfig | type[Method] | Method
    AnyBackbone = str | NetworkConfig
    AnyStart = str | Path | Start
    AnyRecipe = str | Path | Recipe
    ClassOfMethod = str | type[Method]
else:  # PyTorch takes seconds to import
    AnyMethod = AnyBackbone = AnyStart = AnyRecipe = ClassOfMethod = Any

LOGGER_NAMES = ("mlflow", "trackio", "wandb")

P = ParamSpec("P")
RequestT = TypeVar("RequestT")
T = TypeVar("T")


def option(
    default: Any,
    text: str,
    *,
    cli: Any = None,
    flags: Sequence[str] = (),
    metavar: str | None = None,
    least: int | None = None,
    python: str = "",
    decides: bool = False,
) -> Any:
    """A field of a request.

    Args:
        default: of Python and the command line.
        text: what it is; help on the command line.
        cli: its type on the command line; None where only Python has it.
        flags: on the command line, where they are not the name.
        metavar: what help shows for the value.
        least: the smallest number that makes sense.
        python: a further sentence for those who call it from Python.
        decides: whether a recipe holds it, so that a run that is resumed has it already.
    """
    told = {"text": text, "cli": cli, "flags": tuple(flags), "metavar": metavar, "least": least}
    return field(default=default, metadata={**told, "python": python, "decides": decides})


def argument(text: str, *, metavar: str) -> Any:
    """A field of a request that stands first, without a name, on the command line."""
    return field(metadata={"text": text, "cli": str, "metavar": metavar})


def flag_of(option: "Field[Any]") -> str:
    """What an option is called on the command line."""
    return next(iter(option.metadata["flags"]), f"--{option.name.replace('_', '-')}")


def given_options(request: Any) -> list[str]:
    """The flags of given options that a recipe holds."""
    return [
        flag_of(f)
        for f in fields(request)
        if f.metadata.get("decides") and getattr(request, f.name) != f.default
    ]


def takes(request: Callable[P, RequestT]) -> Callable[[Callable[[RequestT], T]], Callable[P, T]]:
    """Give a function of a request the request's own parameters, and a list of them in its help."""

    def decorate(do: Callable[[RequestT], T]) -> Callable[P, T]:
        @wraps(do)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            return do(request(*args, **kwargs))

        signature = inspect.signature(request)
        returned = inspect.signature(do).return_annotation
        call.__signature__ = signature.replace(return_annotation=returned)  # type: ignore[attr-defined]
        described = [
            f"        {f.name}: {f.metadata['text']} {f.metadata.get('python', '')}".rstrip()
            for f in fields(request)  # type: ignore[arg-type]
            if f.metadata
        ]
        call.__doc__ = (do.__doc__ or "").replace("{options}", "\n".join(["Args:", *described]))
        return call

    return decorate


@dataclass(frozen=True)
class PretrainRequest:
    """What :func:`similitude.pretrain` is asked for; what is None or empty is chosen."""

    data: Any = argument(
        "A folder of images, sounds or videos (flat or nested, no labels needed), an .npy, .npz or "
        ".pack file, tar or Parquet files of them or a URL of such (s3://, https://, hf://), a "
        "graph, a table (CSV, Parquet) of several sensors, or one of: fashion-mnist, cifar10, "
        "cifar100, stl10, digits.",
        metavar="DATA",
    )
    _: KW_ONLY
    method: AnyMethod | None = option(
        None,
        "A name that `similitude methods` lists, or MODULE:CLASS of your own. Default: simclr.",
        cli=str,
        python="Or a config such as BYOLConfig(ema_decay=0.99), a class, or an object of it, which "
        "is then itself trained. Whoever goes on with a recipe or a run of such a method names it "
        "too.",
    )
    backbone: AnyBackbone | None = option(
        None,
        "Any model timm knows, e.g. resnet18. Default: chosen.",
        cli=str,
        python="Or a config.",
        decides=True,
    )
    init: AnyStart | None = option(
        None,
        "Published weights to go on from: efficientnet-lite0, timm:NAME, a file or a run. Default: "
        "random weights.",
        cli=str,
        python="Or what `similitude.starts.open_start` returned.",
        decides=True,
    )
    minutes: float | None = option(
        None,
        "Of training where nothing else runs; decides network and steps. Default: 10, on a GPU 60.",
        cli=float,
        decides=True,
    )
    epochs: int | None = option(
        None, "Passes over the data, instead of --minutes.", cli=int, least=1, decides=True
    )
    batch_size: int | None = option(
        None, "Images the loss compares. Default: chosen.", cli=int, least=2, decides=True
    )
    micro_batch_size: int | None = option(
        None,
        "Images in memory at once; the loss still sees the whole batch.",
        cli=int,
        least=1,
        decides=True,
    )
    activation_checkpointing: bool = option(
        False,
        "Compute the backbone's blocks twice instead of keeping what they compute.",
        cli=bool,
        decides=True,
    )
    channels: int | None = option(
        None,
        "Of an image: 1 is gray, 4 of a PNG are RGBA, more those of the files. Default: 3, RGB.",
        cli=int,
        least=1,
        decides=True,
    )
    depth: int | None = option(
        None,
        "Bits that are kept of a pixel, 8 or 16. Default: 8.",
        cli=int,
        metavar="BITS",
        decides=True,
    )
    out: str | Path | None = option(
        None, "The run folder. Default: runs/NAME-METHOD.", cli=str, metavar="PATH"
    )
    recipe: AnyRecipe | None = option(
        None,
        "A recipe by name (cifar10.simclr) or file (runs/x/recipe.yaml).",
        cli=str,
        decides=True,
    )
    overrides: Sequence[str] = option(
        (),
        "E.g. method.temperature=0.2; repeat.",
        cli=list[str],
        flags=["--set"],
        metavar="FIELD=VALUE",
        python="Applied last.",
        decides=True,
    )
    seed: int | None = option(
        None, "Of weights, order and views. Default: 0.", cli=int, least=0, decides=True
    )
    resume: bool = option(False, "Go on with the run in --out, bit for bit.", cli=bool)
    overwrite: bool = option(False, "Replace the run in --out, if there is one.", cli=bool)
    auto_resume: bool = option(
        False,
        "Go on with the run in --out once it has a checkpoint, until then begin it: for commands "
        "that a cluster gives again.",
        cli=bool,
    )
    profile: bool = option(False, "Write where the time of a step goes to profile.txt.", cli=bool)
    log: Sequence[str] = option(
        (),
        "Who is to have the curves too: wandb, mlflow or trackio; repeat. TensorBoard's files are "
        "always in the run.",
        cli=list[str],
        metavar="NAME",
    )
    devices: int | None = option(
        None,
        "Processes that share the work, e.g. one for each GPU. Default: 1.",
        cli=int,
        least=1,
        python='A script that asks for several needs `if __name__ == "__main__":`.',
    )
    shard: bool = option(
        False,
        "Each process keeps a part of the backbone, its gradients and optimizer state (FSDP).",
        cli=bool,
    )
    num_nodes: int = option(1, "Machines; run the same command on each.", cli=int, least=1)
    stop_collapsed: bool = option(
        False, "End the run where two measurements in a row tell of a collapse."
    )
    report: bool = option(True, "Write report.html at the end, a few seconds of work.")
    listener: Listener | None = option(None, "Hears the choices and the progress.")

    def __post_init__(self) -> None:
        for name in ("overrides", "log"):
            given = getattr(self, name)
            object.__setattr__(self, name, (given,) if isinstance(given, str) else tuple(given))

    @property
    def place(self) -> Path | None:
        """The run folder, if it is given."""
        return None if self.out is None else as_path(self.out)

    @property
    def modes(self) -> dict[str, bool]:
        """What may happen to a run that is there."""
        return {"resume": self.resume, "overwrite": self.overwrite}

    def settled(self, is_saved: Callable[[Path], bool]) -> "PretrainRequest":
        """With --resume or --overwrite as --auto-resume means here, where it is given.

        Args:
            is_saved: whether there is a run in a folder to go on with.

        Raises:
            UserError: it contradicts other options.
        """
        if not self.auto_resume:
            return self
        if self.place is None:
            raise UserError("--auto-resume needs the place of the run: --out runs/NAME")
        if self.resume or self.overwrite:
            raise UserError("--auto-resume decides this: leave out --resume and --overwrite")
        saved = is_saved(self.place)
        return replace(self, resume=saved, overwrite=not saved)

    @property
    def settings(self) -> tuple[str, ...]:
        """What --set gives, and options that are the same in fewer letters."""
        return (*(f"{name}={number}" for name, number in self.form.items()), *self.overrides)

    @property
    def form(self) -> dict[str, int]:
        """What is given of how images are kept."""
        form = {"channels": self.channels, "depth": self.depth}
        return {name: number for name, number in form.items() if number is not None}

    @property
    def overridden(self) -> set[str]:
        """The fields that --set gives."""
        paths = (assignment.partition("=")[0].strip() for assignment in self.settings)
        return {path.removeprefix("data.") for path in paths}

    def check(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            UserError: says what.
        """
        if self.minutes is not None and self.epochs is not None:
            raise UserError("--minutes and --epochs both say how long to train: give one of them")
        if self.minutes is not None and "epochs" in self.overridden:
            raise UserError(
                "--minutes and --set epochs both say how long to train: give one of them"
            )
        if self.minutes is not None and not 0 < self.minutes < float("inf"):
            raise UserError(f"--minutes {self.minutes:g}: give a number above 0")
        for name in self.log:
            if name not in LOGGER_NAMES:
                raise UserError(f"unknown logger {name!r}: {did_you_mean(name, LOGGER_NAMES)}")
        if not self.resume or self.auto_resume:
            return
        if self.out is None:
            raise UserError("--resume needs the run to go on with: --out runs/NAME")
        # the name of a method allows it to be imported, and says nothing else
        named = self.method is None or isinstance(self.method, str | type)
        if not named or given_options(self):
            names = ["--method", *(flag_of(f) for f in fields(self) if f.metadata.get("decides"))]
            raise UserError(
                "--resume goes on with the run's own recipe: leave out "
                f"{', '.join(names[:-1])} and {names[-1]}"
            )


_RESUME_STAGE = "Go on with that in --out, bit for bit."
_OVERWRITE_STAGE = "Replace the classifier in --out, if there is one."
_OWN = "MODULE:CLASS of your own, if the run was trained with it: it is imported."


@dataclass(frozen=True)
class FinetuneRequest:
    """What :func:`similitude.finetune` is asked for; what is None is chosen."""

    run: str | Path = argument("A run folder, e.g. runs/photos.", metavar="RUN")
    data: Any = argument(
        "Labeled images: a folder with one subfolder for each class, an .npz file, or one of: "
        "fashion-mnist, cifar10, cifar100, stl10, digits.",
        metavar="DATA",
    )
    _: KW_ONLY
    method: ClassOfMethod | None = option(None, _OWN, cli=str, python="Or the class.")
    labels: str | Path | None = option(
        None,
        "CSV with rows FILE,LABEL; default: names of the class subfolders.",
        cli=str,
        metavar="PATH",
    )
    label_fraction: float | None = option(
        None,
        "Of the labels, as many of each class, e.g. 0.01. Default: 1.",
        cli=float,
        decides=True,
    )
    from_layer: int | None = option(
        None,
        "Layers of the projector to keep; 0: backbone alone. Default: 1.",
        cli=int,
        decides=True,
    )
    from_scratch: bool = option(
        False,
        "Also train the network from random weights.",
        cli=bool,
        python="In the subfolder from_scratch: the supervised baseline.",
    )
    optimizer: str | None = option(
        None, "sgd, lars or adamw. Default: chosen.", cli=str, decides=True
    )
    lr: float | None = option(None, "Peak learning rate. Default: chosen.", cli=float, decides=True)
    epochs: int | None = option(
        None, "Passes over the labeled samples. Default: chosen.", cli=int, least=1, decides=True
    )
    batch_size: int | None = option(
        None, "Images in a step. Default: chosen.", cli=int, least=2, decides=True
    )
    seed: int | None = option(
        None, "Of the labels drawn, order and views. Default: 0.", cli=int, least=0, decides=True
    )
    out: str | Path | None = option(
        None, "The classifier's folder. Default: runs/NAME-finetune.", cli=str, metavar="PATH"
    )
    resume: bool = option(False, _RESUME_STAGE, cli=bool)
    overwrite: bool = option(False, _OVERWRITE_STAGE, cli=bool)
    listener: Listener | None = option(None, "Hears the choices and the progress.")


@dataclass(frozen=True)
class DistillRequest:
    """What :func:`similitude.distill` is asked for; what is None is chosen."""

    teacher: str | Path = argument("A classifier, made by finetune or distill.", metavar="TEACHER")
    data: Any = argument(
        "Images, better many, labels are not needed: a folder, an .npy, .npz or .pack file, or one "
        "of: fashion-mnist, cifar10, cifar100, stl10, digits.",
        metavar="DATA",
    )
    _: KW_ONLY
    method: ClassOfMethod | None = option(None, _OWN, cli=str, python="Or the class.")
    backbone: AnyBackbone | None = option(
        None, "The student's, any model timm knows. Default: the teacher's.", cli=str, decides=True
    )
    temperature: float | None = option(
        None, "Of the logits of both. Default: 0.1.", cli=float, decides=True
    )
    scale_by_temperature_squared: bool = option(
        False, "As the authors' notebook does, and the paper does not.", cli=bool, decides=True
    )
    lr: float | None = option(None, "Peak learning rate. Default: chosen.", cli=float, decides=True)
    epochs: int | None = option(
        None,
        "Passes over the images. Default: those of the pretraining.",
        cli=int,
        least=1,
        decides=True,
    )
    batch_size: int | None = option(
        None, "Images in a step. Default: that of the pretraining.", cli=int, least=2, decides=True
    )
    seed: int | None = option(
        None, "Of weights, order and views. Default: 0.", cli=int, least=0, decides=True
    )
    out: str | Path | None = option(
        None, "The student's folder. Default: runs/NAME-distill.", cli=str, metavar="PATH"
    )
    resume: bool = option(False, _RESUME_STAGE, cli=bool)
    overwrite: bool = option(False, _OVERWRITE_STAGE, cli=bool)
    listener: Listener | None = option(None, "Hears the choices and the progress.")
