"""Executable claims: a sentence of the book, and the runs that decide whether it stands.

There is one rule for every comparison, and it has three verdicts. The claim that a value lies above a bound "holds" if
its whole 95 % interval over seeds does, is "contradicted" if the whole interval lies below, and is "undecided" otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from aimfair.environment import AimfairError
from aimfair.stats import Difference, holm, interval, paired_difference
from aimfair.study.tables import HEADINGS, within

VERDICTS = {
    "holds": "Holds here",
    "contradicted": "The opposite holds here",
    "undecided": "Cannot be decided here",
}
"""What a verdict is called before a sentence."""

WORDS = {"holds": "wins", "contradicted": "loses", "undecided": "undecided"}
"""What a verdict is called where a method is compared with a reference: it "holds" if the method is better."""

NOT_RUN = "not run here"
"""The evidence of a claim about runs that do not exist: a chapter can be read before all of its runs are there."""

LOOKS = {"holds": ("✓", "0,158,115"), "contradicted": ("✗", "213,94,0"), "undecided": ("?", "127,127,127")}
"""The icon and the colour (red, green, blue) of a verdict in a notebook."""

METRICS = ("acc", "wst", "eo_max")
LOWER_IS_BETTER = ("eo_max", "eo_mean", "std")


@dataclass(frozen=True)
class Claim:
    """A claim with its verdict, one of :data:`VERDICTS`.

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

    @property
    def words(self) -> str:
        """The verdict in words."""
        return "Does not hold here" if self.verdict == "contradicted" and not self.opposite else VERDICTS[self.verdict]

    def __str__(self) -> str:
        return f"{self.words}: {self.text} ({self.evidence})" if self.evidence else f"{self.words}: {self.text}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return _callout(self.verdict, f"<b>{self.words}:</b> {_html(self.text)}", _html(self.evidence))


