"""AIM-Fair turned round: learn from balanced synthetic faces first, then from the biased real ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aimfair.methods import Bench, Fitted, Method
from aimfair.methods.erm import from_scratch
from aimfair.models import head


def then_real(bench: Bench, hyper: Mapping[str, Any], what: str, last_layer: bool) -> Fitted:
    """Train on the balanced synthetic faces as ERM does, and from there on the real ones, all tensors or the last layer.

    lr         of the second training; None: as ERM's and the first's, which has the profile's schedule as well
    batchnorm  of the second training: "train", or "eval", with the statistics of synthetic faces
    Of both the epoch is chosen by accuracy on real validation faces.
    """
    first = from_scratch(
        replace(bench, train=bench.balanced), f"{what}, synthetic", part="synthetic"
    )
    plan = replace(
        bench.pretraining, lr=hyper["lr"] or bench.pretraining.lr, batchnorm=hyper["batchnorm"]
    )
    layer = head(first.model)
    learns = {f"{layer}.weight", f"{layer}.bias"} if last_layer else None
    return from_scratch(
        replace(bench, pretraining=plan), f"{what}, real", first.model, trainable=learns
    )


def fit_all(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """From Fake to Real. For ``lr`` and ``batchnorm`` see :func:`then_real`.

    The released code trains by Adam (rates searched around .0001 and .001), chooses epochs and rates by the worst group of
    the validation set, and draws as many synthetic faces as would balance the real ones; here they are the balanced set.
    """
    return then_real(bench, hyper, "FFR", last_layer=False)


def fit_head(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """The last layer alone sees real faces, so that the features stay unbiased. For ``lr`` and ``batchnorm`` see
    :func:`then_real`.

    The paper adds a contrastive loss to the first stage and weighs its images by CLIP, which is left out here.
    """
    return then_real(bench, hyper, "synthetic first", last_layer=True)


FFR = Method(
    name="ffr",
    title="From Fake to Real (FFR)",
    source="Qraitem, Saenko, Plummer, ECCV 2024, arXiv 2308.04553; not in the paper's tables",
    start="scratch",
    fit=fit_all,
    needs=frozenset({"synthetic"}),
    defaults={"lr": None, "batchnorm": "train"},
    beyond=True,
)
HEAD = replace(
    FFR,
    name="synthetic-then-head",
    title="Synthetic, then last layer on real",
    source="Basu et al., arXiv 2511.08711, its two stages; not in the paper's tables",
    fit=fit_head,
    defaults={"lr": None, "batchnorm": "eval"},
)
METHODS = (FFR, HEAD)
