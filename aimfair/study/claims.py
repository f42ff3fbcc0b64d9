"""Executable claims: a sentence of the book, and the runs that decide whether it stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from aimfair.stats import Difference, interval, paired_difference

VERDICTS = {
    "holds": "Holds here",
    "contradicted": "The opposite holds here",
    "undecided": "Cannot be decided here",
}
NOT_RUN = "not run here"
"""The evidence of a claim about runs that do not exist: a chapter can be read before all of its runs are there."""


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


def higher(
    text: str, a: ArrayLike, b: ArrayLike, unit: str = "points", margin: float = 0.0, pairs: str = "seeds"
) -> Claim:
    """The claim that a exceeds b by more than ``margin``, seed by seed, or by whatever else the ``pairs`` are.

    It holds if the 95 % interval of the paired difference lies above the margin, is contradicted if the interval lies
    below it, and is undecided otherwise: an interval that straddles the margin supports neither side. Without a single
    run of one of them it is undecided, too.
    """
    return _paired(text, a, b, unit, pairs, lambda d: decided(d.low, d.high, margin))


def lower(
    text: str, a: ArrayLike, b: ArrayLike, unit: str = "points", margin: float = 0.0, pairs: str = "seeds"
) -> Claim:
    """The claim that a stays below b by more than ``margin``; see :func:`higher`."""
    return _paired(text, a, b, unit, pairs, lambda d: decided(-d.high, -d.low, margin))


def above(text: str, values: ArrayLike, bound: float, unit: str = "", most: float = np.inf) -> Claim:
    """The claim that the mean over seeds lies above ``bound``, judged by its 95 % interval; undecided without a value.

    ``most`` is the largest value there can be, such as 1 of a correlation: an interval that reaches beyond ends there.
    """
    if not np.size(values):
        return Claim(text, "undecided", NOT_RUN)
    low, high = np.minimum(interval(values), most)
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


def _paired(
    text: str, a: ArrayLike, b: ArrayLike, unit: str, pairs: str, verdict: Callable[[Difference], str]
) -> Claim:
    if not (np.size(a) and np.size(b)):
        return Claim(text, "undecided", NOT_RUN)
    d = paired_difference(a, b)
    evidence = f"{d.mean:+.2f} {unit} [{d.low:+.2f}, {d.high:+.2f}], sign-flip p {d.p:.3f}, {d.n} {pairs}"
    return Claim(text, verdict(d), evidence)
