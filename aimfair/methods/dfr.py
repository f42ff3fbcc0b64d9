"""Deep feature re-weighting: relearn the last layer on group-balanced validation faces. An oracle."""

from collections.abc import Mapping
from typing import Any

from aimfair.methods import Bench, Fitted, Method
from aimfair.methods._dfr import averaged, halves, tuned, worst_group
from aimfair.methods._head import described, mean_loss, with_rule


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """DFR-Val: its own validation accuracy is that of the faces it was fitted on.

    C        inverse strength of the L1 penalty; None: the best of five on the other half of the validation set, by the
             worst group, a single subset each. The released code tries seven.
    repeats  20 balanced subsets of the whole validation set, whose rules are averaged
    """
    model = bench.biased_model()
    faces = described(model, bench.validation, bench.device)
    one, other = halves(faces, bench.seed)
    c, tried = tuned(lambda c: averaged(one, c, 1, bench.seed), lambda rule: worst_group(other, rule), hyper["C"])
    rule = averaged(faces, c, hyper["repeats"], bench.seed)
    fitted = with_rule(bench, model, *rule, mean_loss(faces, rule))
    fitted.scores |= {"C": c, "tried": tried, "weights_used": int((rule[0] != 0).sum())}
    return fitted


METHOD = Method(
    name="dfr",
    title="DFR (oracle)",
    source="Kirichenko et al., ICLR 2023, arXiv 2204.02937 (DFR-Val)",
    start="biased model",
    fit=fit,
    needs=frozenset({"validation protected"}),
    defaults={"C": None, "repeats": 20},
)
