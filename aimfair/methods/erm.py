"""Empirical risk minimisation on the biased real images: the model that everything else starts from or is held against."""

from collections.abc import Mapping
from typing import Any

from aimfair.methods import Bench, Fitted, Method
from aimfair.training import fit as train


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """Mean cross-entropy on the real training set, no label but the target."""
    model = bench.fresh_model()
    history = train(
        model,
        bench.train,
        bench.validation,
        bench.pretraining,
        bench.seed,
        bench.device,
        what="ERM",
        resume=bench.resume,
    )
    return Fitted(model, history)


METHOD = Method(
    name="erm",
    title="Baseline (ERM)",
    source="Vapnik, Statistical Learning Theory, 1998; Table 3, first row",
    start="scratch",
    fit=fit,
)
