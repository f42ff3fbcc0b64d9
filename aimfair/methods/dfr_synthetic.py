"""Deep feature re-weighting on balanced synthetic faces: linear probing by a sparse logistic regression."""

from collections.abc import Mapping
from typing import Any

from aimfair.methods import Bench, Fitted, Method
from aimfair.methods._dfr import accuracy, averaged, tuned
from aimfair.methods._head import described, mean_loss, with_rule
from aimfair.models import evaluate


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """No group label of a real face is read: the groups are those of the prompts.

    C  inverse strength of the L1 penalty; None: the best of five by overall accuracy on real validation faces
    The synthetic set is balanced, so that its one balanced subset is all of it and there is nothing to average.
    """
    model = bench.biased_model()
    faces = described(model, bench.balanced, bench.device)
    x = evaluate(model, bench.validation, bench.device, output="features").double().numpy()
    y = bench.validation.target.numpy()
    c, tried = tuned(lambda c: averaged(faces, c, 1, bench.seed), lambda rule: accuracy(x, y, rule), hyper["C"])
    rule = averaged(faces, c, 1, bench.seed)
    fitted = with_rule(bench, model, *rule, mean_loss(faces, rule))
    fitted.scores |= {"C": c, "tried": tried, "weights_used": int((rule[0] != 0).sum())}
    return fitted


METHOD = Method(
    name="dfr-synthetic",
    title="DFR on synthetic",
    source="Kirichenko et al., ICLR 2023, on the synthetic set",
    start="biased model",
    fit=fit,
    needs=frozenset({"synthetic"}),
    defaults={"C": None},
)
