"""A study beside the paper: its finished runs, and the rows that the paper prints for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pandas as pd
import yaml

from aimfair import masks, methods, paper
from aimfair.environment import home
from aimfair.paper import tables as paper_tables
from aimfair.study import grid, profiles, tables
from aimfair.study.grid import Machine, experiments, study_of
from aimfair.study.grid.experiments import GAPS, Cell, Experiment
from aimfair.study.profiles import Profile

Block = dict[str, dict[str, Any]]
"""The printed rows of one task of a table, by title of our row. To each printed row come ``where``, our setting, and
``task``, the paper's."""

BEST_SHARE = "Random selection, best share"
EARLY, LATE = "selected, early half", "selected, late half"
"""Rows of Figure 8: how many tensors are selected in the two halves of a ResNet-18."""

FIRST_HALF = ("conv1", "bn1", "layer1", "layer2")
"""30 of the 62 tensors of a ResNet-18."""


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
        """What a row has of a metric, by seed; empty where it has no runs. "eo" is the paper's form: the mean of the two
        gaps in Table 8, the larger one everywhere else."""
        found = self.chosen.get((table, where, row))
        return pd.Series(dtype=float) if found is None else found[form_of(table, metric)].dropna()


def form_of(table: str, metric: str) -> str:
    """What our metric is called that the table prints as ``metric``."""
    return metric if metric != "eo" else "eo_mean" if table == "Table 8" else "eo_max"


def read(profile: str, changes: Mapping[str, Any] | None = None, machine: Machine | None = None) -> Reading:
    """Look up all runs of the paper's tables and figures, of a profile by name; nothing is computed.

    changes  fields of the profile that differ from its file
    machine  where to look; as ``aimfair grid status`` does where none is given
    """
    changes, machine = dict(changes or {}), machine or Machine()
    p = profiles.load(profile, **changes)
    chosen: dict[tuple[str, str, str], pd.DataFrame] = {}
    known: dict[str, pd.DataFrame] = {}
    inventory, blocks = {}, []
    for name, experiment in paper_tables.all_of(p).items():
        cells = experiments.cells(experiment, profile, changes, experiment.seeds(p))
        identified = grid.identified(cells, machine)
        absent = len(grid.missing(identified, machine))
        inventory[name] = (experiment.title, len(identified), len(identified) - absent, absent)
        kept = paper_tables.PRINTED if name == "Table 1" else methods.registry()
        found, _ = grid.chosen([cell for cell in cells if cell.method in kept], machine, known)
        halves = _halves([cell for cell in cells if cell.method == GAPS], machine)
        for part in (found, _best_share(experiment, found), halves):
            for (where, row), lines in part.groupby(["setting", "method"], sort=False):
                chosen[name, where, row] = lines.set_index("seed")
        blocks += _blocks(experiment, p)
    columns = ["title", "runs", "there", "missing"]
    return Reading(p.profile, p, chosen, pd.DataFrame.from_dict(inventory, orient="index", columns=columns), blocks)


@cache
def statements() -> dict[str, Any]:
    """``data/paper/claims.yaml``: the paper's claims, and our names of its methods and rows."""
    return yaml.safe_load((home() / "data" / "paper" / "claims.yaml").read_text(encoding="utf-8"))


def _best_share(experiment: Experiment, found: pd.DataFrame) -> pd.DataFrame:
    """Of the shares of a random selection the best one of each setting, by the rule by which everything is chosen."""
    shares = [row.title for row in experiment.rows if row.method == "random-ratio"]
    rows = found[found["method"].isin(shares)].assign(searched=len(shares))
    return tables.choose(rows, among="method", by=["setting"]).assign(method=BEST_SHARE)


def _halves(cells: Sequence[Cell], machine: Machine, k: int = 55) -> pd.DataFrame:
    rows = []
    for cell in cells:
        opened = study_of(cell, machine)
        run = opened.find(opened.config(GAPS, {}, cell.seed))
        if run is not None:
            domain_gap, bias_gap = run.scores["train"]["absolute"]
            picked = masks.select(domain_gap, bias_gap, k)
            early = sum(name.startswith(FIRST_HALF) for name in picked)
            rows += [(cell.setting, EARLY, cell.seed, early), (cell.setting, LATE, cell.seed, len(picked) - early)]
    return pd.DataFrame(rows, columns=["setting", "method", "seed", "tensors"])


def _blocks(experiment: Experiment, p: Profile) -> list[Block]:
    """The paper's rows of a table for which ``p`` has a setting, task by task.

    Photographs: those of their own data set and task. FaceWorld stands for every task that it has, and its own one for
    that of a table which the paper prints for a single one.
    """
    frame = paper.results()
    rows = frame[experiment.name == "Table " + frame["table"].astype(str)].copy()
    rows["where"] = tasks = rows["target"] + " / " + rows["protected"]
    if p.dataset != "faceworld":
        rows = rows[(rows["dataset"].str.lower() == p.dataset) & (tasks == f"{p.target} / {p.protected}")].copy()
    if rows["where"].nunique() == 1 and len(experiment.settings) == 1:
        rows["where"] = next(iter(experiment.settings))
    shares = rows["setting"].str.startswith("sample_ratio=")
    rows.loc[shares, "where"] = rows.loc[shares, "setting"].map(lambda s: f"{float(s[13:]):.0%} of the faces")
    found: dict[tuple[str, str], Block] = {}
    for row in rows[rows["where"].isin(list(experiment.settings))].to_dict("records"):
        task, where = f"{row['target']} / {row['protected']}", row["where"]
        if " / " not in where:  # a setting that is a size stands for itself
            task = where
        elif task != where:
            task = f"{task}, here {where}"
        found.setdefault((row["dataset"], where), {})[_title(row)] = {**row, "task": task}
    return list(found.values())


def _title(row: Mapping[str, Any]) -> str:
    known = statements()
    for name in (row["setting"], row["method"]):
        if name in known["rows"]:
            return known["rows"][name]
    return methods.get(known["methods"][row["method"]]).title
