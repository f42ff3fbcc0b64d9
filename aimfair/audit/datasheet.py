"""What a user keeps of an audit: its tables as CSV, a contact sheet with the disagreements marked, and a page of words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from torch import Tensor

from aimfair import stats
from aimfair.audit import nuisances
from aimfair.audit.report import ALL, PoolAudit
from aimfair.environment import aside
from aimfair.faces import FaceSet
from aimfair.progress import in_words

COLUMNS = 12
"""Faces in a row of the contact sheet."""

FRAMES = {"target": (230, 159, 0), "protected": (0, 114, 178)}
"""Colour of the frame around a face whose label the judge does not see: of the target orange, along top and left; of the
protected attribute blue, along bottom and right."""

LOW_AGREEMENT, MANY_DUPLICATES, LARGE_GAP, FEW = 90.0, 0.01, {"said": 5.0, "seen": 10.0, "measured": 0.3}, 256
"""What a datasheet warns of: per cent, share of faces, gap by kind (where it is more than chance as well), faces per group
that are compared."""

MISSED = 5.0
"""Points by which a detector finds fewer synthetic faces than real ones, chance aside, before a datasheet warns."""

_WORDS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))


def write(found: PoolAudit, sheet: Any, out: Path) -> list[Path]:
    """Write audit.csv, nuisances.csv, duplicates.csv, contact-sheet.png and datasheet.md into ``out``; returns them.

    sheet  the figure of the contact sheet (:func:`tiles`)
    Raises AimfairError where nothing can be written.
    """
    parts = {
        "audit.csv": with_intervals(found.table),
        "nuisances.csv": found.nuisances,
        "duplicates.csv": found.duplicates,
    }
    then = "name another folder with --out"
    for name, table in parts.items():
        with aside(out / name, then) as partial:
            table.to_csv(partial, index=False, float_format="%.4f", lineterminator="\n")
    with aside(out / "contact-sheet.png", then) as partial:
        sheet.savefig(partial, dpi=150, format="png")
    with aside(out / "datasheet.md", then) as partial:
        partial.write_text(page(found), encoding="utf-8")
    return [out / name for name in (*parts, "contact-sheet.png", "datasheet.md")]


def tiles(found: PoolAudit, faces: FaceSet, columns: int) -> tuple[Tensor, list[str]]:
    """Images and titles of the rows of a contact sheet, as :func:`aimfair.plots.contact_sheet` draws them.

    Per group a row of ``columns`` faces as they come, then a row of those in which the judge sees another label, as far
    as there are any; both framed where it does. ``faces`` are those that were audited.
    """
    wrong = torch.from_numpy(found.wrong)
    rows, titles = [], []
    for group, name in enumerate(nuisances.GROUP_COLUMNS):
        member = (faces.groups == group).nonzero().flatten()
        doubted = member[wrong[member].any(1)]
        for title, places in ((name, member), (f"{name} ?", doubted)):
            chosen = places[(torch.arange(columns) * len(places)) // columns] if len(places) > columns else places
            row = torch.full((columns, *faces.images.shape[1:]), 255, dtype=torch.uint8)
            row[: len(chosen)] = framed(faces.images[chosen], wrong[chosen])
            rows.append(row)
            titles.append(title)
    return torch.cat(rows), titles


def framed(images: Tensor, wrong: Tensor) -> Tensor:
    """(N, 3, H, W) uint8 images, those with a wrong label, (N, 2) bool, with the frames of :data:`FRAMES`."""
    marked, width = images.clone(), max(2, images.shape[-1] // 16)
    for column, (label, side) in enumerate({"target": slice(0, width), "protected": slice(-width, None)}.items()):
        colour = torch.tensor(FRAMES[label], dtype=torch.uint8).view(3, 1, 1)
        for index in wrong[:, column].nonzero().flatten().tolist():
            marked[index, :, side] = colour
            marked[index, :, :, side] = colour
    return marked


def page(found: PoolAudit) -> str:
    """The datasheet in Markdown: how the faces were made, counts, agreement, variety, copies, nuisances, caveats."""
    return _WORDS["page"].format(
        target=found.about["target"],
        protected=found.about["protected"],
        made=_listed(f"{name}: {value}" for name, value in found.about.get("made", {}).items()),
        table=_markdown(with_intervals(found.table)),
        nuisances=_markdown(found.nuisances.groupby("kind", observed=True).head(5)),
        caveats=_listed(caveats(found)),
    )


def shown(found: PoolAudit) -> str:
    """The table for a terminal: a line per number, a column per row of the audit."""
    table = with_intervals(found.table).set_index(["set", "group"])
    return _words(table).T.rename_axis(index=None, columns=(None, None)).to_string()


def with_intervals(table: pd.DataFrame) -> pd.DataFrame:
    """The table of an audit; behind each share of agreement the ends of its 95 % interval (``... low``, ``... high``)."""
    wide = table.copy()
    for name in table.columns[table.columns.get_loc("faces") + 1 : table.columns.get_loc("compared")]:
        low, high = stats.wilson(table[name], table["faces"])
        place = wide.columns.get_loc(name)
        wide.insert(place + 1, f"{name} low", low)
        wide.insert(place + 2, f"{name} high", high)
    return wide


def caveats(found: PoolAudit) -> list[str]:
    """What a user of the set should know, one sentence each, made from the numbers."""
    return [_WORDS["caveats"][name].format(**numbers) for name, numbers in _facts(found)]


def _facts(found: PoolAudit) -> Iterator[tuple[str, dict[str, Any]]]:
    """Which caveats hold, each with its numbers."""
    table, about = with_intervals(found.table), found.about
    drawn, real = (table[table["set"] == what].set_index("group") for what in ("synthetic", "real"))
    groups, whole = drawn.drop(ALL), drawn.loc[ALL]
    look = ", whose look it did not learn," if about.get("dataset") == "faceworld" else ""
    for label in (about["target"], about["protected"]):
        for group, row in groups[groups[label] < LOW_AGREEMENT].iterrows():
            ends = {"share": row[label], "low": row[f"{label} low"], "high": row[f"{label} high"]}
            sure = ends["high"] < LOW_AGREEMENT
            doubt = "" if sure else f", of {row['faces']:.0f} faces: too few to be sure"
            yield "agreement", {"group": group, "label": label, "doubt": doubt} | ends
        yield "oracle", {"look": look, "label": label, "share": real.at[ALL, label]}
    if "face" not in drawn:
        yield "no detector", {}
    elif real.at[ALL, "face low"] - whole["face high"] > MISSED:
        yield "missed", {"drawn": whole["face"], "real": real.at[ALL, "face"]}
    if whole["duplicates"] > MANY_DUPLICATES * whole["faces"]:
        yield "duplicates", {"n": whole["duplicates"]}
    if whole["copies"]:
        yield "copies", {"n": whole["copies"]}
    for kind, limit in LARGE_GAP.items():
        rows = found.nuisances[found.nuisances["kind"] == kind]
        gaps = rows[list(nuisances.GAPS)].to_numpy()
        sure = ((gaps > limit) & (gaps > rows[list(nuisances.CHANCE)].to_numpy())).any(1)
        unsure = int(((gaps > limit).any(1) & ~sure).sum())
        if sure.any():
            yield "uneven", {"kind": kind, "names": ", ".join(rows["nuisance"][sure].head(5))}
        if unsure:
            numbers = {"kind": kind, "limit": limit, "unit": nuisances.KINDS[kind]}
            yield "unsure", {"gaps": in_words(unsure, "gap")} | numbers
    if "said gap" not in drawn:
        yield "no prompts", {}
    if groups["compared"].min() < FEW:
        yield "few", {"n": groups["compared"].min()}
    if about.get("skipped"):
        yield "skipped", {"n": len(about["skipped"]), "first": about["skipped"][0]}
    yield "labels", {}


def _listed(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _markdown(table: pd.DataFrame) -> str:
    return _words(table).to_markdown(index=False, disable_numparse=True)


def _words(table: pd.DataFrame) -> pd.DataFrame:
    """Numbers to one decimal, small ones to three digits; blank where there is none."""

    def word(value: Any) -> str:
        if not isinstance(value, (float, np.floating)):
            return str(value)
        number = float(value)
        if np.isnan(number):
            return ""
        return f"{number:.0f}" if number.is_integer() else f"{number:.1f}" if abs(number) >= 10 else f"{number:.3g}"

    return table.astype(object).map(word)
