"""What a run keeps of some of its images, for the report."""

from typing import Any

import numpy as np
import torch

from similitude.evaluation import extract_features, spectrum
from similitude.files.writing import write_with
from similitude.report.gallery import queries_and_neighbors
from similitude.report.read import Embedding
from similitude.runs.run import Run
from similitude.sample import Samples

GALLERY_SIZE = 2000  # images kept for the report's map
THUMBNAIL_SIZE = 56  # pixels at most


def write_gallery(run: Run, images: Samples[Any]) -> None:
    """Write embedding.npz: features, thumbnails and labels of some images, for the report."""
    index = images.order(run.recipe.seed, -1)[:GALLERY_SIZE].sort().values
    shown = images.subset(index)
    features = extract_features(run.backbone, shown, run.facts, device=run.device)
    arrays: dict[str, Any] = {
        "features": features.x.numpy(),
        "thumbnails": shown.thumbnails(THUMBNAIL_SIZE),
        "names": np.array(shown.names),
        "spectrum": spectrum(features.x).numpy(),
    }
    if shown.labels is not None:
        arrays["labels"] = shown.labels.numpy()
    if shown.class_names is not None:
        arrays["class_names"] = np.array(shown.class_names)
    if shown.can_be_heard and features.x.isfinite().all():
        arrays |= _heard(shown, arrays)
    write_with(run.path / "embedding.npz", lambda path: np.savez_compressed(path, **arrays))
    _write_attention(run, images)


def _write_attention(run: Run, samples: Samples[Any]) -> None:
    """Write attention.npz: where a ViT looks in a few images; nothing for other backbones."""
    found = run.modality.look_inside(run.backbone, samples, run.facts, run.device)
    if found is None:
        return
    few = found["of"]
    arrays = {name: array for name, array in found.items() if name != "of"}
    arrays["names"] = np.array(few.names)
    if few.labels is not None and few.class_names is not None:
        names = [few.class_names[i] if i >= 0 else "" for i in few.labels.tolist()]
        arrays["classes"] = np.array(names)
    write_with(run.path / "attention.npz", lambda path: np.savez_compressed(path, **arrays))


def _heard(samples: Samples[Any], arrays: dict[str, Any]) -> dict[str, Any]:
    """What a page plays: the sounds that it shows as neighbors."""
    plain = {"labels": None, **arrays, "names": samples.names, "class_names": samples.class_names}
    embedding = Embedding(**plain)
    queries, neighbors = queries_and_neighbors(embedding)
    shown = np.unique(np.concatenate([queries, neighbors[queries].ravel()]))
    track, times = samples.subset(torch.from_numpy(shown)).track()
    return {"track": np.frombuffer(track, np.uint8), "heard": shown, "times": times}
