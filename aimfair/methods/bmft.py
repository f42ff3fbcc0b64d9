"""BMFT: fine-tune single weights that matter for bias more than for the prediction, then a new last layer.

On real validation faces it is an oracle; on the balanced synthetic faces it is a rival of AIM-Fair, weight by weight.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aimfair import sampling
from aimfair.environment import AimfairError
from aimfair.faces import FaceSet
from aimfair.methods import Bench, Fitted, Method
from aimfair.methods.finetuning import schedule
from aimfair.methods.last_layer_fairness import equalised_odds
from aimfair.models import as_input, head
from aimfair.repairing import finetune
from aimfair.training import History, Loss, batches, binary_cross_entropy


def bias_loss(protected: Tensor) -> Loss:
    """Half the sum of the absolute gaps of the soft error rates. In the released code, which takes mean logits, gaps of
    opposite sign cancel."""
    return lambda logits, target, index: equalised_odds(logits, target, protected[index]) / 2


def importance(model: nn.Module, faces: FaceSet, loss: Loss, batch_size: int, seed: int) -> dict[str, Tensor]:
    """Mean over batches of the squared gradient of the batch's loss, per weight: a diagonal Fisher information of
    batches, as the released code has it. Evaluation mode, whole images, on the model's device."""
    device = next(model.parameters()).device
    model.eval()
    named = dict(model.named_parameters())
    total = {name: torch.zeros_like(parameter) for name, parameter in named.items()}
    parts = list(batches(torch.randperm(len(faces), generator=torch.Generator().manual_seed(seed)), batch_size))
    for index in parts:
        logits = model(as_input(faces.images[index].to(device)))
        value = loss(logits, faces.target[index].float().to(device), index.to(device))
        for name, gradient in zip(named, torch.autograd.grad(value, list(named.values())), strict=True):
            total[name] += gradient**2 / len(parts)
    return total


def select_weights(bias: Mapping[str, Tensor], prediction: Mapping[str, Tensor], rate: float) -> dict[str, Tensor]:
    """Masks of the weights whose importance for bias, over that for the prediction, is above a percentile of all.

    Both importances are scaled to 0 to 1 within each tensor first. A share of ``1 - rate / 100`` is true, less where
    ratios tie: rate 100 selects nothing, 0 all but the smallest.
    """
    if not 0 <= rate <= 100:
        raise AimfairError(f"rate is a percentile, 0 to 100, got {rate}")

    def scaled(values: Tensor) -> Tensor:
        low, high = values.min(), values.max()
        return (values - low) / (high - low) if high > low else torch.zeros_like(values)

    # The least important weight of every tensor has importance 0 for the prediction.
    ratio = {name: scaled(bias[name]) / (scaled(prediction[name]) + 1e-8) for name in bias}
    threshold = np.quantile(np.concatenate([r.flatten().cpu().numpy() for r in ratio.values()]), rate / 100)
    return {name: r > float(threshold) for name, r in ratio.items()}


def debias(bench: Bench, hyper: Mapping[str, Any], faces: FaceSet, select: str) -> Fitted:
    """Both steps on the group-balanced ``faces``; the epoch of the second is chosen by ``select``.

    rate       percentile of the mask (official 50); the last layer is never in it
    lr         of step 1, on the bias loss alone, last epoch (official .0001)
    head_lr    of step 2, the last layer alone from zeros (official .001, on larger sets)
    beta       weight of the bias loss beside the cross-entropy in step 2
    Running statistics stay as they are in both steps unless ``batchnorm`` is "train".
    """
    model = bench.biased_model().to(bench.device)
    layer = head(model)
    unfair = bias_loss((faces.groups % 2).to(bench.device))
    body = {name for name, _ in model.named_parameters()} - {f"{layer}.weight", f"{layer}.bias"}
    for_bias, for_prediction = (
        importance(model, faces, loss, bench.finetuning.batch_size, bench.seed)
        for loss in (unfair, binary_cross_entropy)
    )
    masks = select_weights({n: for_bias[n] for n in body}, {n: for_prediction[n] for n in body}, hyper["rate"])

    def fair(logits: Tensor, target: Tensor, index: Tensor) -> Tensor:
        return binary_cross_entropy(logits, target, index) + hyper["beta"] * unfair(logits, target, index)

    def tune(step: str, **how: Any) -> History:
        how |= {"what": f"BMFT, {step}", "resume": bench.resume_of(step)}
        return finetune(model, faces, bench.validation, seed=bench.seed, device=bench.device, **how)

    plan = schedule(bench, hyper)
    forgetting = tune("masked", schedule=replace(plan, select="last"), mask=masks, loss=unfair)
    for parameter in model.get_submodule(layer).parameters():
        nn.init.zeros_(parameter)
    plan = replace(plan, lr=hyper["head_lr"], select=select)
    history = tune("head", schedule=plan, mask={f"{layer}.weight", f"{layer}.bias"}, loss=fair)
    scores = {
        "faces": len(faces),
        "density": sum(int(m.sum()) for m in masks.values()) / sum(m.numel() for m in masks.values()),
        "bias_loss": [round(value, 5) for value in forgetting.loss],
    }
    return Fitted(model, history, scores)


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """Debias on a group-balanced part of the validation set, without any training face; see :func:`debias`.

    Its own validation accuracy is in part that of faces it was fitted on.
    """
    faces, counts = bench.validation, bench.validation.counts()
    if min(counts) == 0:
        raise AimfairError(f"BMFT needs a validation face of every group; the counts are {counts}")
    kept = sampling.balanced(faces.groups // 2, faces.groups % 2, min(counts), bench.seed)
    return debias(bench, hyper, faces.subset(kept), "validation-worst-group")


def fit_on_synthetic_faces(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """No group label of a real face is read; see :func:`debias`."""
    return debias(bench, hyper, bench.balanced, "validation-accuracy")


BMFT = Method(
    name="bmft",
    title="BMFT (oracle)",
    source="Xue et al., FAIMI 2024, arXiv 2408.06890",
    start="biased model",
    fit=fit,
    needs=frozenset({"validation protected"}),
    defaults={"lr": 0.001, "batchnorm": "eval", "rate": 50, "head_lr": 0.01, "beta": 0.1},
    fixed={"bias_loss": "absolute"},
    search={"lr": (0.0001, 0.0003, 0.001, 0.003, 0.01)},
)
ON_SYNTHETIC_FACES = replace(
    BMFT,
    name="bmft-synthetic",
    title="BMFT on synthetic",
    source="Xue et al., FAIMI 2024, on the synthetic set",
    fit=fit_on_synthetic_faces,
    needs=frozenset({"synthetic"}),
)
METHODS = (BMFT, ON_SYNTHETIC_FACES)
