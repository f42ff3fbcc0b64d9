"""Which form of equalised odds does a table print? The distance of each row from both."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from aimfair.plots._style import COLOURS, GREY, WIDTH, as_frame, styled


@styled
def eo_forms(rows: pd.DataFrame) -> Figure:
    """Printed EO minus the EO of the printed cells, in the maximum and in the mean form, by table.

    rows  see :func:`aimfair.paper.recomputed`. A distance of zero is a match. A form whose distance is negative is
    excluded: the mean of per-seed values that tables print cannot fall below the value of the mean cells.
    """
    rows = as_frame(rows, "table", "eo", "eo_max", "eo_mean")
    tables = sorted(rows["table"].unique())
    # Rows of one table stand side by side in the order of the table.
    place = rows.groupby("table").cumcount() / rows.groupby("table")["eo"].transform("size") * 0.7 - 0.3
    x = rows["table"].map(tables.index) + place
    figure, axes = plt.subplots(figsize=(WIDTH, 3.4))
    axes.axhline(0, color=GREY, lw=1)
    axes.scatter(x, rows["eo"] - rows["eo_max"], 22, marker="o", color=COLOURS[0], label="maximum form")
    axes.scatter(x, rows["eo"] - rows["eo_mean"], 22, marker="s", fc="none", ec=COLOURS[3], label="mean form")
    axes.set_xticks(range(len(tables)), [f"Table {t}" for t in tables])
    axes.set(ylabel="printed EO minus recomputed (points)")
    axes.grid(visible=False, axis="x")
    figure.legend(loc="outside lower center", ncols=2)
    return figure
