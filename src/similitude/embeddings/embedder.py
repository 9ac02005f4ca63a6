"""What makes embeddings: a backbone, and samples as it wants them, some at a time.

N samples, D numbers of an embedding.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from similitude.data.files import Wanted
from similitude.data.folders import FolderSource
from similitude.devices import best_device
from similitude.distributed import first_then_others
from similitude.errors import UserError, told_unreadable, visible
from similitude.evaluation import Features, extract_features
from similitude.files.writing import as_path
from similitude.listener import Listener
from similitude.method import Method
from similitude.modalities import DEFAULT_KIND, KINDS, Modality, modality
from similitude.nets.start import Start
from similitude.nets.weights import fingerprint_of
from similitude.runs.run import Run
from similitude.runs.starts import open_start
from similitude.sample import DataConfig, Facts, Samples

BLOCK = 1024  # samples that are loaded together

Model = str | Path | Run | Start  # what a user names to embed with


@dataclass(frozen=True, eq=False)
class Embedder:
    """A backbone in evaluation mode, and what is known of the samples it takes.

    Attributes:
        backbone: Gives the embeddings [N, D].
        modality: The kind of data.
        start: Published weights, which want samples of their own size; None for a run.
        facts: Of a run's samples.
        config: How a run's samples are loaded.
        told: Sentences on what was loaded.
    """

    backbone: nn.Module
    modality: Modality
    start: Start | None = None
    facts: Facts | None = None
    config: DataConfig | None = None
    told: list[str] = field(default_factory=list)

    def wants(self, source: Any) -> tuple[Any, Any]:
        """Facts and config of the samples of a source."""
        if self.start is None:
            return self.facts, self.config
        return self.modality.for_start(self.start, source)


def open_embedder(
    model: Model,
    *,
    method: str | type[Method] | None = None,
    backbone: str | None = None,
    kind: str = DEFAULT_KIND,
) -> Embedder:
    """What embeds.

    Args:
        model: a run or its folder; or published weights: a file of them (an exported one too),
            "timm:NAME", "efficientnet-lite0", or what ``open_start`` gave.
        method: "module:Class" of your own, or the class, if a run was trained with it.
        backbone: the network that a file of weights is of, where its tensors do not tell.
        kind: of data, for published weights.

    Raises:
        UserError: there is no such run, and there are no such weights.
    """
    its = modality(kind)
    if isinstance(model, str | Path) and not _names_weights(model, its):
        model = Run(model, method=method)
    if isinstance(model, Run):
        run = model
        run.backbone.to(run.device)
        return Embedder(run.backbone, run.modality, facts=run.facts, config=run.recipe.data)
    if its.starts is None:
        raise UserError(
            f"there are no published weights for {its.noun}: give a run that was trained on them"
        )
    if not isinstance(model, Start):
        network = None if backbone is None else its.network_config(name=backbone)
        model = open_start(model, backbone=network, kind=kind)
    device = best_device()
    return Embedder(model.build().to(device), its, start=model, told=model.report)


def _names_weights(model: str | Path, its: Modality) -> bool:
    """Whether these are published weights, of this kind of data or another, and no run's folder."""
    kinds = [kind.starts for kind in (its, *map(modality, KINDS)) if kind.starts is not None]
    if any(str(model) in starts.NAMED for starts in kinds):
        return True
    return str(model).startswith("timm:") or as_path(model).is_file()


@dataclass(frozen=True, eq=False)
class Part:
    """Samples of one source, of which some at a time are loaded.

    Attributes:
        name: Of the source.
        names: Of all samples.
        prefix: What stands before the names, where there are two parts: ``train/``.
        facts: What the backbone's input is like.
        at_once: How many are taken together.
        load: Those at some positions, without what cannot be read.
        fingerprint: Changes when the samples do.
    """

    name: str
    names: list[str]
    prefix: str
    facts: Any  # None where samples are only looked at
    at_once: int
    load: Callable[[Sequence[int]], Samples[Any]]
    fingerprint: str

    def blocks(self) -> list[range]:
        """All positions, those together that are taken together."""
        count = len(self.names)
        return [range(i, min(count, i + self.at_once)) for i in range(0, count, self.at_once)]


def open_parts(embedder: Embedder, data: object, listener: Listener) -> list[Part]:
    """All samples of what a user named: of its training and its test part, or as one.

    Of a kind that is streamed nothing is loaded yet; others are in memory then. A file that holds
    one sample is that sample.
    """
    its = embedder.modality
    if _is_one(data, its):
        sources = [its.of_files(files_of([str(as_path(str(data)))], its), its.kind)]
    else:
        sources = first_then_others(lambda: its.open_all(data, embedder.config))
    facts, config = embedder.wants(sources[0])
    if config.told_cut:
        listener.say(str(config.told_cut))
    prefixes = ("train/", "test/") if len(sources) == 2 else ("",)
    return [
        _part(its, source, facts, config, prefix, listener)
        for source, prefix in zip(sources, prefixes, strict=True)
    ]


