"""What a classifier's features reveal: where it puts faces of the four groups, and what a linear probe reads there.

A map by t-SNE shows which faces are near to each other, and invites to see more than there is. So a number stands
beside it: how well the protected attribute can be read off the features *among faces of one target value*. Without
that condition a classifier that only knows the target would seem to know the protected attribute too, wherever the
two go together.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from torch import nn

from aimfair import models, sampling, stats
from aimfair.environment import AimfairError
from aimfair.faces import FaceSet

PROBED, SHOWN = 1000, 100
"""Faces per group, at most: for the probe, and on the map."""

FEWEST = 10
"""Faces of a cell that a probe needs for its folds."""

SEED = 0
"""Of which faces are probed, of the folds and of the map."""

STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)
"""Of the probe's regularisation: scikit-learn's C, of which small values shrink the weights."""


def portrait(model: nn.Module, faces: FaceSet, device: str = "cpu") -> dict[str, Any]:
    """What the penultimate features and the logit of ``model`` reveal of ``faces``, which need both labels.

    protected      how well the protected attribute is read among faces of one target, off the "features" and off the
                   "logit": (balanced accuracy, low, high) in per cent, see :func:`readable`
    target         the same of the target among faces of one value of the protected attribute, off the "features"
    probed, shown  faces of each group that were probed, and that are on the map
    map            :func:`embedding` of the features as text, for :func:`placed`; its faces are those of :func:`on_map`

    Groups have equal numbers of faces, the same ones for every model. Raises AimfairError for a group with too few.
    """
    probed = min(*faces.counts(), PROBED)
    if probed < FEWEST:
        raise AimfairError(f"a probe needs {FEWEST} faces of each group, got {faces.counts()}")
    target, protected = faces.target.numpy(), faces.protected.numpy()  # type: ignore[union-attr]
    rows = sampling.balanced(target, protected, probed, SEED)
    chosen, t, p = faces.subset(rows), target[rows], protected[rows]
    x = models.evaluate(model, chosen, device, output="features").numpy()
    z = models.evaluate(model, chosen, device).numpy()[:, None]
    seen = on_map(target, protected)
    return {
        "protected": {"features": readable(x, p, t), "logit": readable(z, p, t)},
        "target": {"features": readable(x, t, p)},
        "probed": probed,
        "shown": len(seen) // 4,
        "map": base64.b64encode(embedding(x[np.searchsorted(rows, seen)]).tobytes()).decode(),
    }


def on_map(target: ArrayLike, protected: ArrayLike) -> np.ndarray:
    """Ascending places of the faces that a map shows: equally many of each group, at most :data:`SHOWN`.

    They are among those that are probed, and depend on the labels alone.
    """
    t, p = np.asarray(target), np.asarray(protected)
    smallest = int(np.bincount(2 * t + p, minlength=4).min())
    return sampling.balanced(t, p, min(smallest, SHOWN), SEED)


def readable(x: np.ndarray, label: np.ndarray, given: np.ndarray) -> tuple[float, float, float]:
    """How well a linear probe reads ``label`` off (N, d) ``x`` among samples of one value of ``given``: (value, low, high).

    label, given  (N,) of {0, 1}
    The value is the balanced accuracy in per cent, the mean over the four cells: a guess has 50, however ``label`` and
    ``given`` go together. There is one logistic regression for each value of ``given``. Each sample is judged by a
    probe that was fitted on four fifths without it, with the regularisation that did best on a quarter of these. The
    95 % interval is a bootstrap over samples within the cells; it does not include the luck of one trained classifier,
    which takes several seeds. Raises AimfairError for a cell with fewer than :data:`FEWEST` samples.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold, StratifiedShuffleSplit, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    cells = 2 * given + label
    counts = np.bincount(cells, minlength=4)
    if counts.min() < FEWEST:
        raise AimfairError(f"a probe needs {FEWEST} samples of each cell, got {counts.tolist()}")
    probe = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=5000)),
        {"logisticregression__C": STRENGTHS},
        cv=StratifiedShuffleSplit(1, test_size=0.25, random_state=SEED),
        scoring="balanced_accuracy",
    )
    folds, right = StratifiedKFold(5, shuffle=True, random_state=SEED), np.empty(len(x), dtype=bool)
    for condition in (0, 1):
        rows = np.flatnonzero(given == condition)
        right[rows] = cross_val_predict(probe, x[rows], label[rows], cv=folds) == label[rows]
    value = 100 * float(np.mean([right[cells == cell].mean() for cell in range(4)]))
    low, high = stats.percentile(stats.hierarchical_bootstrap(right[None], cells, seed=SEED).mean((1, 2)))
    return value, low, high


def embedding(x: np.ndarray) -> np.ndarray:
    """(N, d) features -> (N, 2) places (float16, so that a map of 400 faces takes 2 kB) by t-SNE (van der Maaten and Hinton, JMLR 2008), from the principal
    components. Near places mean near features; sizes of clusters and distances between them mean nothing."""
    from sklearn.manifold import TSNE

    place = TSNE(perplexity=min(30.0, (len(x) - 1) / 3), init="pca", random_state=SEED).fit_transform(x)
    return place.astype("<f2")


def placed(scores: Mapping[str, Any], target: ArrayLike, protected: ArrayLike) -> pd.DataFrame:
    """The map of a :func:`portrait` of faces with these labels, a row per face: columns x, y, target, protected.

    Raises AimfairError for labels of other faces.
    """
    places = np.frombuffer(base64.b64decode(scores["map"]), "<f2").reshape(-1, 2).astype(np.float32)
    shown = on_map(target, protected)
    if len(places) != len(shown):
        raise AimfairError(f"a map of {len(places)} faces cannot be that of these labels, which give {len(shown)}")
    labels = {"target": np.asarray(target)[shown], "protected": np.asarray(protected)[shown]}
    return pd.DataFrame({"x": places[:, 0], "y": places[:, 1]} | labels)
