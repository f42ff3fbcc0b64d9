"""Numbers about a set of faces: how varied it is, how far from another, which pictures come twice, where a face is.

What takes (N, d) features, such as the penultimate layer of a classifier, sees what that classifier sees: two sets can be
compared only in the features of the same one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aimfair import models
from aimfair.environment import AimfairError
from aimfair.faces import FaceSet
from aimfair.progress import progress

ALIKE = 9.0
"""Grey levels (of 255): two faces whose small pictures differ by less, root mean square, are near-duplicates."""

THUMBNAIL = 32
"""Width in pixels at which pictures are compared."""

BLOCK = 2048
"""Rows of a distance matrix that are in memory at once."""

PROBED = 2000
"""Faces of each kind that a probe is fitted and scored on."""

SIDE, SMALLEST = 128, 64
"""Pixels at which the detector looks at a picture, and of the smallest face that counts."""


def vendi_score(features: Tensor) -> float:
    """How many faces of no likeness at all would be as varied as these (Friedman and Dieng, TMLR 2023).

    The exponential of the entropy of the eigenvalues of K / N, K the cosine similarities of (N, d) ``features``: 1
    where all are the same, N where no two have anything in common, never more than d. Raises AimfairError for no face.
    """
    x = F.normalize(_some(features).double(), dim=1)
    gram = x @ x.T if len(x) < x.shape[1] else x.T @ x  # both have the same eigenvalues but for zeros
    values = torch.linalg.eigvalsh(gram / len(x))
    values = values[values > 1e-12]
    return float(torch.exp(-(values * values.log()).sum()))


def mean_distance(features: Tensor) -> float:
    """Mean Euclidean distance of two different faces, over all pairs of (N, d) ``features``; 0 for a single face.

    Raises AimfairError for no face.
    """
    x = _some(features).double()
    total = sum(float(torch.cdist(block, x).sum()) for block in x.split(BLOCK))
    return total / max(1, len(x) * (len(x) - 1))


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Squared Frechet distance of two normal distributions with means and covariances of (N, d) and (M, d) features.

    As the Frechet inception distance (Heusel et al., NeurIPS 2017), in other features. Small samples make it too
    large: what it is between two halves of one set, of the same sizes, says by how much. Raises AimfairError for fewer
    than two faces.
    """
    one, other = first.double(), second.double()
    if min(len(one), len(other)) < 2:
        raise AimfairError(f"a distance of sets needs two faces in each, got {len(one)} and {len(other)}")
    s, t = one.T.cov(), other.T.cov()
    values, vectors = torch.linalg.eigh(s)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    overlap = torch.linalg.eigvalsh(root @ t @ root).clamp(min=0).sqrt().sum()
    return max(0.0, float((one.mean(0) - other.mean(0)).square().sum() + s.trace() + t.trace() - 2 * overlap))


def nearest(features: Tensor, among: Tensor, k: int = 5) -> Tensor:
    """(N,) mean Euclidean distance of each of (N, d) ``features`` to the ``k`` nearest of (M, d) ``among``, or to all."""
    k, among = min(k, len(_some(among))), among.float()
    blocks = features.float().split(BLOCK)
    return torch.cat([torch.cdist(block, among).topk(k, largest=False).values.mean(1) for block in blocks])


def near_duplicates(images: Tensor, others: Tensor | None = None) -> pd.DataFrame:
    """Pairs of pictures that are all but the same: columns first, second (places), difference (grey levels), by it.

    images  (N, 3, H, W) uint8, compared with each other, or with ``others`` (M, 3, H, W)

    What is compared are thumbnails of 32 x 32 pixels, each with its own mean colour taken away: noise, compression and
    a change of light hide no copy. The difference is the root mean square over pixels and colours.
    """
    left = _thumbnails(images)
    right = left if others is None else _thumbnails(others)
    squares, limit, found = right.square().sum(1), ALIKE**2 * left.shape[1], []
    for start in range(0, max(1, len(left)), BLOCK):
        rows = left[start : start + BLOCK]
        first = start if others is None else 0  # each pair of one set is looked at once
        apart = rows.square().sum(1)[:, None] + squares[first:] - 2 * rows @ right[first:].T
        i, j = torch.nonzero(apart < limit, as_tuple=True)
        difference = (apart[i, j].clamp(min=0) / left.shape[1]).sqrt()
        found.append(pd.DataFrame({"first": i + start, "second": j + first, "difference": difference.double()}))
    table = pd.concat(found)
    if others is None:
        table = table[table["first"] < table["second"]]
    return table.sort_values(["difference", "first", "second"], ignore_index=True)


def _thumbnails(images: Tensor) -> Tensor:
    """(N, 3, H, W) uint8 -> (N, 3072) float32 without the mean of each colour."""
    size = (THUMBNAIL, THUMBNAIL)
    blocks = images.split(BLOCK)
    pixels = torch.cat([F.interpolate(b.float(), size, mode="bilinear", antialias=True) for b in blocks])
    return (pixels - pixels.mean((2, 3), keepdim=True)).flatten(1)


def _some(features: Tensor) -> Tensor:
    if len(features) == 0:
        raise AimfairError("there are no faces to measure")
    return features


def probe(model: nn.Module, real: FaceSet, drawn: FaceSet, device: str = "cpu", seed: int = 0) -> float:
    """Accuracy, in per cent, of a linear probe that tells ``drawn`` from ``real`` by ``model``'s features.

    As many of either, chosen at random; fitted on one half, scored on the other. 50: they cannot be told apart.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    n = min(len(real), len(drawn), PROBED)
    rng = np.random.default_rng(seed)
    sets = [faces.subset(np.sort(rng.permutation(len(faces))[:n])) for faces in (real, drawn)]
    x = np.concatenate([models.evaluate(model.to(device), faces, device, output="features").numpy() for faces in sets])
    y = np.repeat([0, 1], n)
    fit = np.arange(2 * n) % 2 == 0
    fitted = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(x[fit], y[fit])
    return 100 * float(fitted.score(x[~fit], y[~fit]))


def detector() -> Any:
    """OpenCV's cascade, or None where OpenCV 4 is not installed (``pip install 'aimfair[audit]'``)."""
    try:
        import cv2.data

        return cv2.CascadeClassifier(f"{cv2.data.haarcascades}haarcascade_frontalface_default.xml")
    except (ImportError, AttributeError):  # OpenCV 5 has no cascades any more
        return None


def detect(images: Tensor) -> Tensor | None:
    """(N, 3, H, W) uint8 -> (N,) bool, whether a face is found in each; None where no detector is installed.

    The detector is the cascade of Viola and Jones (CVPR 2001), for upright faces seen from the front. It learnt from
    photographs, of nobody's corpus here, and is a coarse one: it misses some drawn faces, and finds one now and then in
    a picture whose pieces have changed places. So its share means something beside that of real faces only.
    """
    cascade = detector()
    if cascade is None:
        return None
    found = []
    for image in progress(images, "looking for faces", len(images), "image"):
        grey = image.float().mean(0, keepdim=True)[None]
        grey = F.interpolate(grey, (SIDE, SIDE), mode="bicubic", antialias=True, align_corners=False)
        framed = F.pad(grey, (SIDE // 4,) * 4, mode="replicate")  # for faces that fill the picture
        pixels = framed[0, 0].round().clamp(0, 255).numpy().astype(np.uint8)
        found.append(len(cascade.detectMultiScale(pixels, 1.1, 3, minSize=(SMALLEST, SMALLEST))) > 0)
    return torch.tensor(found, dtype=torch.bool)
