"""What of the paper stands here: each difference that it prints beside ours, with a verdict by one rule.

Numbers themselves are not judged: the paper's images have 224 pixels and come from Stable Diffusion, its network from
ImageNet, its runs from another machine. What can be asked is whether a method *changes* what the paper says it changes,
and whether methods come in the paper's order.

**The rule**, :func:`verdict`. A comparison is two rows of one table and one metric: ACC, WST or EO.

1. It cannot be judged where the paper's row does not follow from its own cells, or where its difference is no larger
   than its own noise (:func:`noise`): then there is nothing to reproduce.
2. It cannot be judged where fewer than :data:`FEWEST` seeds have both runs: nothing is filled in for a missing run.
3. It cannot be judged where the 95 % interval of our paired difference contains zero.
4. It *stands* if our difference has the sign of the paper's, and is *contradicted* if it has the other one.

The comparisons are not picked: every row against the baseline, and the proposed method against every row
(:func:`aimfair.paper.comparisons.pairs`).
Intervals are not adjusted for their number; of those without any effect, one in twenty gets a verdict by chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from aimfair import paper
from aimfair.metrics import CELLS
from aimfair.stats import Difference, binomial_error

WORDS = ("stands", "contradicted", "cannot be judged")

FEWEST = 3
"""Seeds that a comparison needs."""

NOISE, INCONSISTENT, MISSING, ZERO = (
    "the paper's difference is within its own noise",
    "the paper's row does not follow from its own cells",
    "runs are missing",
    "our interval contains zero",
)
"""Why a comparison cannot be judged."""

PROPOSED = ("AIM-Fair", "AIM-Fair (absolute difference)", "Selective fine-tuning")
BASELINES = ("ERM", "ERM (baseline)")
"""What the paper calls its own method, and the model that all start from."""

OPPOSITE = "the paper's own table shows the opposite"

NOTHING = "the paper has nothing of this kind"

SHORT = {
    "stands": "stand",
    "contradicted": "contradicted",
    ZERO: "undecided",
    MISSING: "not run",
    NOISE: "within the paper's noise",
    INCONSISTENT: "misprinted",
    OPPOSITE: "against its own table",
}
"""Verdicts and reasons in a word or two, for counts."""


@dataclass(frozen=True)
class Verdict:
    """One of :data:`WORDS`, and in a few words why."""

    word: str
    why: str


def verdict(theirs: float, noise: float, ours: Difference | None, consistent: bool = True) -> Verdict:
    """Whether a difference of the paper stands, by the rule above.

    theirs, noise  the paper's difference, and what may be chance in it; points
    ours           our paired difference over seeds; None where too few seeds have both runs
    consistent     whether the paper's rows follow from their own cells
    """
    if not consistent:
        return Verdict("cannot be judged", INCONSISTENT)
    if abs(theirs) <= noise:
        return Verdict("cannot be judged", NOISE)
    if ours is None:
        return Verdict("cannot be judged", MISSING)
    if ours.low <= 0 <= ours.high:
        return Verdict("cannot be judged", ZERO)
    if (theirs > 0) == (ours.mean > 0):
        return Verdict("stands", "same sign")
    return Verdict("contradicted", "opposite sign")


def together(parts: Sequence[Verdict]) -> Verdict:
    """The verdict on a claim that is made of several comparisons.

    Contradicted if one of them is. It stands if all stand for which the paper's own numbers give something to reproduce;
    there must be one. Otherwise, and where runs are missing or an interval contains zero, it cannot be judged.
    """
    if not parts:
        return Verdict("cannot be judged", NOTHING)
    said = [part.word if part.word != "cannot be judged" else part.why for part in parts]
    counts = ", ".join(f"{said.count(word)} {short}" for word, short in SHORT.items() if word in said)
    if "contradicted" in said:
        return Verdict("contradicted", counts)
    left = {word for word in said if word not in (NOISE, INCONSISTENT, OPPOSITE)}
    return Verdict("stands" if left == {"stands"} else "cannot be judged", counts)


def standard_error(row: Mapping[str, Any], metric: str) -> float:
    """Of a printed number, in points: what another test set of the same size would change of it, by chance.

    The paper gives no spread over its seeds, so this is a lower bound of the noise. Where a table prints no cells, the
    smallest group is taken to be the worst one, and both groups of the EO to be like it.
    """
    counts = np.array(paper.counts(row["dataset"], row["target"], row["protected"]))
    cells = np.array([row[c] for c in CELLS], dtype=np.float64)
    if np.isnan(cells).any():
        if metric == "acc":
            return float(binomial_error(row["acc"], counts.sum()))
        return float(binomial_error(row["wst"], counts.min())) * (1 if metric == "wst" else np.sqrt(2))
    errors = binomial_error(cells, counts)
    if metric == "acc":
        return float(np.sqrt((counts**2 * errors**2).sum()) / counts.sum())
    if metric == "wst":
        return float(errors[cells.argmin()])
    gaps, spread = np.abs(cells[1::2] - cells[::2]), np.hypot(errors[1::2], errors[::2])
    return float(np.hypot(*spread) / 2 if row["table"] == 8 else spread[gaps.argmax()])


def noise(row: Mapping[str, Any], against: Mapping[str, Any], metric: str) -> float:
    """Of the difference of two printed rows, in points; a difference within it is not told from none.

    One standard error of a difference of two models, as if their errors had nothing to do with each other: that they are
    tested on the same images makes the true one smaller, that ten trainings differ makes it larger. Most rows of Tables 1
    and 2 were made by others with another pipeline: a difference of AIM-Fair to one of these must exceed what the two
    pipelines' ERM differ by, too (:func:`pipelines_apart`).
    """
    chance = float(np.hypot(standard_error(row, metric), standard_error(against, metric)))
    mixed = row["table"] in (1, 2) and (row["method"] in PROPOSED) != (against["method"] in PROPOSED)
    return max(chance, pipelines_apart(row["target"], row["protected"], metric)) if mixed else chance


@cache
def pipelines_apart(target: str, protected: str, metric: str) -> float:
    """Distance of the ERM of Table 1, quoted from others, from the paper's own of Table 3, in points.

    For a task that Table 3 does not have, the largest of those that it has.
    """
    rows = paper.results().query("method in @BASELINES and dataset == 'CelebA' and table in (1, 3)")
    wide = rows.pivot(index=["target", "protected"], columns="table", values=metric)
    apart = (wide[1] - wide[3]).abs().dropna()
    return float(apart.get((target, protected), apart.max()))


def consistent(row: Mapping[str, Any]) -> bool:
    if any(np.isnan(row[c]) for c in CELLS):
        return True
    again = paper.recompute(row)
    return again.form != "neither" and max(map(abs, again.errors.values())) <= paper.ROUNDING
