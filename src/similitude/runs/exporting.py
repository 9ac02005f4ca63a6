"""A run's backbone in a format of others: written, loaded in a process of its own, compared."""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from similitude.errors import UserError, did_you_mean
from similitude.files.writing import as_path, check_writable, new_folder, replacing
from similitude.modalities import modality
from similitude.nets.export import Export, Exported
from similitude.report.read import read_embedding
from similitude.runs.card import model_card
from similitude.runs.checkpoint import export_backbone, kept_alone
from similitude.runs.run import Run

DEFAULT = "safetensors"
TOLERANCE = 1e-4  # of features up to 1 in size, and of larger ones relative to them
FEATURES_ONLY = (
    "These are its features alone: its classes go with onnx and torch-export, and "
    "sim.load(RUN).predict(DATA) gives them."
)
LOW_COSINE = 0.99  # below it, neighbors found by one kind of features are not those of the other
NUM_COMPARED = 8
THUMBNAIL_SIZE = 512  # pixels at most, of images that are given
# What a process that has never seen similitude makes of some files: all at once, and one alone.
_CHECK = """
import sys

sys.modules["similitude"] = None  # whatever imports it fails
{code}

target, *files = sys.argv[1:]
inputs = prepare(files)
import numpy

found = dict(inputs=inputs)
for name in ("features", "logits"):
    if name in globals():
        output = globals()[name]
        found[name], found[name + "_alone"] = output(inputs), output(inputs[:1])
numpy.savez(target, **dict((name, numpy.asarray(array)) for name, array in found.items()))
"""
# The printed Python of weights prepares one file at a time.
_ALL_AT_ONCE = """
one = prepare


def prepare(files):
    return torch.cat([one(file) for file in files])


@torch.inference_mode()
def features(inputs):
    return backbone(inputs)
"""


def export_run(run: Run, path: str | Path, to: str, images: object) -> str:
    """What :meth:`Run.export` does."""
    to, model = to.lower(), exported(run)
    formats = modality(model.data.kind).exports
    if to != DEFAULT and to not in formats:
        known = [DEFAULT, *formats]
        noun = modality(model.data.kind).noun
        raise UserError(f"no export of {noun} to {to!r}: {did_you_mean(to, known)}")
    if to != DEFAULT:
        return _write_format(run, model, as_path(path), formats[to], images)
    if images is not None and not formats:
        raise UserError("only networks of images are compared on images: leave --images out")
    return _write_weights(run, model, as_path(path), images, is_compared=bool(formats))


def _write_weights(
    run: Run, model: Exported, target: Path, images: object, *, is_compared: bool
) -> str:
    if target.suffix != ".safetensors":
        raise UserError(
            f"cannot export to {target}: the name must end in .safetensors, and other formats are "
            "asked for by --to"
        )
    check_writable(target)
    told: list[str] = []
    with replacing(target) as weights, tempfile.TemporaryDirectory() as place:
        export_backbone(model.backbone.state_dict(), weights)
        if is_compared and not model.is_wrapped:
            if images is None and not _keeps_pictures(run):
                told = ["Not compared: the run keeps no images, and --images PHOTOS gives some."]
            else:
                code = f"{_loading(run, model, weights)}\n{_ALL_AT_ONCE}"
                files = _write_files(run, images, Path(place))
                told = _compared(run, DEFAULT, model.backbone, code, files)
    if run.class_names:
        told.append(FEATURES_ONLY)
    return "\n".join([*(f"# {sentence}" for sentence in told), _loading(run, model, target)])


def _loading(run: Run, model: Exported, weights: Path) -> str:
    """Python that loads the weights."""
    if model.is_wrapped:
        return (
            "import similitude as sim\n\n"
            f"# {run.recipe.method.name} keeps more than one timm network for whole images\n"
            f"backbone = sim.load({str(run.path)!r}).backbone\n"
            f"{model.network.preparing_snippet(model.data, model.facts)}"
        )
    return model.network.loading_snippet(str(weights), model.data, model.facts)


def _write_format(run: Run, model: Exported, target: Path, form: Export, images: object) -> str:
    if (why := form.unfit(model)) is not None:
        raise UserError(
            f"cannot export {run.path} to {form.name}: {why}; onnx, torch-export and safetensors "
            "take every network"
        )
    if missing := [package for package in form.needs if find_spec(package) is None]:
        raise UserError(
            f"export to {form.name} needs {' and '.join(missing)}: "
            f"pip install 'similitude[{form.extra}]'"
        )
    with new_folder(target) as folder, tempfile.TemporaryDirectory() as place:
        form.write(model, folder)
        files = _write_files(run, images, Path(place))
        code = form.snippet(model, str(folder))
        told = _compared(run, form.name, form.reference(model), code, files)
        if run.class_names and not form.holds_classes:
            told.append(FEATURES_ONLY)
        use = "\n".join([form.snippet(model, target.name), *_use(model, form)])
        card = model_card(run, form.library, use, told)
        (folder / "README.md").write_text(card, encoding="utf-8")
    code = form.snippet(model, str(target))
    return "\n".join([*(f"# {sentence}" for sentence in told), code, *_use(model, form)])