class Claims(list[Claim]):
    """Several claims, shown together: those that the runs decide each in full, the others counted and folded."""

    def __str__(self) -> str:
        return "\n".join(map(str, self))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The decided claims in their order, then one line that opens to the undecided ones."""
        open_ones = [claim for claim in self if claim.verdict == "undecided"]
        if len(open_ones) < 2:
            return "".join(claim._repr_html_() for claim in self)
        items = "".join(
            f"<li>{_html(claim.text)}{claim.evidence and f' ({_html(claim.evidence)})'}</li>" for claim in open_ones
        )
        many = f"<b>{VERDICTS['undecided']}:</b> {len(open_ones)} of {len(self)} claims"
        decided_ones = "".join(claim._repr_html_() for claim in self if claim.verdict != "undecided")
        return decided_ones + _callout("undecided", many, f'<ul style="margin:0">{items}</ul>')


def _html(text: str) -> str:
    """Text with `code`, as HTML."""
    return re.sub("`(.+?)`", r"<code>\1</code>", escape(text, quote=False))


def _callout(verdict: str, summary: str, folded: str) -> str:
    """A box in the colour of a verdict, readable on light and dark pages and on paper; its style is inline, because
    JupyterLab has no style sheet of ours."""
    icon, colour = LOOKS[verdict]
    style = f"border-left:4px solid rgb({colour});background:rgba({colour},.12);padding:.3em .7em;margin:.3em 0"
    summary = f'<span aria-hidden="true">{icon}</span> {summary}'
    if not folded:
        return f'<div class="claim" style="{style}">{summary}</div>'
    summary = f'<summary style="display:list-item;cursor:pointer">{summary}</summary>'
    return f'<details class="claim" style="{style}">{summary}{folded}</details>'


def decided(low: float, high: float, bound: float = 0.0) -> str:
    """The rule of every verdict: what an interval says of the claim that a value lies above ``bound``."""
    if low > bound:
        return "holds"
    return "contradicted" if high < bound else "undecided"


def claim(text: str, facts: Sequence[bool] | bool, evidence: str = "") -> Claim:
    """A claim without a statistic: it holds if every fact is true and is contradicted otherwise."""
    return Claim(text, "holds" if np.all(facts) else "contradicted", evidence, opposite=False)


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


def higher(
    text: str, a: ArrayLike, b: ArrayLike, unit: str = "points", margin: float = 0.0, pairs: str = "seeds"
) -> Claim:
    """The claim that a exceeds b by more than ``margin``, seed by seed, or by whatever else the ``pairs`` are.

    It is judged by the 95 % interval of the paired difference; without a single run of one of them it is undecided.
    """
    return _paired(text, a, b, unit, pairs, lambda d: decided(d.low, d.high, margin))


def lower(
    text: str, a: ArrayLike, b: ArrayLike, unit: str = "points", margin: float = 0.0, pairs: str = "seeds"
) -> Claim:
    """The claim that a stays below b by more than ``margin``; see :func:`higher`."""
    return _paired(text, a, b, unit, pairs, lambda d: decided(-d.high, -d.low, margin))


def _paired(
    text: str, a: ArrayLike, b: ArrayLike, unit: str, pairs: str, verdict: Callable[[Difference], str]
) -> Claim:
    if not (np.size(a) and np.size(b)):
        return Claim(text, "undecided", NOT_RUN)
    d = paired_difference(a, b)
    evidence = f"{d.mean:+.2f} {unit} [{d.low:+.2f}, {d.high:+.2f}], sign-flip p {d.p:.3f}, {d.n} {pairs}"
    return Claim(text, verdict(d), evidence)


def compare(
    test: Callable[..., Claim], text: str, rows: pd.DataFrame, first: str, second: str, metric: str, **options: Any
) -> Claim:
    """:func:`higher` or :func:`lower` of two methods of ``rows`` on the seeds that both have.

    Undecided, and says so, where one of them has no runs. Raises AimfairError for a seed that has several rows.
    """
    sides = [rows[rows["method"] == name].set_index("seed")[metric] for name in (first, second)]
    seeds = sides[0].index.intersection(sides[1].index)
    if any(side.index.has_duplicates for side in sides):
        raise AimfairError(f"{first} or {second} has several rows of one seed: choose among them first")
    return test(text, *(side.loc[seeds].to_numpy(float) for side in sides), **options)


def ask(rows: pd.DataFrame, *questions: tuple[Callable[..., Claim], str, str, str, str]) -> Claims:
    """:func:`compare` for several (test, text, first, second, metric)."""
    return Claims(compare(test, text, rows, first, second, metric) for test, text, first, second, metric in questions)


def compare_all(frame: pd.DataFrame, reference: str, by: str = "method") -> pd.DataFrame:
    """Every method of ``frame`` against ``reference``: a row per method and metric of :data:`METRICS`.

    frame  one row per (``by``, seed) with a column per metric; each pair is compared on the seeds that both have
    Columns: ``by``, metric, difference, low, high (points), p (exact sign-flip), "p Holm" (adjusted over the methods of
    a metric), seeds, and the verdict on the claim that the method is better. Raises AimfairError for a reference that is
    not there, a repeated seed, or a method that shares no seed with the reference.
    """
    if reference not in set(frame[by]):
        raise AimfairError(f"nothing to compare with: {reference!r} has no runs")
    if frame.duplicated([by, "seed"]).any():
        raise AimfairError(f"a comparison needs one run per {by} and seed: choose among them first")
    rows = []
    for metric in METRICS:
        wide = frame.pivot(index="seed", columns=by, values=metric)
        for name in (n for n in frame[by].unique() if n != reference):
            both = wide[[name, reference]].dropna()
            if both.empty:
                raise AimfairError(f"{name} and {reference} share no seed: their differences would not be paired")
            d = paired_difference(both[name], both[reference])
            verdict = decided(-d.high, -d.low) if metric in LOWER_IS_BETTER else decided(d.low, d.high)
            rows.append((name, metric, d.mean, d.low, d.high, d.p, d.n, verdict))
    table = pd.DataFrame(rows, columns=[by, "metric", "difference", "low", "high", "p", "seeds", "verdict"])
    table["p Holm"] = table.groupby("metric", sort=False)["p"].transform(lambda p: holm(p))
    return table


def show(compared: pd.DataFrame, by: str = "method") -> pd.DataFrame:
    """:func:`compare_all` for reading: a row per method, a cell per metric such as ``wins +1.9 [+0.6, +3.3]``."""
    cells = [f"{WORDS[r.verdict]} {within(r.difference, r.low, r.high, '+.1f')}" for r in compared.itertuples()]
    wide = compared.assign(cell=cells).pivot(index=by, columns="metric", values="cell")
    wide = wide.loc[list(compared[by].unique()), list(compared["metric"].unique())].rename(columns=HEADINGS)
    seeds = compared.groupby(by, sort=False)["seeds"].max()
    return wide.assign(seeds=seeds).rename_axis(None).rename_axis(None, axis=1)


def recommended(compared: pd.DataFrame) -> bool:
    """Whether one method should be used in place of the reference: it is better by one metric at least and worse by none.

    compared  the rows of that method from :func:`compare_all`
    """
    verdicts = set(compared["verdict"])
    return "holds" in verdicts and "contradicted" not in verdicts
