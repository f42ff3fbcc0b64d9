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
from scipy.stats import spearmanr

from aimfair import experiments, grid, masks, methods, paper, profiles
from aimfair.engines import Machine, study_of
from aimfair.experiments import GAPS, Cell, Experiment
from aimfair.metrics import CELLS
from aimfair.profiles import Profile
from aimfair.stats import Difference, binomial_error, interval, paired_difference
from aimfair.study import SEEDS

WORDS = ("stands", "contradicted", "cannot be judged")
METRICS = ("acc", "wst", "eo")

Block = dict[str, dict[str, Any]]
"""The printed rows of one task of a table, by title."""

FEWEST = 3
"""Seeds that a comparison needs."""

NOISE, INCONSISTENT, MISSING, ZERO = (
    "the paper's difference is within its own noise",
    "the paper's row does not follow from its own cells",
    "runs are missing",
    "our interval contains zero",
)
"""Why a comparison cannot be judged."""

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

PROPOSED = ("AIM-Fair", "AIM-Fair (absolute difference)", "Selective fine-tuning")
BASELINES = ("ERM", "ERM (baseline)")
STEPS = (5,)
"""Tables whose rows are steps: each is compared with the one before it."""

METHODS = {
    "ERM": "erm", "ERM (baseline)": "erm", "CVaR DRO": "cvar-dro", "EIIL": "eiil", "LfF": "lff", "JTT": "jtt",
    "MAPLE": "maple", "DiGA": "diga", "LTGC": "ltgc-mixing", "LoRA": "lora",
    "Trained on synthetic data": "synthetic-only", "Data supplementation": "supplementation",
    "Data repairing": "repairing", "Linear probing": "linear-probing", "Full fine-tuning": "full-finetuning",
    "Sub-tuning, update one block (best)": "update-one-block",
    "Sub-tuning, freeze one block (best)": "freeze-one-block",
    "Selective fine-tuning (cosine similarity)": "aim-fair-cosine",
    **dict.fromkeys(PROPOSED, "aim-fair"),
}  # fmt: skip
"""Names of the paper's rows -> names of methods here."""

BEST_SHARE = "Random selection, best share"
TITLES = {
    "Random selection (best ratio)": BEST_SHARE,
    "prompts=plain;n=1": "Plain prompt",
    "prompts=contextual;n=25": "25 contextual prompts",
    "prompts=contextual;n=50": "50 contextual prompts",
    "prompts=contextual+head_poses;n=50": "50 contextual prompts with head poses",
    **{f"synthetic_bias={ratio}": f"AIM-Fair, {ratio}" for ratio in ("1:9", "2:8", "3:7", "4:6")},
    "synthetic_to_real=0.5": "AIM-Fair, half as many",
    "synthetic_to_real=1": "AIM-Fair, as many",
    "synthetic_to_real=1.5": "AIM-Fair, 1.5 times as many",
    "synthetic_to_real=2": "AIM-Fair, twice as many",
}
"""Names of the paper's rows and settings -> titles of our rows (:mod:`aimfair.experiments`), where no method is one."""

EARLY = ("conv1", "bn1", "layer1", "layer2")
"""First half of ResNet-18: 30 of its 62 tensors."""


# ------------------------------------------------------------------------------------------------------- the rule


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


# -------------------------------------------------------------------------------------------- what is here and there


@dataclass(frozen=True, eq=False)
class Reading:
    """A study as far as its runs are there.

    chosen     (table, setting, title of a row) -> what :func:`aimfair.grid.chosen` shows of it, a line per seed
    inventory  a row per table and figure: how many runs it has, how many are there, how many are missing
    blocks     the paper's rows that the study has a place for, table by table and task by task
    """

    name: str
    profile: Profile
    chosen: dict[tuple[str, str, str], pd.DataFrame]
    inventory: pd.DataFrame
    blocks: list[Block]

    def has(self, table: str) -> bool:
        """Whether the table or figure has any run in this study, computed or not."""
        return bool(self.inventory.loc[table, "runs"])

    def values(self, table: str, where: str, row: str, metric: str) -> pd.Series:
        """What a row has of a metric, by seed; empty where it has no runs."""
        found = self.chosen.get((table, where, row))
        return pd.Series(dtype=float) if found is None else found[metric].dropna()