def _use(model: Exported, form: Export) -> list[str]:
    """How what a snippet defines is called."""
    use = ["", "", '# features(prepare(["photo.jpg"]))']
    if model.class_names and form.holds_classes:
        use.append('# CLASSES[logits(prepare(["photo.jpg"]))[0].argmax()]')
    return use


def exported(run: Run) -> Exported:
    """The network that is used after the training, and what is known of its input."""
    (network, data, facts, _), weights = kept_alone(run.recipe, run.kept_weights)
    with torch.random.fork_rng(devices=[]):
        alone = network.build()
    if is_wrapped := weights.keys() != alone.state_dict().keys():
        alone = run.backbone.cpu()
    else:
        alone.load_state_dict(weights)
    classes = run.classifying, run.class_names
    return Exported(alone.eval(), network, data, facts, is_wrapped, *classes)


def _write_files(run: Run, images: object, place: Path) -> list[Path]:
    """Some real images as files: those that are given, or the pictures that the run keeps."""
    folder = place / "images"
    folder.mkdir()
    if images is None:
        kept = read_embedding(run.path / "embedding.npz")
        if kept is None or not run.recipe.data.are_pictures:
            raise UserError(
                f"{run.path} keeps no images to compare with: give some, --images PHOTOS"
            )
        pictures = kept.thumbnails[:NUM_COMPARED]
    else:
        data = run.recipe.data
        source = run.modality.open_all(images, data)[0]
        some = run.modality.load_some(source, range(min(NUM_COMPARED, len(source))), data)
        if not data.are_pictures:
            return run.modality.as_files(some, data, folder)
        pictures = some.thumbnails(THUMBNAIL_SIZE)
    files = [folder / f"{number}.jpg" for number in range(len(pictures))]
    for file, picture in zip(files, pictures, strict=True):
        Image.fromarray(picture).save(file, quality=95)
    return files


def _keeps_pictures(run: Run) -> bool:
    return run.recipe.data.are_pictures and (run.path / "embedding.npz").exists()


def _compared(
    run: Run, to: str, reference: nn.Module, code: str, files: Sequence[Path]
) -> list[str]:
    """Sentences on how far the exported features are from the run's.

    Raises:
        UserError: the files cannot be loaded, or give other features.
    """
    found = _elsewhere(to, code, files)
    arrays = {name: torch.from_numpy(array) for name, array in found.items()}
    with torch.inference_mode():
        ours = reference(arrays["inputs"])
    told = []
    outputs = [ours] if isinstance(ours, Tensor) else ours
    for what, mine in zip(("features", "logits"), outputs, strict=False):
        together, alone = arrays[what], arrays[f"{what}_alone"]
        if together.shape != mine.shape or alone.shape != mine[:1].shape:
            raise UserError(
                f"the export to {to} gives {list(together.shape)} of {len(files)} images and "
                f"{list(alone.shape)} of one, and the run {list(mine.shape)}: nothing was written"
            )
        difference = max(float((t - mine[: len(t)]).abs().max()) for t in (together, alone))
        largest = float(mine.abs().max())
        if not difference <= TOLERANCE * max(1.0, largest):
            raise UserError(
                f"the export to {to} gives other {what} than the run, up to {difference:.1g} "
                f"of {largest:.2g}: nothing was written; report this with recipe.yaml"
            )
        told.append(
            f"Largest difference to the run's {what} of the same input: {difference:.1e}, of "
            f"numbers up to {largest:.2g}."
        )
    embedded = run.embed(str(files[0].parent)).x
    cosine = float(F.cosine_similarity(arrays["features"], embedded).min())
    kind = "JPEG" if files[0].suffix == ".jpg" else files[0].suffix
    told = [
        f"Loaded without similitude and compared on {len(files)} {kind} files, together and one "
        "alone.",
        *told,
        f"Lowest cosine with `embed` of the same files, which has its own decoding: {cosine:.5f}.",
    ]
    if cosine < LOW_COSINE:
        told.append(
            "This network is sensitive to how images are resized: onnx, torch-export and "
            "torchvision do it as `embed` does."
        )
    return told


def _elsewhere(to: str, code: str, files: Sequence[Path]) -> dict[str, Any]:
    """What another process makes of the files with this code alone."""
    place = files[0].parent.parent
    target, script = place / "found.npz", place / "check.py"
    script.write_text(_CHECK.format(code=code), encoding="utf-8")
    command = [sys.executable, str(script), str(target), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UserError(f"the export to {to} cannot be loaded, nothing was written: {last}")
    with np.load(target) as found:
        return dict(found)
