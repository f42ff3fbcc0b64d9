"""AIM-Fair with differences relative to their own sampling noise: which tensors differ more than chance explains?"""

from collections.abc import Mapping
from typing import Any

from aimfair import masks
from aimfair.gradient_noise import moments, signal_to_noise
from aimfair.methods import Bench, Fitted, Method, gradient_relative
from aimfair.methods._finetune import finetune
from aimfair.methods._gradients import on_three_sets


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """As :mod:`aimfair.methods.aim_fair`, with both gaps divided by their standard errors; three passes of its own.

    :mod:`aimfair.methods.gradient_relative` divides by the length of the gradients, which takes away the scale as well;
    a tensor whose gradients change from batch to batch still leads there. ``k`` and ``gradients`` mean the same.
    The two gaps per tensor are kept in ``scores["noise_gaps"]``: about 1 is what chance would show.
    """
    on_real, on_biased, on_balanced = on_three_sets(bench, hyper["gradients"], moments)
    domain_gap, bias_gap = signal_to_noise(on_real, on_biased), signal_to_noise(on_biased, on_balanced)
    mask = masks.select(domain_gap, bias_gap, masks.scaled(hyper["k"], len(domain_gap)))
    fitted = finetune(bench, hyper, trainable=mask, what=f"AIM-Fair, noise-scaled, k={hyper['k']}")
    fitted.scores |= {
        "mask": sorted(mask),
        "rank_correlation": masks.rank_correlation(domain_gap, bias_gap),
        "noise_gaps": [{name: round(gap[name], 3) for name in gap} for gap in (domain_gap, bias_gap)],
    }
    return fitted


METHOD = Method(
    name="aim-fair-noise",
    title="AIM-Fair (noise-scaled)",
    source="an extension of this book",
    start="biased model",
    fit=fit,
    needs=frozenset({"synthetic"}),
    defaults=gradient_relative.METHOD.defaults,
    search=gradient_relative.METHOD.search,
    options=gradient_relative.METHOD.options,
    beyond=True,
)
