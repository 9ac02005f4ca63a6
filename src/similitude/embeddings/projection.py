"""Embeddings as points of a plane, for maps.

N rows, D numbers of an embedding.
"""

import numpy as np
from jaxtyping import Float

from similitude.errors import UserError, did_you_mean

PROJECTIONS = ("pca", "umap", "none")


def check_projection(name: str | None) -> None:
    """Refuse a projection before any work is done for it.

    Raises:
        UserError: there is none of this name, or umap-learn is missing.
    """
    if name is not None and name not in PROJECTIONS:
        raise UserError(f"unknown projection {name!r}: {did_you_mean(name, PROJECTIONS)}")
    if name == "umap":
        try:
            import umap  # noqa: F401 # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise UserError(
                "umap needs umap-learn (pip install 'similitude[umap]'); pca needs nothing more"
            ) from error


def project(x: Float[np.ndarray, "N D"], name: str) -> Float[np.ndarray, "N 2"]:
    """Two coordinates of each row.

    Args:
        x: embeddings; mapped ones stay on disk under "pca", which needs D * D numbers.
        name: "pca": the two directions of the largest variance; "umap": UMAP (McInnes et al. 2018)
            on cosines, with a fixed seed.
    """
    if name == "umap":
        from umap import UMAP  # pyright: ignore[reportMissingImports]

        return np.asarray(UMAP(metric="cosine", random_state=0).fit_transform(x))
    from sklearn.decomposition import PCA

    kept = min(2, *x.shape)
    # of the solvers the one that makes no centered copy
    plane = PCA(kept, svd_solver="covariance_eigh").fit(x).transform(x)
    return np.pad(plane, ((0, 0), (0, 2 - kept)))
