"""LfF: one network is pushed to learn the easy shortcut, another learns most from what the first fails on."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aimfair.environment import AimfairError
from aimfair.methods import Bench, Fitted, Method
from aimfair.methods.erm import from_scratch


class Pair(nn.Module):
    """Two networks in one training: the training loop sees one model, the loss sees both.

    ``first`` and ``second`` see the same augmented batch; the logits of ``first`` are the pair's. In evaluation mode
    only ``first`` runs, so that an epoch is chosen by the network that is kept.
    """

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second
        self.second_logits: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.second_logits = self.second(x).float() if self.training else None
        return self.first(x)

    def other(self) -> Tensor:
        """The logits (B,) of ``second`` on the training batch that just passed, with their gradient."""
        assert self.second_logits is not None, "the pair has not seen a training batch"
        return self.second_logits


def generalised_cross_entropy(ce: Tensor, q: float) -> Tensor:
    """``(1 - p^q) / q`` of the label's probability ``p = exp(-ce)``: gradient p^q times that of the cross-entropy.

    So what is already right counts most. q -> 0 is the cross-entropy itself, q = 1 the error probability 1 - p. What the
    released code descends on has q times this gradient.
    """
    return ce if q == 0 else -torch.expm1(-q * ce) / q


def class_share(ema: Tensor, target: Tensor, index: Tensor) -> Tensor:
    """(B,) running losses of the samples ``index``, as shares of the largest in their class over the whole table."""
    largest = torch.stack([(ema * (target == c)).max() for c in (0, 1)])
    return ema[index] / largest[target[index]].clamp_min(torch.finfo(ema.dtype).tiny)


def difficulty(biased: Tensor, debiased: Tensor) -> Tensor:
    """Weight in [0, 1]: the biased network's share of both difficulties; half where both find a sample equally hard."""
    return biased / (biased + debiased + 1e-8)


class LearningFromFailure(nn.Module):
    """The sum of both networks' losses, with the running average of every training sample's two losses.

    target         (N,) int64 of the training set
    biased_logits  returns the biased network's logits on the batch; the debiased ones are the argument ``logits``
    decay          of the averages: ``decay * before + (1 - decay) * now``, and the first loss as it is
    """

    target: Tensor
    seen: Tensor
    biased: Tensor
    debiased: Tensor

    def __init__(self, target: Tensor, biased_logits: Callable[[], Tensor], q: float = 0.7, decay: float = 0.7) -> None:
        super().__init__()
        if not 0 <= q <= 1 or not 0 <= decay < 1:
            raise AimfairError(f"LfF needs 0 <= q <= 1 and 0 <= decay < 1, got {q} and {decay}")
        self.biased_logits, self.q, self.decay = biased_logits, q, decay
        self.register_buffer("target", target, persistent=False)
        self.register_buffer("seen", torch.zeros(len(target), dtype=torch.bool))
        self.register_buffer("biased", torch.zeros(len(target)))
        self.register_buffer("debiased", torch.zeros(len(target)))

    def forward(self, logits: Tensor, target: Tensor, index: Tensor) -> Tensor:
        """Update both averages, weigh the debiased network's losses by the failure of the biased one, add both means."""
        ce = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        biased_ce = F.binary_cross_entropy_with_logits(self.biased_logits(), target, reduction="none")
        weight = self.weights(biased_ce.detach(), ce.detach(), index)
        return generalised_cross_entropy(biased_ce, self.q).mean() + (weight * ce).mean()

    def weights(self, biased_ce: Tensor, ce: Tensor, index: Tensor) -> Tensor:
        """Take the losses (B,) of a batch into the averages, then weigh its samples (B,)."""
        first = ~self.seen[index]
        for ema, now in ((self.biased, biased_ce), (self.debiased, ce)):
            ema[index] = torch.where(first, now, self.decay * ema[index] + (1 - self.decay) * now)
        self.seen[index] = True
        return self.failures(index)

    def failures(self, index: Tensor) -> Tensor:
        """:func:`difficulty` (B,) of the samples ``index`` by the averages as they are."""
        return difficulty(*(class_share(table, self.target, index) for table in (self.biased, self.debiased)))


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """Both networks from the bench's fresh model, on the same batches, with the same optimiser; the debiased is kept.

    q      of the biased network's generalised cross-entropy
    decay  of the running losses
    The weights start at one half, so the debiased network learns at about half of ERM's rate. The released configuration
    for CelebA has Adam and an ImageNet backbone of which only the last layer learns; here both networks learn as a whole,
    by everyone's optimiser.
    """
    pair = Pair(bench.fresh_model(), bench.fresh_model())
    loss = LearningFromFailure(bench.train.target, pair.other, hyper["q"], hyper["decay"])
    history = from_scratch(bench, f"LfF q={hyper['q']}", model=pair, loss=loss).history
    weight = loss.failures(torch.arange(len(bench.train), device=loss.target.device))[loss.seen]
    return Fitted(pair.first, history, {"mean_weight": round(weight.mean().item(), 4)})


METHOD = Method(
    name="lff",
    title="LfF",
    source="Nam et al., NeurIPS 2020, arXiv 2007.02561; Table 1",
    start="scratch",
    fit=fit,
    defaults={"q": 0.7, "decay": 0.7},
    fixed={"gce": "true"},
    search={"q": (0.1, 0.3, 0.5, 0.7, 0.9)},
)
