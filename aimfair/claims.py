"""Executable claims: a sentence of the book, and the runs that decide whether it stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from aimfair.stats import Difference, interval, paired_difference

VERDICTS = {
    "holds": "Holds here",
    "contradicted": "The opposite holds here",
    "undecided": "Cannot be decided here",
}


@dataclass(frozen=True)
class Claim:
    """A claim with its verdict: "holds", "contradicted" or "undecided".

    opposite  whether a contradicted claim means that its opposite holds, as for an order, and not only that it fails
    """

    text: str
    verdict: str
    evidence: str
    opposite: bool = True

    @property
    def holds(self) -> bool:
        """True if the runs support the claim."""
        return self.verdict == "holds"

    def _said(self) -> tuple[str, str]:
        fails = self.verdict == "contradicted" and not self.opposite
        verdict = "Does not hold here" if fails else VERDICTS[self.verdict]
        return verdict, f"{self.text} ({self.evidence})" if self.evidence else self.text

    def __str__(self) -> str:
        return "{}: {}".format(*self._said())

    def _repr_markdown_(self) -> str:
        return "**{}:** {}".format(*self._said())

    __repr__ = __str__


def higher(text: str, a: ArrayLike, b: ArrayLike, unit: str = "points", margin: float = 0.0) -> Claim:
    """The claim that a exceeds b by more than ``margin``, seed by seed.

    It holds if the 95 % interval of the paired difference lies above the margin, is contradicted if the interval lies
    below it, and is undecided otherwise: an interval that straddles the margin supports neither side.
    """
    difference = paired_difference(a, b)
    return Claim(text, decided(difference.low, difference.high, margin), _words(difference, unit))


def lower(text: str, a: ArrayLike, b: ArrayLike, unit: str = "points", margin: float = 0.0) -> Claim:
    """The claim that a stays below b by more than ``margin``; see :func:`higher`."""
    difference = paired_difference(a, b)
    return Claim(text, decided(-difference.high, -difference.low, margin), _words(difference, unit))


def above(text: str, values: ArrayLike, bound: float, unit: str = "") -> Claim:
    """The claim that the mean over seeds lies above ``bound``, judged by its 95 % interval."""
    low, high = interval(values)
    mean = float(np.mean(np.asarray(values, dtype=np.float64)))
    evidence = f"mean {mean:.2f}{unit and ' ' + unit} [{low:.2f}, {high:.2f}], {np.size(values)} seeds"
    return Claim(text, decided(low, high, bound), evidence)


def claim(text: str, facts: Sequence[bool] | bool, evidence: str = "") -> Claim:
    """A claim without a statistic: it holds if every fact is true and is contradicted otherwise."""
    return Claim(text, "holds" if np.all(facts) else "contradicted", evidence, opposite=False)


def decided(low: float, high: float, bound: float = 0.0) -> str:
    """The rule of every verdict: what an interval says of the claim that a value lies above ``bound``."""
    if low > bound:
        return "holds"
    return "contradicted" if high < bound else "undecided"


def _words(difference: Difference, unit: str) -> str:
    d = difference
    return f"{d.mean:+.2f} {unit} [{d.low:+.2f}, {d.high:+.2f}], sign-flip p {d.p:.3f}, {d.n} seeds"
