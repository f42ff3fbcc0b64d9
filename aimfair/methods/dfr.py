"""Deep feature re-weighting: keep the biased model's features and relearn its last layer on balanced groups.

The layer is the mean of sparse logistic regressions on random group-balanced subsets of validation faces (the source's
DFR-Val), training faces (DFR-Tr) or synthetic faces. The first two are oracles.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn
from torch.nn import functional as F

from aimfair import sampling
from aimfair.environment import AimfairError
from aimfair.faces import FaceSet
from aimfair.methods import Bench, Fitted, Method
from aimfair.models import evaluate, head
from aimfair.training import History

STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0)
"""Inverse strengths C of the L1 penalty, tried by the method itself: five, as every method has configurations to try."""

Labelled = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Features (N, d) float64, target (N,) and protected (N,) int64."""

Rule = tuple[np.ndarray, float]
"""Weights (d,) and intercept of a linear rule: the logit of features x is ``x @ weights + intercept``."""


def described(model: nn.Module, faces: FaceSet, device: str) -> Labelled:
    """Features of whole images, evaluation mode, with their labels. Raises AimfairError for a withheld label."""
    groups = faces.groups
    x = evaluate(model.to(device), faces, device, output="features").double().numpy()
    return x, (groups // 2).numpy(), (groups % 2).numpy()


def with_rule(bench: Bench, model: nn.Module, weights: ArrayLike, intercept: float, loss: float) -> Fitted:
    """``model`` with the rule as its last layer; ``loss`` is what was reached in fitting it."""
    layer = cast(nn.Linear, model.get_submodule(head(model)))
    with torch.no_grad():
        layer.weight.copy_(torch.as_tensor(np.asarray(weights))[None])
        layer.bias.fill_(float(intercept))
    right = (evaluate(model, bench.validation, bench.device) >= 0) == (bench.validation.target == 1)
    return Fitted(model, History([loss], [100.0 * right.double().mean().item()], chosen=0))


def group_sizes(labelled: Labelled) -> np.ndarray:
    """Number of samples (4,) of each group."""
    return np.bincount(2 * labelled[1] + labelled[2], minlength=4)


def balanced_part(labelled: Labelled, seed: int) -> Labelled:
    """A random subset with as many samples of each group as the smallest one has. Raises AimfairError if that is none."""
    size = int(group_sizes(labelled).min())
    if size == 0:
        raise AimfairError("balancing needs faces of every group: one has none")
    chosen = sampling.balanced(*labelled[1:], size, seed)
    return tuple(column[chosen] for column in labelled)  # type: ignore[return-value]


def halves(labelled: Labelled, seed: int) -> tuple[Labelled, Labelled]:
    """Two random halves of every group. Raises AimfairError where a group has a single sample or none."""
    sizes = group_sizes(labelled)
    if sizes.min() < 2:
        raise AimfairError("DFR halves its faces to choose C: it needs at least two of every group")
    first = sampling.per_group(*labelled[1:], (sizes // 2).tolist(), seed)
    second = np.setdiff1d(np.arange(sizes.sum()), first)
    return tuple(tuple(column[half] for column in labelled) for half in (first, second))  # type: ignore[return-value]


def logistic(labelled: Labelled, c: float) -> Rule:
    """One L1 logistic regression on standardised features, written as a rule for the features as they are.

    Features are standardised by the very samples that are fitted, in tuning and at the end alike: the released code
    takes others at the end, so that its C does not mean the same.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    x, y, _ = labelled
    scaler = StandardScaler().fit(x)
    regression = LogisticRegression(C=c, l1_ratio=1, solver="liblinear", max_iter=1000, random_state=0)
    regression.fit(scaler.transform(x), y)
    weights = regression.coef_[0] / scaler.scale_
    return weights, float(regression.intercept_[0] - weights @ scaler.mean_)


def averaged(labelled: Labelled, c: float, repeats: int, seed: int) -> Rule:
    """The mean rule of ``repeats`` random subsets with equal groups; repeat r draws its subset from (seed, r)."""
    parts = (balanced_part(labelled, seed * 1000 + repeat) for repeat in range(repeats))
    weights, intercepts = zip(*(logistic(one, c) for one in parts), strict=True)
    return np.mean(weights, 0), float(np.mean(intercepts))


def right(labelled: Labelled, rule: Rule) -> np.ndarray:
    """(N,) bool: the rule classifies the sample rightly. Reads no group."""
    return (labelled[0] @ rule[0] + rule[1] >= 0) == (labelled[1] == 1)


def worst_group(labelled: Labelled, rule: Rule) -> float:
    """Accuracy of the worst group that occurs, per cent."""
    groups = 2 * labelled[1] + labelled[2]
    return 100 * min(right(labelled, rule)[groups == g].mean() for g in np.unique(groups))


def relearn(
    bench: Bench,
    model: nn.Module,
    faces: Labelled,
    hyper: Mapping[str, Any],
    tuning: Labelled,
    score: Callable[[Rule], float],
) -> Fitted:
    """``model`` with the mean rule of balanced subsets of ``faces`` as its last layer.

    C        inverse strength of the L1 penalty; None: the one of :data:`STRENGTHS` whose rule, fitted on one balanced
             subset of ``tuning``, has the best ``score``; the smallest of those on a tie. The released code tries seven
    repeats  balanced subsets whose rules are averaged
    """
    c, tried = hyper["C"], {}
    if c is None:
        tried = {c: round(score(averaged(tuning, c, 1, bench.seed)), 3) for c in STRENGTHS}
        c = max(tried, key=tried.__getitem__)
    weights, intercept = averaged(faces, c, hyper.get("repeats", 1), bench.seed)
    logits, target = torch.from_numpy(faces[0] @ weights + intercept), torch.from_numpy(faces[1]).double()
    fitted = with_rule(bench, model, weights, intercept, F.binary_cross_entropy_with_logits(logits, target).item())
    scores = {f"{c:g}": value for c, value in tried.items()}
    return replace(fitted, scores={"C": float(c), "tried": scores, "weights_used": int((weights != 0).sum())})


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """DFR-Val, on the whole validation set; C by the worst group of one half of it after fitting the other half.

    Its own validation accuracy is that of the faces it was fitted on. For ``C`` and ``repeats`` see :func:`relearn`.
    """
    model = bench.biased_model()
    faces = described(model, bench.validation, bench.device)
    one, other = halves(faces, bench.seed)
    return relearn(bench, model, faces, hyper, one, lambda rule: worst_group(other, rule))


def fit_on_training_faces(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """DFR-Tr, on faces that the biased model was trained on; C by the worst group of the validation set.

    For ``C`` and ``repeats`` see :func:`relearn`. The released code also searches a weight of the classes.
    """
    model = bench.biased_model()
    faces, held_out = (described(model, some, bench.device) for some in (bench.train, bench.validation))
    return relearn(bench, model, faces, hyper, faces, lambda rule: worst_group(held_out, rule))


def fit_on_synthetic_faces(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """No group label of a real face is read: the groups are those of the prompts, and ``C`` is chosen by the overall
    accuracy on real validation faces; see :func:`relearn`.

    The synthetic set is balanced, so that its one balanced subset is all of it and there is nothing to average.
    """
    model = bench.biased_model()
    faces = described(model, bench.balanced, bench.device)
    x = evaluate(model, bench.validation, bench.device, output="features").double().numpy()
    held_out = x, bench.validation.target.numpy(), np.zeros(len(x))  # the last is not read
    return relearn(bench, model, faces, hyper, faces, lambda rule: 100 * float(right(held_out, rule).mean()))


DFR = Method(
    name="dfr",
    title="DFR (oracle)",
    source="Kirichenko et al., ICLR 2023, arXiv 2204.02937 (DFR-Val)",
    start="biased model",
    fit=fit,
    needs=frozenset({"validation protected"}),
    defaults={"C": None, "repeats": 20},
)
ON_TRAINING_FACES = replace(
    DFR,
    name="dfr-train",
    title="DFR on training faces (oracle)",
    source="Kirichenko et al., ICLR 2023, arXiv 2204.02937 (DFR-Tr)",
    fit=fit_on_training_faces,
    needs=frozenset({"train protected", "validation protected"}),
    defaults={"C": None, "repeats": 10},
    fixed={"class_weight": 1.0},
)
ON_SYNTHETIC_FACES = replace(
    DFR,
    name="dfr-synthetic",
    title="DFR on synthetic",
    source="Kirichenko et al., ICLR 2023, on the synthetic set",
    fit=fit_on_synthetic_faces,
    needs=frozenset({"synthetic"}),
    defaults={"C": None},
)
METHODS = (DFR, ON_TRAINING_FACES, ON_SYNTHETIC_FACES)
