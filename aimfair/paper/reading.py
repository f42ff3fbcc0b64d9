"""A study beside the paper: its finished runs, and the rows that the paper prints for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from aimfair import masks, methods, paper
from aimfair.paper import tables as paper_tables
from aimfair.paper.rule import PROPOSED, consistent
from aimfair.study import grid, profiles, tables
from aimfair.study.grid import experiments
from aimfair.study.grid.engines import Machine, study_of
from aimfair.study.grid.experiments import GAPS, Cell, Experiment
from aimfair.study.profiles import Profile

Block = dict[str, dict[str, Any]]
"""The printed rows of one task of a table, by title."""

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
"""Names of the paper's rows and settings -> titles of our rows (:mod:`aimfair.paper.tables`), where no method is one."""

EARLY = ("conv1", "bn1", "layer1", "layer2")
"""First half of ResNet-18: 30 of its 62 tensors."""


@dataclass(frozen=True, eq=False)
class Reading:
    """A study as far as its runs are there.

    chosen     (table, setting, title of a row) -> what :func:`aimfair.study.grid.chosen` shows of it, a line per seed
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
    known: dict[str, pd.DataFrame] = {}
    inventory, printed = {}, []
    for experiment in paper_tables.all_of(p).values():
        cells = experiments.cells(experiment, profile, changes, experiment.seeds(p))
        identified = grid.identified(cells, machine)
        lacking = len(grid.missing(identified, machine))
        inventory[experiment.name] = (experiment.title, len(identified), len(identified) - lacking, lacking)
        kept = paper_tables.PRINTED if experiment.name == "Table 1" else methods.registry()
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
    """Of the shares of a random selection the best one of each setting, by the rule by which everything is chosen."""
    shares = [row.title for row in experiment.rows if row.method == "random-ratio"]
    rows = found[found["method"].isin(shares)].assign(searched=len(shares))
    return tables.choose(rows, among="method", by=["setting"]).assign(method=BEST_SHARE)


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
        block[_title(row)] = {**row, "task": _task(row), "consistent": consistent(row)}
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
