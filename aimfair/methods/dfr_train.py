"""Deep feature re-weighting on group-balanced subsets of the training faces. An oracle."""

from collections.abc import Mapping
from typing import Any

from aimfair.methods import Bench, Fitted, Method
from aimfair.methods._dfr import averaged, tuned, worst_group
from aimfair.methods._head import described, mean_loss, with_rule


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """DFR-Tr: features of faces that the biased model was trained on, C by the worst group of the validation set.

    C             inverse strength of the L1 penalty; None: the best of five
    repeats       10 balanced subsets of the training set, whose rules are averaged
    class_weight  weight of target 1 against target 0; the released code also searches this, from 1/1000 to 1000
    """
    model = bench.biased_model()
    faces, held_out = (described(model, part, bench.device) for part in (bench.train, bench.validation))
    weight = hyper["class_weight"]
    c, tried = tuned(
        lambda c: averaged(faces, c, 1, bench.seed, weight), lambda rule: worst_group(held_out, rule), hyper["C"]
    )
    rule = averaged(faces, c, hyper["repeats"], bench.seed, weight)
    fitted = with_rule(bench, model, *rule, mean_loss(faces, rule))
    fitted.scores |= {"C": c, "tried": tried, "weights_used": int((rule[0] != 0).sum())}
    return fitted


METHOD = Method(
    name="dfr-train",
    title="DFR on training faces (oracle)",
    source="Kirichenko et al., ICLR 2023, arXiv 2204.02937 (DFR-Tr)",
    start="biased model",
    fit=fit,
    needs=frozenset({"train protected", "validation protected"}),
    defaults={"C": None, "repeats": 10, "class_weight": 1.0},
)
