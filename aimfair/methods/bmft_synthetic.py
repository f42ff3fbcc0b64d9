"""BMFT with the balanced synthetic faces as its debiasing set: a rival of AIM-Fair, element by element."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aimfair.methods import Bench, Fitted, bmft


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """No group label of a real face is read; see :func:`aimfair.methods.bmft.debias`."""
    return bmft.debias(bench, hyper, bench.balanced, "validation-accuracy")


METHOD = replace(
    bmft.METHOD,
    name="bmft-synthetic",
    title="BMFT on synthetic",
    source="Xue et al., FAIMI 2024, on the synthetic set",
    fit=fit,
    needs=frozenset({"synthetic"}),
)
