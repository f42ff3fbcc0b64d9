"""AIM-Fair with differences relative to the size of the gradients, so that short tensors do not lead both rankings."""

from collections.abc import Mapping
from typing import Any

from aimfair import masks
from aimfair.gradients import gap
from aimfair.methods import CHECKPOINT_RULE, Bench, Fitted, Method, aim_fair
from aimfair.methods._finetune import finetune
from aimfair.methods._gradients import three_gradients


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """As :mod:`aimfair.methods.aim_fair` with score "relative", which is measured here and now: three passes.

    ``k`` and ``gradients`` mean the same there.
    """
    on_real, on_biased, on_balanced = three_gradients(bench, hyper["gradients"])
    domain_gap, bias_gap = gap(on_real, on_biased, "relative"), gap(on_biased, on_balanced, "relative")
    mask = masks.select(domain_gap, bias_gap, masks.scaled(hyper["k"], len(domain_gap)))
    fitted = finetune(bench, hyper, trainable=mask, what=f"AIM-Fair, relative, k={hyper['k']}")
    fitted.scores |= {"mask": sorted(mask), "rank_correlation": masks.rank_correlation(domain_gap, bias_gap)}
    return fitted


METHOD = Method(
    name="aim-fair-relative",
    title="AIM-Fair (relative)",
    source="an ablation of this book",
    start="biased model",
    fit=fit,
    needs=frozenset({"synthetic"}),
    defaults={name: value for name, value in aim_fair.METHOD.defaults.items() if name != "score"},
    search=aim_fair.METHOD.search,
    options=CHECKPOINT_RULE,
    beyond=True,
)
