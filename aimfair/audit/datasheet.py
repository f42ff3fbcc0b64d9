"""What a user keeps of an audit: its tables as CSV, a contact sheet with the disagreements marked, and a page of words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from aimfair import plots, stats
from aimfair.audit import nuisances
from aimfair.audit.feature_metrics import ALIKE
from aimfair.audit.pool_audit import ALL, PoolAudit
from aimfair.environment import AimfairError
from aimfair.faces import FaceSet
from aimfair.progress import in_words
from aimfair.study import tables

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


def write(found: PoolAudit, faces: FaceSet, out: Path) -> list[Path]:
    """Write audit.csv, nuisances.csv, duplicates.csv, contact-sheet.png and datasheet.md into ``out``; returns them.

    ``faces`` are those that were audited. Raises AimfairError where nothing can be written.
    """
    parts = {
        "audit.csv": with_intervals(found.table),
        "nuisances.csv": found.nuisances,
        "duplicates.csv": found.duplicates,
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, table in parts.items():
            table.to_csv(out / name, index=False, float_format="%.4f", lineterminator="\n")
        contact_sheet(found, faces).savefig(out / "contact-sheet.png", dpi=150)
        (out / "datasheet.md").write_text(page(found), encoding="utf-8")
    except OSError as error:
        raise AimfairError(f"cannot write to {out} ({error.strerror}): name another folder with --out") from error
    return [out / name for name in (*parts, "contact-sheet.png", "datasheet.md")]


def contact_sheet(found: PoolAudit, faces: FaceSet, columns: int = COLUMNS) -> Any:
    """Per group a row of ``columns`` faces as they come, then a row of those in which the judge sees another label, as far
    as there are any; both framed where it does. Returns a figure."""
    wrong = torch.from_numpy(found.wrong)
    tiles, titles = [], []
    for group, name in enumerate(nuisances.GROUP_COLUMNS):
        member = (faces.groups == group).nonzero().flatten()
        doubted = member[wrong[member].any(1)]
        for what, places in ((name, member), (f"{name} ?", doubted)):
            chosen = places[(torch.arange(columns) * len(places)) // columns] if len(places) > columns else places
            row = torch.full((columns, *faces.images.shape[1:]), 255, dtype=torch.uint8)
            row[: len(chosen)] = framed(faces.images[chosen], wrong[chosen])
            tiles.append(row)
            titles.append(what)
    return plots.contact_sheet(torch.cat(tiles), titles, columns=columns)


def framed(images: Tensor, wrong: Tensor) -> Tensor:
    """(N, 3, H, W) uint8 images, those with a wrong label, (N, 2) bool, with the frames of :data:`FRAMES`."""
    marked, width = images.clone(), max(2, images.shape[-1] // 16)
    sides = {"target": (slice(0, width), slice(0, width)), "protected": (slice(-width, None), slice(-width, None))}
    for column, (label, (rows, columns)) in enumerate(sides.items()):
        colour = torch.tensor(FRAMES[label], dtype=torch.uint8).view(1, 3, 1, 1)
        for index in wrong[:, column].nonzero().flatten().tolist():
            marked[index : index + 1, :, rows] = colour
            marked[index : index + 1, :, :, columns] = colour
    return marked


def page(found: PoolAudit) -> str:
    """The datasheet in Markdown: how the faces were made, counts, agreement, variety, copies, nuisances, caveats."""
    about = found.about
    title = f"{about.get('target', 'target')} / {about.get('protected', 'protected')}"
    parts = [
        f"# Datasheet of a synthetic set: {title}\n",
        "## How it was made\n",
        _made(about),
        "## What was found\n",
        tables.WRITERS[".md"](_words(with_intervals(found.table))),
        _legend(found.table),
        "## Nuisances with the largest gaps\n",
        tables.WRITERS[".md"](_words(found.nuisances.groupby("kind", observed=True).head(5))),
        "A gap is the difference between target 0 and 1 within protected 0 or 1; of what is measured, in standard "
        "deviations. As large as `chance` it may be where nothing differs, among so many faces and so many gaps.\n",
        "## Caveats\n",
        "".join(f"- {line}\n" for line in caveats(found)),
    ]
    return "\n".join(parts)


def shown(found: PoolAudit) -> str:
    """The table for a terminal: a line per number, a column per row of the audit."""
    table = with_intervals(found.table).set_index(["set", "group"])
    return _words(table).T.rename_axis(index=None, columns=(None, None)).to_string()


def with_intervals(table: pd.DataFrame) -> pd.DataFrame:
    """The table of an audit; behind each share of agreement the ends of its 95 % interval (``... low``, ``... high``)."""
    columns = list(table.columns)
    parts = []
    for name in columns:
        parts.append(table[name])
        if columns.index("faces") < columns.index(name) < columns.index("compared"):
            low, high = stats.wilson(table[name], table["faces"])
            parts += [
                pd.Series(low, table.index, name=f"{name} low"),
                pd.Series(high, table.index, name=f"{name} high"),
            ]
    return pd.concat(parts, axis=1)


def caveats(found: PoolAudit) -> list[str]:
    """What a user of the set should know, one sentence each, made from the numbers."""
    table = with_intervals(found.table)
    drawn, real = (table[table["set"] == what].set_index("group") for what in ("synthetic", "real"))
    about, said = found.about, []
    labels = [about[name] for name in ("target", "protected") if name in about]
    unlearnt = ", whose look it did not learn," if about.get("dataset") == "faceworld" else ""
    for name in labels:
        for group, row in drawn[(drawn[name] < LOW_AGREEMENT) & (drawn.index != ALL)].iterrows():
            ends = f"{row[f'{name} low']:.1f} to {row[f'{name} high']:.1f}"
            few = "" if row[f"{name} high"] < LOW_AGREEMENT else f", of {row['faces']:.0f} faces: too few to be sure"
            said.append(
                f"In group {group} the judge sees {name} as asked for in {row[name]:.1f} % only (95 % interval {ends}{few})."
            )
        if len(real):
            said.append(
                f"Of real faces{unlearnt} the judge is right about {name} in "
                f"{real.at[ALL, name]:.1f} %: it is no oracle."
            )
    if "face" not in drawn:
        said.append(
            "Whether a face is to be seen at all was not measured: there is no detector here (pip install 'aimfair[audit]'). "
            "What is no face shows as a distance to real faces and on the contact sheet only."
        )
    elif len(real) and real.at[ALL, "face low"] - drawn.at[ALL, "face high"] > MISSED:
        said.append(
            f"A detector of photographed faces finds one in {drawn.at[ALL, 'face']:.1f} % of the synthetic faces and in "
            f"{real.at[ALL, 'face']:.1f} % of the real ones: the others may be broken, or drawn in a style that it does not "
            "know."
        )
    copied = int(drawn.at[ALL, "duplicates"])
    if copied > MANY_DUPLICATES * drawn.at[ALL, "faces"]:
        said.append(f"{copied} faces have a near-duplicate in the set: it holds fewer different faces than it counts.")
    if "copies" in drawn and drawn.at[ALL, "copies"]:
        said.append(
            f"{int(drawn.at[ALL, 'copies'])} faces are all but the same as a face of the real training set: look at them "
            "before the set is given to anybody."
        )
    for kind, limit in LARGE_GAP.items():
        rows = found.nuisances[found.nuisances["kind"] == kind]
        gaps = rows[list(nuisances.GAPS)].to_numpy()
        sure = ((gaps > limit) & (gaps > rows[list(nuisances.CHANCE)].to_numpy())).any(1)
        unsure = int(((gaps > limit).any(1) & ~sure).sum())
        if sure.any():
            names = ", ".join(rows["nuisance"][sure].head(5))
            said.append(f"Unevenly spread over the target ({kind}): {names}. A classifier can learn these instead.")
        if unsure:
            said.append(
                f"{in_words(unsure, 'gap')} ({kind}) of more than {limit:g} {nuisances.KINDS[kind]} could be chance, with so "
                "few faces: audit more of them to know."
            )
    if "said gap" not in drawn:
        said.append("The prompts are not known, so what they mention was not compared between groups.")
    if not len(real):
        said.append("There were no real faces to compare with.")
    elif drawn["compared"].drop(ALL).min() < FEW:
        said.append(
            f"As few as {int(drawn['compared'].drop(ALL).min())} faces of a group could be compared with real ones: read "
            "the distance only beside that of the real row, which is due to the small number alone."
        )
    if about.get("skipped"):
        said.append(f"{len(about['skipped'])} files were left out, the first: {about['skipped'][0]}.")
    said.append(
        "Labels are what prompts asked for, in two values; they say nothing about a person. Features and agreement are "
        "those of one judge: what it does not see is not in these numbers."
    )
    return said


def _made(about: Mapping[str, Any]) -> str:
    lines = [f"- folder: `{about.get('folder', '')}`", f"- profile: {about.get('profile', '')}"]
    made = about.get("made", {})
    lines += [f"- {name}: {', '.join(values[:5])}" for name, values in made.items() if any(values)]
    if not made:
        lines.append("- there is no manifest: how the images were made is not known")
    if about.get("selection", "none") != "none":
        lines.append(f"- selected from a larger pool by the rule: {about['selection']} (seed {about['seed']})")
    corpus = f", trained on {about['corpus'] or about.get('dataset')}" if about.get("judge") == "classifier" else ""
    lines.append(f"- judge: {about.get('judge', 'classifier')}{corpus}")
    if about.get("clip"):
        lines.append(f"- CLIP: {about['clip']}")
    return "\n".join(lines) + "\n"


def _legend(table: pd.DataFrame) -> str:
    lines = [
        "Rows: groups as target_protected; `synthetic` is the set, `real` as many real validation faces.",
        "Per cent: how often the judge sees the label that was asked for (`both`: target and protected label); `low` and "
        "`high`: the ends of its 95 % interval (Wilson).",
        *[
            "`face`: in how many per cent a detector finds a face, upright and from the front; compare with the real row."
        ]
        * ("face" in table),
        "`vendi`: effective number of different faces; `distance`: mean distance of two faces; `frechet`: distance to one "
        "half of the real faces, in the `real` row that of the other half; all three of `compared` faces, in the judge's "
        "features.",
        f"`duplicates`: faces that differ from another by less than {ALIKE:g} grey levels; `copies`: from a real training "
        "face.",
        "`gap`: the largest difference over the target of what prompts said (points), the judge saw (points), pixels "
        "measured (standard deviations).",
    ]
    if "trained" in table:
        lines.append("`trained`: accuracy on real validation faces of a classifier trained on the set alone, per cent.")
    return "\n".join(f"- {line}" for line in lines) + "\n"


def _words(table: pd.DataFrame) -> pd.DataFrame:
    """Numbers to one decimal, small ones to three digits; blank where there is none."""

    def word(value: Any) -> str:
        if isinstance(value, (float, np.floating)):
            number = float(value)
            if np.isnan(number):
                return ""
            return f"{number:.0f}" if number.is_integer() else f"{number:.1f}" if abs(number) >= 10 else f"{number:.3g}"
        return str(value)

    return table.astype(object).map(word)
