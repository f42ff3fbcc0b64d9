"""What any model's decisions do to whom, from a table of them: any number of classes and of groups.

Everything is a function of counts, how many images of a group and of a target were called what; shapes are (..., G, K, K).
With two classes and two groups the numbers are those of :mod:`aimfair.metrics`, else those of fairlearn's MetricFrame.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from aimfair.environment import AimfairError
from aimfair.stats import percentile, wilson

FEW = 30
"""Of a cell with fewer images nothing can be said: the interval of its accuracy is about as wide as the gaps that matter."""

SUMMARIES = {
    "accuracy": "of all images",
    "worst group": "accuracy of the group that fares worst",
    "WST": "accuracy of the worst cell, a group within a class",
    "TPR gap": "largest difference of true positive rates between groups",
    "FPR gap": "the same of false positive rates",
    "EO max": "equalised odds, the larger of the two gaps",
    "EO mean": "equalised odds, their mean",
}


def rates(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """True and false positive rates in per cent, each (..., G, C): of the second of two classes (C = 1), or of each of K
    against all others; NaN where a group has no image of a kind."""
    right, wanted = np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(-1)
    others = counts.sum((-1, -2))[..., None] - wanted
    with np.errstate(invalid="ignore"):
        both = 100 * right / wanted, 100 * (counts.sum(-2) - right) / others
    return tuple(rate[..., 1:] for rate in both) if counts.shape[-1] == 2 else both  # type: ignore[return-value]


def summaries(counts: np.ndarray) -> dict[str, np.ndarray]:
    """The numbers of :data:`SUMMARIES` in per cent, each (...): gaps are largest minus smallest over the groups, EO max the
    largest of all classes' gaps and EO mean their mean. Empty cells count for nothing."""
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a rate that no group has
        cells, groups = 100 * right / counts.sum(-1), 100 * right.sum(-1) / counts.sum((-1, -2))
        tpr, fpr = (np.nanmax(rate, -2) - np.nanmin(rate, -2) for rate in rates(counts))
        values = (
            100 * right.sum((-1, -2)) / counts.sum((-1, -2, -3)),
            np.nanmin(groups, -1),
            np.nanmin(cells, (-1, -2)),
            np.nanmax(tpr, -1),
            np.nanmax(fpr, -1),
            np.nanmax(np.maximum(tpr, fpr), -1),
            np.nanmean((tpr + fpr) / 2, -1),
        )
    return dict(zip(SUMMARIES, values, strict=True))


@dataclass(frozen=True, eq=False)
class Fairness:
    """The decisions of one model: names of K classes and G groups, and ``counts`` (G, K, K) by group, target, decision."""

    classes: list[str]
    groups: list[str]
    counts: np.ndarray

    @cached_property
    def cells(self) -> pd.DataFrame:
        """A row per group and target: images, accuracy in per cent with Wilson's 95 % interval, and whether they are too few."""
        images, right = self.counts.sum(-1).ravel(), np.diagonal(self.counts, axis1=-2, axis2=-1).ravel()
        accuracy = np.divide(100 * right, images, out=np.full(len(images), np.nan), where=images > 0)
        low, high = wilson(np.nan_to_num(accuracy), images)
        index = pd.MultiIndex.from_product([self.groups, self.classes], names=["group", "target"]).to_frame(index=False)
        note = np.where(images == 0, "no images", np.where(images < FEW, "too few to say", ""))
        return index.assign(images=images, accuracy=accuracy, low=low, high=high, note=note)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """A row for each of :data:`SUMMARIES`: per cent, and a 95 % interval of what the images leave open.

        The interval is that of 1,000 draws of each cell's true shares (Jeffreys' prior, so that a cell of few images is
        never certain). A gap is never negative, so it lies too high where groups are small or alike.
        """
        drawn = np.random.default_rng(0).gamma(self.counts + 0.5, size=(1000, *self.counts.shape))
        ends = summaries(drawn / drawn.sum(-1, keepdims=True) * self.counts.sum(-1, keepdims=True))
        rows = []
        for name, value in summaries(self.counts).items():
            low, high = percentile(ends[name])
            rows.append([name, value, min(low, value), max(high, value), SUMMARIES[name]])
        return pd.DataFrame(rows, columns=["measure", "per cent", "low", "high", "what"])

    @cached_property
    def by_class(self) -> pd.DataFrame:
        """A row per class against all others: both gaps, their larger and their mean, and the groups of the extreme rates."""
        tpr, fpr = rates(self.counts)
        table = pd.DataFrame({"class": self.classes[-tpr.shape[-1] :]})
        for name, rate in (("TPR", tpr), ("FPR", fpr)):
            table[f"{name} gap"] = np.nanmax(rate, 0) - np.nanmin(rate, 0)
            table[f"lowest {name}"] = [self.groups[g] for g in np.nanargmin(rate, 0)]
            table[f"highest {name}"] = [self.groups[g] for g in np.nanargmax(rate, 0)]
        gaps = table[["TPR gap", "FPR gap"]]
        return table.assign(**{"EO max": gaps.max(axis=1), "EO mean": gaps.mean(axis=1)})


def measure(target: ArrayLike, predicted: ArrayLike, group: ArrayLike, classes: Sequence[str]) -> Fairness:
    """Count the decisions: three names per image, of which the first two are among ``classes``."""
    codes, names = pd.factorize(np.asarray(group, dtype=str), sort=True)
    y, decided = (pd.Index(classes).get_indexer(np.asarray(values, dtype=str)) for values in (target, predicted))
    counts = np.zeros((len(names), len(classes), len(classes)), dtype=np.int64)
    np.add.at(counts, (codes, y, decided), 1)
    return Fairness([*classes], [*map(str, names)], counts)


def groupings(table: pd.DataFrame, groups: Sequence[str]) -> dict[str, pd.Series]:
    """The group of each image by each attribute and, of several, by all of them crossed."""
    found = {name: table[name].astype(str) for name in groups}
    if len(groups) > 1:
        found[" x ".join(groups)] = table[[*groups]].astype(str).agg(", ".join, axis=1)
    return found


def own_thresholds(target: np.ndarray, score: np.ndarray, group: np.ndarray, threshold: float) -> pd.Series:
    """A threshold for each group: the most alike error rates that cost no more than a point of accuracy.

    target (N,) bool, score (N,) and group (N,); chosen on these very images, at 201 true positive rates that all groups
    share. An oracle: it needs the group of everyone who is judged.
    """
    names, shares = np.unique(group), np.linspace(0, 1, 201)
    cuts, tpr, fpr, right = [], [], [], np.zeros(len(shares))
    for name in names:
        positive, negative = (np.sort(score[(group == name) & (target == kind)]) for kind in (True, False))
        if not len(positive) or not len(negative):
            raise AimfairError(f"group {name} has images of one target only: it can have no threshold of its own")
        cuts.append(np.quantile(positive, 1 - shares, method="inverted_cdf"))
        hits, false = (len(part) - np.searchsorted(part, cuts[-1]) for part in (positive, negative))
        tpr.append(hits / len(positive))
        fpr.append(false / len(negative))
        right += hits + len(negative) - false
    odds = np.maximum(np.ptp(tpr, 0), np.ptp(fpr, 0))
    allowed = right >= min(((score >= threshold) == target).sum() - 0.01 * len(target), right.max())
    best = np.flatnonzero(allowed)[np.argmin(odds[allowed])]
    return pd.Series([cut[best] for cut in cuts], index=names)
