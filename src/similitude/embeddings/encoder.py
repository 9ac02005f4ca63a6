"""Embeddings where the user's code is: a transformer of scikit-learn, a function for data sets.

N samples, D numbers of an embedding.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from similitude.data.source import FileSource
from similitude.data.streams import Block
from similitude.embeddings.embedder import BLOCK, Embedder, Model, files_of, open_embedder
from similitude.errors import UserError
from similitude.evaluation import extract_features
from similitude.modalities import Modality
from similitude.sample import Samples

_AS_PNG = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")  # modes of Pillow that lose nothing there


class SimilitudeEncoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Embeds files inside a pipeline of scikit-learn; nothing is trained.

        make_pipeline(SimilitudeEncoder("runs/photos"), LogisticRegression()).fit(paths, y)

    A sample is the path of a file, the bytes of one, a mapping that holds either (as data sets of
    Hugging Face have them undecoded), or a picture of Pillow. A run on images, sounds or videos
    takes files of its kind.

    Args:
        model: A run, its folder, or published weights of images: "efficientnet-lite0",
            "timm:NAME", a file of weights.
        method: "module:Class" of your own, if the run was trained with it.
        backbone: The network that a file of weights is of, where its tensors do not tell.

    Attributes:
        embedder_: The backbone, once it is opened.
        n_features_out_: D.
    """

    def __init__(
        self,
        model: Model = "efficientnet-lite0",
        *,
        method: str | None = None,
        backbone: str | None = None,
    ) -> None:
        self.model = model
        self.method = method
        self.backbone = backbone

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.no_validation = True
        return tags

    def fit(self, X: Any, y: Any = None) -> "SimilitudeEncoder":  # noqa: N803
        """Open the model, and look at the samples for what published weights want of them.

        Args:
            X: N samples.
            y: Ignored.

        Raises:
            UserError: There is no such model, no sample, or one that it does not take.
        """
        samples = _listed(X)
        self.embedder_: Embedder = open_embedder(
            self.model, method=self.method, backbone=self.backbone
        )
        self.facts_, self.config_ = self.embedder_.wants(self._source(samples))
        self.n_features_out_ = self._embedded(samples[:1]).shape[1]
        return self

    def transform(self, X: Any) -> Float[np.ndarray, "N D"]:  # noqa: N803
        """The embeddings of samples, float32, in their order; 1,024 at a time are in memory.

        Args:
            X: N samples.

        Raises:
            UserError: One of them cannot be read: a row cannot be left out here.
        """
        check_is_fitted(self)
        samples = _listed(X)
        parts = [self._embedded(samples[i : i + BLOCK]) for i in range(0, len(samples), BLOCK)]
        return np.concatenate(parts)

    @property
    def _n_features_out(self) -> int:
        return self.n_features_out_

    def _source(self, samples: Sequence[Any]) -> Any:
        its = self.embedder_.modality
        if not its.suffixes:
            raise UserError(
                f"an encoder takes one file for each sample, and {its.noun} are none: use "
                "similitude embed"
            )
        return its.of_files(_files(samples, its), its.kind)

    def _embedded(self, samples: Sequence[Any]) -> Float[np.ndarray, "M D"]:
        source = self._source(samples)
        its, everything = self.embedder_.modality, range(len(samples))
        loaded: Samples[Any] = its.load_some(source, everything, self.config_)
        if len(loaded) < len(samples):
            name, why = loaded.unreadable[0]
            raise UserError(f"{name} cannot be read ({why}): leave it out, or replace it")
        return extract_features(self.embedder_.backbone, loaded, self.facts_).x.numpy()


class ColumnEncoder:
    """Embeds a column of a data set of Hugging Face.

        dataset.map(ColumnEncoder("runs/photos", "image"), batched=True)

    Args:
        model: See :class:`SimilitudeEncoder`.
        column: Of files, of pictures, or of undecoded ones (``Image(decode=False)``), which costs
            least.
        to: The column of embeddings, a list of D floats.
        method: See :class:`SimilitudeEncoder`.
        backbone: See :class:`SimilitudeEncoder`.
    """

    def __init__(
        self,
        model: Model,
        column: str,
        *,
        to: str = "embedding",
        method: str | None = None,
        backbone: str | None = None,
    ) -> None:
        self.column = column
        self.to = to
        self.encoder = SimilitudeEncoder(model, method=method, backbone=backbone)

    def __call__(self, batch: Any) -> dict[str, Float[np.ndarray, "N D"]]:
        """The new column of a batch."""
        if self.column not in batch:
            raise UserError(f"there is no column {self.column!r}: choose from {', '.join(batch)}")
        samples = batch[self.column]
        if not hasattr(self.encoder, "embedder_"):
            self.encoder.fit(samples)
        return {self.to: self.encoder.transform(samples)}

    def __getstate__(self) -> dict[str, Any]:
        """Without the opened model: each process opens it, and a cache knows it by its name."""
        from sklearn.base import clone

        return {**vars(self), "encoder": clone(self.encoder)}


def _listed(samples: Any) -> list[Any]:
    """Samples one after the other; of a table with one column those of the column."""
    if isinstance(samples, str | Path | bytes):
        raise UserError("one sample was given: an encoder takes a list of them")
    array = np.asarray(samples, dtype=object) if hasattr(samples, "iloc") else samples
    if isinstance(array, np.ndarray) and array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if isinstance(array, np.ndarray) and (array.ndim != 1 or array.dtype.kind not in "OUS"):
        raise UserError(
            f"an encoder takes paths or pictures, not numbers of shape {list(array.shape)}"
        )
    listed = list(array)
    if not listed:
        raise UserError("no samples were given: an encoder needs at least one")
    return listed


def _files(samples: Sequence[Any], its: Modality) -> FileSource:
    """Samples as files: on disk where all are paths, else in memory."""
    given = [_path_or_bytes(i, sample) for i, sample in enumerate(samples)]
    paths = [value for value in given if isinstance(value, str)]
    if len(paths) == len(given):
        return files_of(paths, its)
    names = [f"sample {i}" for i in range(len(given))]
    held: list[bytes | None] = [Path(v).read_bytes() if isinstance(v, str) else v for v in given]
    return Block(name="the samples", names=names, files=held)


def _path_or_bytes(i: int, sample: Any) -> str | bytes:
    if isinstance(sample, str | Path):
        return str(Path(sample).expanduser())
    if isinstance(sample, bytes):
        return sample
    if isinstance(sample, dict) and (sample.get("bytes") or sample.get("path")):
        return sample.get("bytes") or str(sample["path"])
    if isinstance(sample, Image.Image):
        picture = sample if sample.mode in _AS_PNG else sample.convert("RGB")
        held = io.BytesIO()
        picture.save(held, "PNG", compress_level=1)
        return held.getvalue()
    raise UserError(
        f"sample {i} is of type {type(sample).__name__}: an encoder takes paths, bytes of files, "
        "or pictures of Pillow"
    )
