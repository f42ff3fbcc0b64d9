"""XRM: twins learn from one half of the data each and relabel the other half; who ends up misread is a minority."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aimfair.environment import AimfairError
from aimfair.faces import FaceSet
from aimfair.methods import Bench, Fitted, Method
from aimfair.methods.erm import from_scratch
from aimfair.methods.inferred import train_on_environments, wrong
from aimfair.methods.lff import Pair
from aimfair.models import evaluate


def flip_probability(logits: Tensor) -> Tensor:
    """``(p - 1/2) * 2`` of the predicted class's probability p: 0 for a coin, 1 for certainty."""
    return torch.tanh(logits.abs() / 2)


def class_balanced(logits: Tensor, target: Tensor) -> Tensor:
    """Sum, over the classes that occur in ``target``, of the mean cross-entropy in the class."""
    losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    member = torch.stack([1 - target, target])  # (2, B)
    return ((member * losses).sum(1) / member.sum(1).clamp_min(1)).sum()


class CrossRisk(nn.Module):
    """Each twin learns its own samples' working labels, and relabels the samples of the other where it is confident.

    target       (N,) of {0, 1}: the working labels at the beginning; a sample that is relabelled is never set back
    twin_logits  returns the second twin's logits on the batch; those of the first are the argument ``logits``
    A fair coin, drawn from ``seed``, gives every sample to the first or the second twin.
    """

    mine: Tensor
    working: Tensor
    calls: Tensor

    def __init__(self, target: Tensor, twin_logits: Callable[[], Tensor], seed: int) -> None:
        super().__init__()
        self.twin_logits, self.seed = twin_logits, seed
        coin = torch.rand(len(target), generator=torch.Generator().manual_seed(seed)) < 0.5
        self.register_buffer("mine", coin, persistent=False)
        self.register_buffer("working", target.float())
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, logits: Tensor, target: Tensor, index: Tensor) -> Tensor:
        """The held-in twins' loss against the working labels; then the held-out twins change those labels."""
        mine, other = self.mine[index], self.twin_logits()
        loss = class_balanced(torch.where(mine, logits, other), self.working[index])
        held_out = torch.where(mine, other, logits).detach()
        # A generator for each step, on the CPU: the same draws on every device and after a resumption.
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + int(self.calls))
        flips = torch.rand(len(index), generator=generator).to(index.device) < flip_probability(
            held_out
        )
        self.working[index] = torch.where(flips, (held_out >= 0).float(), self.working[index])
        self.calls += 1
        return loss


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """Twins, environments on training and validation set, then Group DRO from scratch over (target, environment).

    twin_epochs  of the twins' training, which costs two of ERM's and is not stopped early
    eta          step size of the group weights
    A face is in environment 1 where either twin misses its original label. So the validation set has groups as well,
    and the epoch of Group DRO is chosen by the worst of them, without a human group label. The paper chooses the twins'
    settings by the share of flipped labels, ``scores["flipped"]``; here validation accuracy does. Where an environment of
    either set is empty its groups are the two classes, and ``scores["note"]`` says so.
    """
    if hyper["twin_epochs"] < 1 or hyper["eta"] < 0:
        raise AimfairError(
            f"XRM needs twin_epochs >= 1 and eta >= 0, got {hyper['twin_epochs']} and {hyper['eta']}"
        )
    # Both start alike: what sets them apart is the half that they learn from.
    twins = Pair(bench.fresh_model(), bench.fresh_model())
    loss = CrossRisk(bench.train.target, twins.other, bench.seed)
    schedule = replace(bench.pretraining, epochs=hyper["twin_epochs"], select="last")
    from_scratch(
        replace(bench, pretraining=schedule), "XRM, twins", model=twins, part="twins", loss=loss
    )

    def missed(faces: FaceSet) -> Tensor:
        first, second = (
            wrong(evaluate(m, faces, bench.device), faces.target)
            for m in (twins.first, twins.second)
        )
        return first | second

    environment = missed(bench.validation)
    validation = replace(bench.validation, protected=environment.long())
    schedule = replace(bench.pretraining, select="validation-worst-group")
    grouped = replace(bench, validation=validation, pretraining=schedule)
    fitted = train_on_environments(grouped, missed(bench.train), hyper["eta"], "XRM")
    flipped = (loss.working.cpu() != bench.train.target).float().mean().item()
    fitted.scores |= {
        "flipped": round(flipped, 4),
        "validation_groups": list(validation.counts()),
    }
    if environment.min() == environment.max():
        note = f"environment {1 - int(environment[0])} of the validation set is empty: its worse class chooses the epoch"
        fitted.scores["note"] = "; ".join(filter(None, [fitted.scores.get("note"), note]))
    return fitted


METHOD = Method(
    name="xrm",
    title="XRM",
    source="Pezeshki et al., ICML 2024, arXiv 2309.16748; not in the paper's tables",
    start="scratch",
    fit=fit,
    defaults={"twin_epochs": 6, "eta": 0.01},
    search={"twin_epochs": (2, 4, 6, 9, 12)},
)
