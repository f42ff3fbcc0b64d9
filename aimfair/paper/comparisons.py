"""What of the paper stands here: each difference that it prints, and each of its claims, beside ours, with a verdict.

Numbers themselves are not judged: the paper's images have 224 pixels and come from Stable Diffusion, its network from
ImageNet, its runs from another machine. What can be asked is whether a method *changes* what the paper says it changes,
and whether methods come in the paper's order.

**The rule**, :func:`judge`. A comparison is two rows of one table and one metric: ACC, WST or EO.

1. It is undecided where the paper's row does not follow from its own cells, or where its difference is no larger than its
   own noise (:func:`noise`): then there is nothing to reproduce.
2. It is undecided where fewer than :data:`FEWEST` seeds have both runs: nothing is filled in for a missing run.
3. It is undecided where the 95 % interval of our paired difference contains zero.
4. It holds if our difference has the sign of the paper's, and is contradicted if it has the other one.

The comparisons are not picked: every row against the baseline, and the proposed method against every row (:func:`pairs`).
Intervals are not adjusted for their number; of those without any effect, one in twenty gets a verdict by chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from aimfair import paper
from aimfair.metrics import CELLS
from aimfair.paper.reading import Block, Reading, statements
from aimfair.stats import Difference, binomial_error, holm, paired_difference
from aimfair.study.claims import decided

METRICS = ("acc", "wst", "eo")

WORDS = {"holds": "stands", "contradicted": "contradicted", "undecided": "cannot be judged"}
"""What a verdict (:data:`aimfair.study.claims.VERDICTS`) is called where the paper is judged."""

MARKS = {"holds": "✓", "contradicted": "✗", "undecided": "○"}
"""Before the verdict on a claim."""

FEWEST = 3
"""Seeds that a comparison needs."""

NOISE, INCONSISTENT, MISSING, ZERO, OPPOSITE, NOTHING = (
    "the paper's difference is within its own noise",
    "the paper's row does not follow from its own cells",
    "runs are missing",
    "our interval contains zero",
    "the paper's own table shows the opposite",
    "the paper has nothing of this kind",
)
"""Why something is undecided."""

SHORT = {
    "holds": "stand",
    "contradicted": "contradicted",
    ZERO: "undecided",
    MISSING: "not run",
    NOISE: "within the paper's noise",
    INCONSISTENT: "misprinted",
    OPPOSITE: "against its own table",
}
"""Verdicts, and reasons for none, in a word or two, for counts."""

PROPOSED = ("AIM-Fair", "AIM-Fair (absolute difference)", "Selective fine-tuning")
BASELINES = ("ERM", "ERM (baseline)")
"""What the paper calls its own method, and the model that all start from."""

STEPS = ("Table 5",)
"""Tables whose rows are steps: each is compared with the one before it."""


def judge(theirs: float, noise: float, ours: Difference | None, consistent: bool = True) -> tuple[str, str]:
    """(verdict, why): whether a difference of the paper holds here, by the rule above.

    theirs, noise  the paper's difference, and what may be chance in it; points
    ours           our paired difference over seeds; None where too few seeds have both runs
    consistent     whether the paper's rows follow from their own cells
    """
    if not consistent:
        return "undecided", INCONSISTENT
    if abs(theirs) <= noise:
        return "undecided", NOISE
    if ours is None:
        return "undecided", MISSING
    verdict = decided(ours.low, ours.high) if theirs > 0 else decided(-ours.high, -ours.low)
    return verdict, {"holds": "same sign", "contradicted": "opposite sign", "undecided": ZERO}[verdict]


def judge_together(parts: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """(verdict, counts) on a claim that is made of several comparisons, of which each has a verdict and why.

    Contradicted if one of them is. It holds if all hold for which the paper's own numbers give something to reproduce;
    there must be one. Otherwise, and where runs are missing or an interval contains zero, it is undecided.
    """
    if not parts:
        return "undecided", NOTHING
    kinds = [why if verdict == "undecided" else verdict for verdict, why in parts]
    counts = ", ".join(f"{kinds.count(kind)} {short}" for kind, short in SHORT.items() if kind in kinds)
    if "contradicted" in kinds:
        return "contradicted", counts
    reproducible = set(kinds) - {NOISE, INCONSISTENT, OPPOSITE}
    return "holds" if reproducible == {"holds"} else "undecided", counts


# The paper's own noise


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


def _consistent(row: Mapping[str, Any]) -> bool:
    if any(np.isnan(row[c]) for c in CELLS):
        return True
    again = paper.recompute(row)
    return again.form != "neither" and max(map(abs, again.errors.values())) <= paper.ROUNDING


# Comparisons


def table_of(block: Block) -> str:
    """Which table a block is of, such as "Table 3"."""
    return f"Table {next(iter(block.values()))['table']}"


def pairs(block: Block) -> list[tuple[str, str]]:
    """Titles of the two rows of each comparison that a printed table makes, of one task.

    Every row against the baseline (in a table of steps against the row before it), and the proposed method against every
    row. With several proposed rows the one that the paper settles on counts: the assumed ratio 1:9, as many synthetic faces
    as real ones, the last prompt.
    """
    titles, table = list(block), table_of(block)
    if table in STEPS:
        found, proposed = list(zip(titles[1:], titles, strict=False)), titles[-1]
    else:
        starts = [title for title in titles if block[title]["method"] in BASELINES]
        baseline = "Full fine-tuning" if table == "Table 6" else starts[0] if starts else ""
        found = [(title, baseline) for title in titles if baseline not in ("", title)]
        candidates = [title for title in titles if block[title]["method"] in PROPOSED]
        settled = [title for title in candidates if title in ("AIM-Fair, 1:9", "AIM-Fair, as many")]
        proposed = (settled or candidates)[0]
    found += [(proposed, title) for title in titles if title != proposed]
    return list(dict.fromkeys(found))


def comparisons(reading: Reading) -> pd.DataFrame:
    """Every comparison of the paper that the study has a place for, with its verdict: see :func:`compared`."""
    lines = [
        compared(reading, block, row, against, metric)
        for block in reading.blocks
        for row, against in pairs(block)
        for metric in METRICS
    ]
    return pd.DataFrame(lines)


def compared(
    reading: Reading,
    block: Block | str,
    row: str,
    against: str,
    metric: str,
    sign: int = 0,
    margin: float = 0.0,
) -> dict[str, Any]:
    """One comparison: ``row`` minus ``against``, the paper's and ours.

    block   the printed rows; or the name of a figure, of which only the ``sign`` is told, in the study's own task
    sign    that of the difference which the paper's text claims, 1 or -1; 0: that of the printed one. A claim that its own
            table does not show is undecided
    margin  points that are added to both differences: "not more than a point worse" is a margin of 1
    Keys: study, table, task (the paper's), where (our setting), row, against, metric, paper and noise (points), ours, low,
    high (points), p (sign-flip; these four NaN without runs), seeds, verdict, why.
    """
    if isinstance(block, str):
        table = block
        task = where = f"{reading.profile.target} / {reading.profile.protected}"
        theirs, chance, consistent = float("nan"), 0.0, True
    else:
        a, b = block[row], block[against]
        table, task, where = table_of(block), a["task"], a["where"]
        theirs, chance = float(a[metric] - b[metric]), noise(a, b, metric)
        consistent = _consistent(a) and _consistent(b)
    first, second = (reading.values(table, where, title, metric) for title in (row, against))
    seeds = first.index.intersection(second.index)
    ours = paired_difference(first[seeds] + margin, second[seeds]) if len(seeds) >= FEWEST else None
    verdict, why = judge(sign if np.isnan(theirs) else theirs + margin, chance, ours, consistent)
    if sign * (theirs + margin) < 0 and why not in (NOISE, INCONSISTENT):
        verdict, why = "undecided", OPPOSITE
    mean, low, high, p = (np.nan,) * 4 if ours is None else (ours.mean, ours.low, ours.high, ours.p)
    return {
        **{"study": reading.name, "table": table, "task": task, "where": where},
        **{"row": row, "against": against, "metric": metric, "paper": theirs, "noise": chance},
        **{"ours": mean - margin, "low": low - margin, "high": high - margin, "p": p, "seeds": len(seeds)},
        **{"verdict": verdict, "why": why},
    }


# Claims


@dataclass(frozen=True)
class PaperClaim:
    """A sentence of the paper in our words, the tables or figures that it is about, and what would have to be seen.

    parts       (row, against, metric, sign, margin): see :func:`compared`
    everywhere  of a figure: the paper says it of all its data sets, not of Smiling / Male alone
    """

    text: str
    where: tuple[str, ...]
    parts: tuple[tuple[str, str, str, int, float], ...]
    everywhere: bool = False


@cache
def paper_claims() -> tuple[PaperClaim, ...]:
    """The claims of ``data/paper/claims.yaml``, in its order."""
    found = []
    for claim in statements()["claims"]:
        parts = tuple(
            (part["row"], other, has[1:], 1 if has[0] == "+" else -1, part.get("margin", 0.0))
            for part in claim["parts"]
            for other in part["than"]
            for has in part["has"].split()
        )
        found.append(PaperClaim(claim["text"], tuple(claim["where"]), parts, claim.get("everywhere", False)))
    return tuple(found)


def evidence(claim: PaperClaim, reading: Reading) -> pd.DataFrame:
    """The comparisons that decide a claim in a study, in every task there, a line each: keys of :func:`compared`.

    Empty where the paper prints nothing of the study's kind.
    """
    found = [
        compared(reading, block, *part)
        for block in reading.blocks
        if table_of(block) in claim.where
        for part in claim.parts
        if part[0] in block and part[1] in block
    ]
    task = f"{reading.profile.target} / {reading.profile.protected}"
    drawn = reading.profile.dataset == "faceworld" or task == "Smiling / Male" or claim.everywhere
    figures = [name for name in claim.where if name.startswith("Figure") and drawn and reading.has(name)]
    found += [compared(reading, figure, *part) for figure in figures for part in claim.parts]
    return pd.DataFrame(found)


def judge_claim(claim: PaperClaim, reading: Reading) -> tuple[str, str]:
    """(verdict, why) on a claim in one study: how many of its comparisons say what.

    One comparison suffices to contradict a claim, and the more a claim has, the sooner one does so by chance. Beside
    "contradicted" stands therefore the smallest p-value of a contradicting comparison, adjusted for all that the claim has
    here (Holm).
    """
    found = evidence(claim, reading)
    verdict, why = judge_together([(line.verdict, line.why) for line in found.itertuples()])
    if verdict != "contradicted":
        return verdict, why
    judged = found[found["verdict"].ne("undecided") | found["why"].eq(ZERO)]
    p = holm(judged["p"])[judged["verdict"].eq("contradicted")].min()
    return verdict, f"{why}; Holm p {p:.3f}"


def judge_claims(readings: Sequence[Reading]) -> pd.DataFrame:
    """A row per claim of the paper: its words, where the paper makes it, and for each study the verdict and the counts
    behind it. Columns are ``claim``, ``paper``, and (name of the study) and (name of the study + " why")."""
    rows = []
    for claim in paper_claims():
        row = {"claim": claim.text, "paper": " and ".join(claim.where)}
        for reading in readings:
            row[reading.name], row[f"{reading.name} why"] = judge_claim(claim, reading)
        rows.append(row)
    return pd.DataFrame(rows)


def show_claims(readings: Sequence[Reading], link: str = "") -> pd.DataFrame:
    """The paper's claims with their verdicts, a column per study: :func:`judge_claims` in words.

    link  of the section about a table or figure, with {} for its name in small letters ("table-3"); empty: no link
    """
    table = judge_claims(readings)
    shown = table[["claim", "paper"]].copy()
    if link:
        shown["paper"] = [
            " and ".join(f'<a href="{link.format(name.lower().replace(" ", "-"))}">{name}</a>' for name in names)
            for names in table["paper"].str.split(" and ")
        ]
    form = "<strong>{} {}</strong> ({})" if link else "{} {} ({})"
    for study in (reading.name for reading in readings):
        shown[study] = [
            "–" if why == NOTHING else form.format(MARKS[verdict], WORDS[verdict], why)
            for verdict, why in zip(table[study], table[f"{study} why"], strict=True)
        ]
    return shown
