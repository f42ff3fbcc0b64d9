"""Which factor moves a number: its variance over a full grid of settings, taken apart."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from aimfair.environment import AimfairError


def variance_shares(frame: pd.DataFrame, value: str, factors: Sequence[str]) -> dict[str, float]:
    """Per cent of the sum of squares of ``value`` that each factor's main effect explains, and "together" for the rest.

    frame  one row for each combination of the factors' levels: in such a grid main effects do not overlap, and what is
           left are interactions and noise
    For factors a, b, ... with grand mean m the share of a is the sum over rows of (mean of the row's level of a - m)^2
    over that of (value - m)^2. All shares are 0 where nothing varies. Raises AimfairError for a grid with holes or
    repetitions.
    """
    levels = 1
    for factor in factors:
        levels *= frame[factor].nunique()
    if frame.empty or len(frame) != levels or frame.duplicated(list(factors)).any():
        raise AimfairError(
            f"one row for each combination of {', '.join(factors)} is needed: {levels}, not {len(frame)}"
        )
    x = frame[value].astype(float)
    whole = float(((x - x.mean()) ** 2).sum())
    parts = {f: float(((x.groupby(frame[f]).transform("mean") - x.mean()) ** 2).sum()) for f in factors}
    shares = {name: 100 * part / whole if whole > 0 else 0.0 for name, part in parts.items()}
    return shares | {"together": 100 - sum(shares.values()) if whole > 0 else 0.0}