def read(profile: str, changes: Mapping[str, Any] | None = None, machine: Machine | None = None) -> Reading:
    """Look up all runs of the paper's tables and figures, of a profile by name; nothing is computed.

    changes  fields of the profile that differ from its file
    machine  where to look; as ``aimfair grid status`` does where none is given
    """
    changes, machine = dict(changes or {}), machine or Machine()
    p = profiles.load(profile, **changes)
    chosen: dict[tuple[str, str, str], pd.DataFrame] = {}
    known: dict[tuple[str, ...], pd.DataFrame] = {}
    inventory, printed = {}, []
    for experiment in experiments.selected(p):
        cells = experiments.cells(experiment, profile, changes, SEEDS[: p.seeds])
        identified = grid.identified(cells, machine)
        lacking = len(grid.missing(identified, machine))
        inventory[experiment.name] = (experiment.title, len(identified), len(identified) - lacking, lacking)
        kept = experiments.PRINTED if experiment.name == "Table 1" else methods.registry()
        found, _ = grid.chosen([cell for cell in cells if cell.method in kept], machine, known)
        halves = _halves([cell for cell in cells if cell.method == GAPS], machine)
        for part in (found, _best_share(experiment, found), halves):
            for (where, row), lines in part.groupby(["setting", "method"], sort=False):
                chosen[experiment.name, where, row] = lines.set_index("seed")
        printed += _blocks(experiment, p)
    columns = ["title", "runs", "there", "missing"]
    return Reading(p.profile, p, chosen, pd.DataFrame.from_dict(inventory, orient="index", columns=columns), printed)


def changes_of(p: Profile, profile: str) -> dict[str, Any]:
    """The fields in which ``p`` differs from the file of ``profile``: what a notebook was given beside the name."""
    file = profiles.load(profile)
    return {name: getattr(p, name) for name in profiles.FIELDS if getattr(p, name) != getattr(file, name)}


def _best_share(experiment: Experiment, found: pd.DataFrame) -> pd.DataFrame:
    """Of the shares of a random selection the best one of each seed, by what everything is chosen by."""
    shares = [row.title for row in experiment.rows if row.method == "random-ratio"]
    rows = found[found["method"].isin(shares)]
    if rows.empty:
        return rows
    whole = rows.groupby(["setting", "seed"])["method"].transform("size") == len(shares)
    best = rows[whole].sort_values("selection", ascending=False, kind="stable")
    return best.groupby(["setting", "seed"]).head(1).assign(method=BEST_SHARE)


def _halves(cells: Sequence[Cell], machine: Machine, k: int = 55) -> pd.DataFrame:
    """How many tensors are selected in the two halves of a ResNet-18, as rows of a table with the metric ``tensors``."""
    rows = []
    for cell in cells:
        opened = study_of(cell, machine)
        run = opened.find(opened.config(GAPS, {}, cell.seed))
        if run is not None:
            domain_gap, bias_gap = run.scores["train"]["absolute"]
            picked = masks.select(domain_gap, bias_gap, k)
            early = sum(name.startswith(EARLY) for name in picked)
            for row, tensors in (("selected, early half", early), ("selected, late half", len(picked) - early)):
                rows.append({"setting": cell.setting, "method": row, "seed": cell.seed, "tensors": tensors})
    return pd.DataFrame(rows, columns=["setting", "method", "seed", "tensors"])


