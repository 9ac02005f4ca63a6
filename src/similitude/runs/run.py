"""A run folder: what a training left behind, and what one does with it."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from similitude.data.labels import columns_of
from similitude.devices import best_device
from similitude.distributed import first_then_others, join_processes
from similitude.distributed.launch import run_on_devices, wants_processes
from similitude.errors import UserError
from similitude.evaluation import Features, ScoreTable, check_protocols, extract_features
from similitude.evaluation.evaluate import check_names
from similitude.evaluation.verdict import Verdict
from similitude.files.reading import damaged, read_json
from similitude.files.writing import as_path, check_writable, version_of
from similitude.listener import Listener, Silent
from similitude.method import Method
from similitude.methods import given_method
from similitude.modalities import Modality, modality
from similitude.nets.start import Start
from similitude.recipes import Recipe
from similitude.runs.checkpoint import (
    Checkpoint,
    fresh_backbone,
    kept_weights,
    load_backbone,
    load_checkpoint,
    read_start,
)
from similitude.runs.folder import CHECKPOINT, refuse_links, settle
from similitude.runs.patches import LastMap, PatchFeatures
from similitude.runs.starts import opened
from similitude.sample import DataConfig


class Run:
    """A folder written by :func:`similitude.pretrain`.

    Args:
        path: the folder.
        method: "module:Class" of your own, or the class, if the run was trained with it: its name
            in the folder alone imports nothing.

    Attributes:
        path: the folder.

    Raises:
        UserError: there is no such folder, no run in it, or no such method.
    """

    def __init__(self, path: str | Path, *, method: str | type[Method] | None = None) -> None:
        self.path = as_path(path)
        self.method_name = None if method is None else given_method(method)
        settle(self.path)
        if not self.path.is_dir():
            raise UserError(f"no such run: {self.path}; make one with: similitude pretrain DATA")
        if not self.checkpoint_path.exists():
            raise UserError(
                f"{self.path} is not a run: it has no checkpoints/last.ckpt; "
                f"make one with: similitude pretrain DATA --out {self.path}"
            )

    @property
    def checkpoint_path(self) -> Path:
        """The file that holds the whole state."""
        return self.path.joinpath(*CHECKPOINT)

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The whole state, read once."""
        self._version = version_of(self.checkpoint_path)
        return load_checkpoint(self.checkpoint_path, method=self.method_name)

    @property
    def is_outdated(self) -> bool:
        """Whether a training has saved other weights since these were read."""
        return version_of(self.checkpoint_path) != self._version

    @property
    def recipe(self) -> Recipe:
        """What the run was trained with."""
        return self.checkpoint.recipe

    @property
    def pretraining(self) -> Recipe:
        """How the backbone was trained without labels."""
        return self.recipe

    @property
    def labeled_stage(self) -> str | None:
        """What came after the pretraining, in words; None if nothing did."""
        return None

    @property
    def learned_without_labels(self) -> bool:
        """Whether there was a pretraining at all."""
        return True

    @property
    def labeled_settings(self) -> dict[str, Any]:
        """How it was trained on labels; empty if it was not."""
        return {}

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of what it tells apart; none where nothing was learned from labels."""
        return ()

    @property
    def classifying(self) -> nn.Module | None:
        """What makes logits [N, C] of features [N, D]; None where there are no classes."""
        return None

    @property
    def split_seed(self) -> int:
        """Draws the images that are held out; a run and all that is made from it share it."""
        return self.recipe.seed

    @cached_property
    def backbone(self) -> nn.Module:
        """The trained backbone in evaluation mode; images [N, 3, H, W] to features [N, D]."""
        return load_backbone(self.recipe, self.kept_weights, self.path)

    @cached_property
    def start(self) -> dict[str, Tensor] | None:
        """The published weights that training started from; None if from random ones."""
        return read_start(self.path, self.recipe)

    @cached_property
    def kept_weights(self) -> dict[str, Tensor]:
        """The weights that are evaluated and exported."""
        return kept_weights(self.checkpoint, self.start)

    @property
    def modality(self) -> Modality:
        """The kind of data it was trained on."""
        return modality(self.recipe.data.kind)

    def untrained(self) -> nn.Module:
        """The backbone with its random weights, in evaluation mode."""
        state = torch.get_rng_state()
        torch.manual_seed(self.recipe.seed)
        backbone = fresh_backbone(_with_own_norms(self.recipe)).eval()
        torch.set_rng_state(state)
        return backbone

    def weight_change(self) -> float:
        """How far training turned the backbone's parameters, 0 or more.

        The norm of what it added to them beside a change of every tensor's length, which decay
        alone makes, over their norm at the start.
        """
        begun = self.start or self.untrained().state_dict()
        added = norm = 0.0
        for name, _ in self.backbone.named_parameters():
            if name in begun:
                now, before = self.checkpoint.backbone[name].double(), begun[name].double()
                length = float(before.square().sum())
                share = float((now * before).sum()) / length if length > 0 else 0.0
                added += float((now - share * before).square().sum())
                norm += length
        return (added / norm) ** 0.5 if norm > 0 else 0.0

    @property
    def facts(self) -> Any:
        """What the backbone's input is like: of images size, mean and std."""
        return self.recipe.facts

    @property
    def verdict(self) -> Verdict:
        """Whether learning worked, as judged at the end of training.

        Raises:
            UserError: training has not ended, or the file of the verdict is damaged.
        """
        path = self.path / "health.json"
        if not path.exists():
            raise UserError(f"{self.path} has no verdict yet: its training has not ended")
        try:
            return TypeAdapter(Verdict).validate_python(read_json(path))
        except ValidationError as error:
            raise damaged(path, "it is no verdict") from error

    def embed(
        self, data: object, *, devices: int | None = None, listener: Listener | None = None
    ) -> Features:
        """Embeddings of images: ``x`` [N, D] float32, ``names``, ``y`` where folders name classes.

        Args:
            data: whatever :func:`similitude.pretrain` takes. Where it has a training and a test
                part, both are embedded and names begin with ``train/`` or ``test/``.
            devices: processes on this machine that share the images.
            listener: hears how it goes, and which files cannot be read, which are left out.
        """
        if wants_processes(devices, 1):
            return self._in_processes("embed", devices, listener, data=data)
        join_processes()
        return self._extracted(self.backbone, data, listener or Silent())

    def embed_patches(
        self, data: object, *, devices: int | None = None, listener: Listener | None = None
    ) -> PatchFeatures:
        """Features of every place of images, from the last of :meth:`feature_maps`.

        All are in memory: N h w D numbers of 4 bytes.

        Args:
            data: as for :meth:`embed`.
            devices: as for :meth:`embed`.
            listener: as for :meth:`embed`.

        Raises:
            UserError: the backbone gives no maps.
        """
        if wants_processes(devices, 1):
            return self._in_processes("embed_patches", devices, listener, data=data)
        join_processes()
        last = LastMap(self.feature_maps(("out",)))
        flat = self._extracted(last, data, listener or Silent())
        places = flat.x.unflatten(1, last.shape).permute(0, 2, 3, 1).contiguous()
        return PatchFeatures(places, flat.y, flat.names)

    def feature_maps(self, names: Sequence[str] = ("0", "1", "2", "3")) -> Any:
        """The backbone for detection and segmentation: maps of several strides, by name.

        A module, images [N, 3, H, W] to {name: [N, C, h, w]}, with ``channels`` and ``strides`` of
        the maps. It is a copy, in evaluation mode.

        Args:
            names: of the maps, the coarsest last; as many are given. torchvision's detectors want
                "0" to "3", its segmenters one called "out".

        Raises:
            UserError: the backbone gives no maps, or fewer.
        """
        return self.modality.feature_maps(self.backbone, self.facts, names)

    def _extracted(self, backbone: nn.Module, data: object, heard: Listener) -> Features:
        """What a network makes of all samples of what a user gave."""
        sources = first_then_others(lambda: self.modality.open_all(data, self.recipe.data))
        parts = [
            extract_features(
                backbone,
                self.load_source(source, heard),
                self.facts,
                device=self.device,
                on_progress=lambda done, total: heard.progress("embedding", done, total),
                over_processes=True,
            )
            for source in sources
        ]
        names = parts[0].names
        if len(parts) == 2:
            train, test = parts
            names = [f"train/{n}" for n in train.names] + [f"test/{n}" for n in test.names]
        labels = [part.y for part in parts if part.y is not None]
        return Features(
            torch.cat([part.x for part in parts]),
            torch.cat(labels) if len(labels) == len(parts) else None,
            names,
        )

    def evaluate(
        self,
        data: object,
        *,
        protocols: str | Sequence[str] | None = None,
        labels: str | Path | None = None,
        group: str | None = None,
        draws: int = 10,
        against: Sequence[str | Path | Start] = (),
        devices: int | None = None,
        listener: Listener | None = None,
    ) -> ScoreTable:
        """Score the backbone beside raw pixels, random weights, its start and published weights.

        The test split of ``data`` is used where it has one; otherwise a fifth of the images, drawn
        with the seed of the pretraining, is held out. Writes evaluation.json and the images for the
        report. Scores of an earlier evaluation of the same weights and images stay where a protocol
        is not asked for now, and so do published weights; others are replaced.

        Args:
            data: labeled images: a named set, or a folder with one subfolder for each class.
            protocols: any of "knn", "linear", "few" (a linear probe on few labels); by default all.
            labels: a CSV file of ``file,label`` rows, for folders without class subfolders.
            group: what belongs together and is kept on one side: a column of ``labels``, or the
                level of a folder, 1 the first.
            draws: random draws of the few labels.
            against: published weights that get a row each, on images of their own size:
                "efficientnet-lite0", "timm:NAME", a file or a run.
            devices: processes on this machine that share the extraction of features.
            listener: hears how it goes, which files cannot be read, which are left out, and which
                scores are replaced.

        Returns:
            What is in evaluation.json then, so also the columns that stay.

        Raises:
            UserError: no labels or too few, or labels that do not match.
        """
        from similitude.evaluation.grouping import groups_of
        from similitude.runs.scoring import labeled_parts, score_run  # which scores a run

        protocols = check_protocols(protocols)  # before any image is read
        refuse_links(self.path)
        check_writable(self.path / "evaluation.json")
        if wants_processes(devices, 1):
            asked = {"protocols": protocols, "labels": labels, "group": group, "draws": draws}
            asked |= {"data": data, "against": against}
            return self._in_processes("evaluate", devices, listener, **asked)
        join_processes()
        published = first_then_others(lambda: opened(against))
        check_names([weights.name for weights in published])
        sources = first_then_others(
            lambda: labeled_parts(self.modality, data, labels, self.recipe.data)
        )
        heard = listener or Silent()
        groups = ()
        if group is not None:
            groups = [groups_of(s, group, labels) for s in sources if s is not None]
        elif labels is not None and "group" in columns_of(labels):
            heard.say(f"{labels} has a column group: --group group keeps each group on one side")
        return score_run(self, sources, published, protocols, draws, heard, groups)

    def retrieve(
        self, data: object, *, prompts: Sequence[str] = (), listener: Listener | None = None
    ) -> Any:
        """Find entries of one sensor by those of another, and classes by their descriptions.

        Recall among the first 1, 5 and 10 and the median rank, in every direction, beside the same
        networks with random weights; on the test part, where the data has one. Writes
        retrieval.json, and some questions with what was found for the report.

        Args:
            data: a table, as for :func:`similitude.pretrain`.
            prompts: descriptions of a class with ``{}`` for its name ("a photo of a {}."), whose
                mean stands for the class: zero-shot classification.
            listener: hears how it goes.

        Returns:
            A :class:`similitude.evaluation.retrieval_table.RetrievalTable`.

        Raises:
            UserError: the run's method brings no sensors into one space.
        """
        from similitude.runs.retrieval import retrieve_run  # which asks a run

        refuse_links(self.path)
        check_writable(self.path / "retrieval.json")
        return retrieve_run(self, data, prompts, listener or Silent())

    def _in_processes(
        self, what: str, devices: int | None, listener: Listener | None, **arguments: Any
    ) -> Any:
        """Call the method of this name in a process for each device."""
        return run_on_devices(
            _in_a_process,
            {"kind": type(self), "run": self.path, "method": self.method_name, "what": what}
            | arguments,
            devices=devices or 1,
            listener=listener,
        )

    @property
    def device(self) -> torch.device:
        """Where features are computed: on the GPU, if there is one."""
        return best_device()

    def load_source(self, source: Any, listener: Listener) -> Any:
        """Decode samples as this run has them, and say what is left out."""
        data = self.recipe.data
        samples = self.load_as(data, source, listener)
        missing = samples.told_missing()
        told = [data.told_cut, *source.notes, *missing, samples.told_unreadable(source.name)]
        for sentence in filter(None, told):
            listener.say(str(sentence))
        return samples

    def load_as(self, config: DataConfig, source: Any, listener: Listener) -> Any:
        """Decode samples in another way, without a word on what is left out."""
        return self.modality.load(
            source,
            config,
            lambda done, total: listener.progress(f"reading {source.name}", done, total),
        )

    def export(
        self, path: str | Path, *, to: str = "safetensors", images: object | None = None
    ) -> str:
        """Write the backbone in a format in which others use it; return Python that does.

        "safetensors" is a file of weights, for timm alone, or for similitude where the method keeps
        more than one network of timm (CPC, CMC). Of images there are also "timm", "torchvision",
        "huggingface", "onnx" and "torch-export", each a new folder with a model card: it is loaded
        by another process, without similitude, and must give the features of the run within 1e-4.

        Args:
            path: a file that ends in .safetensors, or a folder that is not there or is empty.
            to: the format.
            images: some to compare on, as for :func:`similitude.pretrain`; by default those that
                the run keeps for its report.

        Raises:
            UserError: there is no such format, it does not take this network, a package is missing,
                or the export would give other features; then nothing is written.
        """
        from similitude.runs.exporting import export_run  # which compares a run

        return export_run(self, path, to, images)

    def report(self) -> Path:
        """Write report.html into the run folder; return its path."""
        from similitude.report import write_report

        return write_report([self.path])


def _in_a_process(
    *, kind: type[Run], run: Path, method: str | None, what: str, **arguments: Any
) -> Any:
    return getattr(kind(run, method=method), what)(**arguments)


def _with_own_norms(recipe: Recipe) -> Recipe:
    """The recipe with the network's own norms: random weights have no images' statistics."""
    if recipe.init is None or recipe.init.norm == "own":
        return recipe
    options = {
        k: v for k, v in getattr(recipe.backbone, "options", {}).items() if k != "norm_layer"
    }
    return recipe.changed(backbone=recipe.backbone.changed(options=options))