def _is_one(data: object, its: Modality) -> bool:
    """Whether a user named a file that holds one sample."""
    if not isinstance(data, str | Path) or not str(data).strip():
        return False
    path = as_path(data)
    return path.suffix.lower() in its.suffixes and path.is_file()


def files_of(paths: Sequence[str], its: Modality) -> FolderSource:
    """Files wherever they lie, each of which is a sample."""
    return FolderSource(
        name=paths[0] if len(paths) == 1 else "the files",
        names=[visible(path) for path in paths],
        folder=Path(),
        files=list(paths),
        base=Path(),
        wanted=Wanted(its.kind, its.suffixes),
    )


def _part(
    its: Modality, source: Any, facts: Any, config: Any, prefix: str, listener: Listener
) -> Part:
    for note in source.notes:
        listener.say(note)
    stamp = f"{source.fingerprint()} {facts} {config.model_dump_json()}"
    fingerprint = hashlib.sha256(stamp.encode()).hexdigest()
    if its.is_streamed:
        load = partial(loaded, its, source, config)
        return Part(source.name, source.names, prefix, facts, BLOCK, load, fingerprint)
    samples = its.load(
        source, config, lambda done, total: listener.progress(f"reading {source.name}", done, total)
    )
    for sentence in filter(None, [*samples.told_missing(), samples.told_unreadable(source.name)]):
        listener.say(sentence)
    at_once = len(samples) if samples.seen_together else BLOCK
    return Part(source.name, samples.names, prefix, facts, at_once, samples.subset, fingerprint)


def loaded(its: Modality, source: Any, config: Any, positions: Sequence[int]) -> Samples[Any]:
    """The samples at some positions, and no others, of a kind that is streamed."""
    return its.load_some(source, positions, config)


@dataclass(frozen=True)
class Embedded:
    """Embeddings of the samples at some positions of a part.

    Attributes:
        features: Of those that can be read.
        kept: Their positions.
        unreadable: The others, each with the reason.
    """

    features: Features
    kept: list[int]
    unreadable: list[tuple[str, str]]


def embed_some(embedder: Embedder, part: Part, positions: Sequence[int]) -> Embedded:
    """Load and embed the samples at some positions of a part."""
    samples = part.load(positions)
    if len(samples) == 0:
        return Embedded(Features(torch.empty(0, 0), None, []), [], samples.unreadable)
    features = extract_features(embedder.backbone, samples, part.facts)
    there = set(features.names)
    kept = [i for i in positions if part.names[i] in there]
    # of images others may have been looked at, in the place of those that cannot be read
    missing = {part.names[i] for i in positions} - there
    unreadable = [(name, why) for name, why in samples.unreadable if name in missing]
    return Embedded(features, kept, unreadable)


def embed_all(embedder: Embedder, data: object, listener: Listener) -> tuple[Features, list[Part]]:
    """Embeddings of all samples, in memory, and where the samples are."""
    for sentence in embedder.told:
        listener.say(f"  {sentence}")
    parts = open_parts(embedder, data, listener)
    total, done = sum(len(part.names) for part in parts), 0
    x, names = torch.empty(0, 0), []
    for part in parts:
        unreadable: list[tuple[str, str]] = []
        for positions in part.blocks():
            found = embed_some(embedder, part, positions)
            if found.kept:
                if not names:  # at once, that there is never a second copy
                    x = torch.empty(total, found.features.x.shape[1])
                x[len(names) : len(names) + len(found.kept)] = found.features.x
                names += [part.prefix + part.names[i] for i in found.kept]
            unreadable += found.unreadable
            done += len(positions)
            listener.progress("embedding", done, total)
        tell_unreadable(part, unreadable, listener)
    if not names:
        raise nothing_readable(parts)
    return Features(x[: len(names)], None, names), parts


def tell_unreadable(part: Part, unreadable: Sequence[tuple[str, str]], listener: Listener) -> None:
    """Say which files of a streamed part are left out."""
    if (told := told_unreadable(part.name, unreadable, len(part.names))) is not None:
        listener.say(told)


def nothing_readable(parts: Sequence[Part]) -> UserError:
    """The refusal where no sample is left."""
    return UserError(f"none of the files in {parts[0].name} can be read: give others")


def fingerprint_of_all(embedder: Embedder, parts: Sequence[Part]) -> str:
    """A hash of the weights and of all samples."""
    digest = hashlib.sha256(fingerprint_of(embedder.backbone.state_dict()).encode())
    for part in parts:
        digest.update(f"{part.prefix}{part.at_once}{part.fingerprint}".encode())
    return digest.hexdigest()