def _blocks(experiment: Experiment, p: Profile) -> list[Block]:
    """The paper's rows of a table for which ``p`` has a setting, task by task. To each printed row come ``where``, our
    setting, ``task``, the paper's, and ``consistent``: whether it follows from its own cells.

    Photographs: those of their own data set and task. FaceWorld stands for every task that it has, and its own one for
    that of a table which the paper prints for a single one.
    """
    frame = paper.results()
    rows = frame[experiment.name == "Table " + frame["table"].astype(str)].copy()
    tasks = rows["target"] + " / " + rows["protected"]
    if p.dataset != "faceworld":
        mine = (rows["dataset"].str.lower() == p.dataset) & (tasks == f"{p.target} / {p.protected}")
        rows, tasks = rows[mine].copy(), tasks[mine]
    rows["where"] = tasks
    if tasks.nunique() == 1 and len(experiment.settings) == 1:
        rows["where"] = next(iter(experiment.settings))
    shares = rows["setting"].str.startswith("sample_ratio=")
    rows.loc[shares, "where"] = rows.loc[shares, "setting"].map(lambda s: f"{float(s[13:]):.0%} of the faces")
    found: dict[tuple[str, str], Block] = {}
    for row in rows[rows["where"].isin(list(experiment.settings))].to_dict("records"):
        block = found.setdefault((row["dataset"], row["where"]), {})
        block[_title(row)] = {**row, "task": _task(row), "consistent": _consistent(row)}
    return list(found.values())


def _task(row: Mapping[str, Any]) -> str:
    """The paper's task, and ours where it is another one; a setting that is a size stands for itself."""
    task, where = f"{row['target']} / {row['protected']}", row["where"]
    if " / " not in where:
        return where
    return task if where == task else f"{task}, here {where}"


def _title(row: Mapping[str, Any]) -> str:
    for name in (row["setting"], row["method"]):
        if name in TITLES:
            return TITLES[name]
    return methods.get(METHODS[row["method"]]).title


# --------------------------------------------------------------------------------------------- differences and orders


def pairs(block: Block) -> list[tuple[str, str]]:
    """Titles of the two rows of each comparison that a printed table makes, of one task.

    Every row against the baseline (in a table of steps against the row before it), and the proposed method against every
    row. With several proposed rows the one that the paper settles on counts: the assumed ratio 1:9, as many synthetic faces
    as real ones, the last prompt.
    """
    titles = list(block)
    table = block[titles[0]]["table"]
    if table in STEPS:
        found, proposed = list(zip(titles[1:], titles, strict=False)), titles[-1]
    else:
        baseline = (
            "Full fine-tuning" if table == 6 else next((t for t in titles if block[t]["method"] in BASELINES), "")
        )
        candidates = [title for title in titles if block[title]["method"] in PROPOSED]
        settled = [title for title in candidates if title in ("AIM-Fair, 1:9", "AIM-Fair, as many")]
        found, proposed = (
            [(title, baseline) for title in titles if baseline not in ("", title)],
            (settled or candidates)[0],
        )
    found += [(proposed, title) for title in titles if title != proposed]
    return list(dict.fromkeys(found))


def comparisons(reading: Reading) -> pd.DataFrame:
    """Every comparison of the paper that the study has a place for, with its verdict: see :func:`compared`."""
    return pd.DataFrame(
        [
            compared(reading, block, row, against, metric)
            for block in reading.blocks
            for row, against in pairs(block)
            for metric in METRICS
        ]
    )


def compared(
    reading: Reading, block: Block, row: str, against: str, metric: str, margin: float = 0.0, sign: int = 0
) -> dict[str, Any]:
    """One comparison: ``row`` minus ``against``, the paper's and ours.

    margin  points that are added to both differences: "not more than a point worse" is a margin of 1
    sign    that of the difference which the paper's text claims, 1 or -1; 0: that of the printed one. A claim that its own
            table does not show cannot be judged
    Keys: study, table, task (the paper's), where (our setting), row, against, metric, paper and noise (points), ours, low,
    high (points; NaN without runs), seeds, verdict, why.
    """
    a, b = block[row], block[against]
    theirs, chance = float(a[metric] - b[metric]), noise(a, b, metric)
    table, where = f"Table {a['table']}", a["where"]
    ours, seeds = difference(reading, table, where, row, against, _form(a["table"], metric), margin)
    judged = verdict(theirs + margin, chance, ours, a["consistent"] and b["consistent"])
    if sign * (theirs + margin) < 0 and judged.why not in (NOISE, INCONSISTENT):
        judged = Verdict("cannot be judged", OPPOSITE)
    at = {"table": table, "task": a["task"], "where": where}
    what = {"row": row, "against": against, "metric": metric, "paper": theirs, "noise": chance}
    return {"study": reading.name, **at, **what, **_told(ours, margin, seeds, judged)}


