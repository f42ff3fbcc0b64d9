"""The figures of the book. Use them as ``from aimfair import plots; plots.by_metric(...)``; each returns a Figure.

Two general ones carry most of the book: metrics with their intervals (:func:`by_metric`, :func:`by_row`), and the plane
of accuracy and fairness (:func:`accuracy_fairness`, :func:`paths`). Figures of single chapters lie in ``notebooks/beyond``.
"""

from aimfair.plots._style import (
    COLOURS,
    GREY,
    HATCHES,
    METHODS,
    WIDTH,
    as_frame,
    better,
    group_names,
    jpeg,
    looks,
    png,
    seaborn_looks,
    styled,
)
from aimfair.plots.faces import contact_sheet, group_bars
from aimfair.plots.metrics import by_metric, by_row, training_curve
from aimfair.plots.paper_figures import gap_rank, mask_by_layer
from aimfair.plots.plane import accuracy_fairness, learning_rate_curves, paths
