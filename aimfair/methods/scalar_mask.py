"""AIM-Fair with the finest mask: it ranks single weights, as the element-wise product of Eq. 8 would allow."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aimfair.methods import Bench, Fitted, channel_mask


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """See :func:`aimfair.methods.channel_mask.selective`. A single weight's mean gradient is noisier than a tensor's gap."""
    return channel_mask.selective(bench, hyper, "scalar")


METHOD = replace(channel_mask.METHOD, name="scalar-mask", title="AIM-Fair, single weights", fit=fit)