def signed(reading: Reading, figure: str, row: str, against: str, metric: str, sign: int) -> dict[str, Any]:
    """A comparison of which the paper tells only the sign, such as those of its figures: keys as :func:`compared`."""
    where = f"{reading.profile.target} / {reading.profile.protected}"
    ours, seeds = difference(reading, figure, where, row, against, _form(figure, metric))
    at = {"table": figure, "task": where, "where": where}
    what = {"row": row, "against": against, "metric": metric, "paper": float("nan"), "noise": 0.0}
    return {"study": reading.name, **at, **what, **_told(ours, 0.0, seeds, verdict(sign, 0.0, ours))}


def difference(
    reading: Reading, table: str, where: str, row: str, against: str, metric: str, margin: float = 0.0
) -> tuple[Difference | None, int]:
    """Our paired difference, ``margin`` added, and over how many seeds; None where there are fewer than :data:`FEWEST`."""
    a, b = (reading.values(table, where, title, metric) for title in (row, against))
    seeds = a.index.intersection(b.index)
    if len(seeds) < FEWEST:
        return None, len(seeds)
    return paired_difference(a[seeds] + margin, b[seeds]), len(seeds)


def orders(reading: Reading) -> pd.DataFrame:
    """Do the methods come in the paper's order? A row per table, task and metric.

    ``rho``: Spearman's rank correlation of a seed's values with the paper's, mean over seeds with its 95 % interval (within
    -1 and 1), over the rows that have runs (``rows``) of those that the paper prints (``of``); NaN where fewer than four
    rows share three seeds.
    """
    found = []
    for block in reading.blocks:
        first = next(iter(block.values()))
        table, where = f"Table {first['table']}", first["where"]
        for metric in METRICS:
            columns = {t: reading.values(table, where, t, _form(first["table"], metric)) for t in block}
            wide = pd.DataFrame({t: column for t, column in columns.items() if len(column) >= FEWEST}).dropna()
            line = {"study": reading.name, "table": table, "task": first["task"]}
            line |= {"metric": metric, "rho": np.nan, "low": np.nan, "high": np.nan, "seeds": len(wide)}
            if wide.shape[1] >= 4 and len(wide) >= FEWEST:
                theirs = [block[title][metric] for title in wide]
                each = [float(spearmanr(theirs, values).statistic) for values in wide.to_numpy()]
                low, high = np.clip(interval(each), -1, 1)
                line |= {"rho": float(np.mean(each)), "low": float(low), "high": float(high)}
            found.append({**line, "rows": wide.shape[1], "of": len(block)})
    return pd.DataFrame(found)


def tally(frame: pd.DataFrame, by: Sequence[str] = ("table", "study")) -> pd.DataFrame:
    """How many comparisons stand, are contradicted and cannot be judged, these by reason."""
    words = frame["verdict"].where(frame["verdict"] != "cannot be judged", frame["why"])
    counts = pd.crosstab([frame[name] for name in by], words)
    kept = [word for word in SHORT if word in counts]
    order = list(dict.fromkeys(frame[list(by)].itertuples(index=False, name=None)))
    return counts.loc[order, kept].rename(columns=SHORT).rename_axis(columns=None)


def _consistent(row: Mapping[str, Any]) -> bool:
    if any(np.isnan(row[c]) for c in CELLS):
        return True
    again = paper.recompute(row)
    return again.form != "neither" and max(map(abs, again.errors.values())) <= paper.ROUNDING


def _form(table: Any, metric: str) -> str:
    """The paper's EO is the mean of the two gaps in Table 8, the larger one everywhere else."""
    return metric if metric != "eo" else "eo_mean" if table == 8 else "eo_max"


def _told(ours: Difference | None, margin: float, seeds: int, judged: Verdict) -> dict[str, Any]:
    mean, low, high = (np.nan,) * 3 if ours is None else (ours.mean, ours.low, ours.high)
    said = {"ours": mean - margin, "low": low - margin, "high": high - margin, "seeds": seeds}
    return {**said, "verdict": judged.word, "why": judged.why}
