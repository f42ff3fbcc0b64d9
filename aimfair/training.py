"""One training loop for every method: SGD on resident images, the best epoch chosen by a named rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aimfair import checkpoint
from aimfair.augment import augment
from aimfair.environment import AimfairError, Diverged
from aimfair.faces import FaceSet
from aimfair.models import evaluate
from aimfair.progress import progress

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(logits (B,), target (B,) float, index (B,) of the faces in the training set) -> scalar.

A loss with a memory (group weights, running averages) is an ``nn.Module`` that keeps it in buffers: they are saved
with the checkpoint. What such a module holds never learns by the optimiser."""

Order = Callable[[torch.Generator], Tensor]
"""Draws the indices of one epoch, in their order, repetitions allowed; default: a permutation of the training set."""

Blend = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]
"""(inputs (B, 3, H, W), target (B,) float, generator) -> the inputs and targets of the step, fewer perhaps, targets
between 0 and 1 perhaps: mix-up and its kin. What it draws it draws from the generator, on the CPU."""


@dataclass(frozen=True)
class Schedule:
    """How to train. The defaults are those of the official pre-training (methods: batch 128, SGD, 15 epochs).

    milestones  epochs (counted from 0) at which the learning rate is multiplied by ``gamma``
    crop_scale  area of the random resized crop as a share of the image
    batchnorm   "train": batch statistics, running statistics follow the training data, frozen layers too
                (official); "eval": running statistics are used and never change
    select      "validation-accuracy": the epoch with the highest overall accuracy on the validation set, no group
                label read, ties by ``ties``; "validation-worst-group": the highest accuracy of the worst group there,
                which reads protected labels (oracles only); "last"
    ties        "first" (official fine-tuning) or "last" (official pre-training)
    """

    epochs: int = 15
    lr: float = 0.01
    batch_size: int = 128
    momentum: float = 0.9
    weight_decay: float = 1e-4
    milestones: tuple[int, ...] = (10,)
    gamma: float = 0.1
    crop_scale: tuple[float, float] = (0.08, 1.0)
    batchnorm: str = "train"
    select: str = "validation-accuracy"
    ties: str = "last"

    def __post_init__(self) -> None:
        for name, allowed in (
            ("batchnorm", ("train", "eval")),
            ("select", ("validation-accuracy", "validation-worst-group", "last")),
            ("ties", ("first", "last")),
        ):
            if getattr(self, name) not in allowed:
                raise AimfairError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        if self.epochs < 1 or self.batch_size < 2 or not self.lr > 0:
            raise AimfairError("a schedule needs epochs >= 1, batch_size >= 2 and lr > 0")


@dataclass
class History:
    """What happened: one row per epoch, and the epoch whose weights the model holds."""

    loss: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)
    validation_worst_group: list[float] = field(default_factory=list)
    chosen: int = -1
    seconds: float = 0.0


def binary_cross_entropy(logits: Tensor, target: Tensor, index: Tensor) -> Tensor:
    """Mean binary cross-entropy on the logit (the paper's loss in its one-logit form)."""
    return F.binary_cross_entropy_with_logits(logits, target)


def batches(order: Tensor, batch_size: int) -> Iterator[Tensor]:
    """``order`` cut into index batches, the last incomplete one dropped (unless it is the only one)."""
    full = max(1, len(order) // batch_size)
    return (order[i * batch_size : (i + 1) * batch_size] for i in range(full))


def set_mode(model: nn.Module, batchnorm: str) -> None:
    """Training mode, with the batch-norm layers in evaluation mode where ``batchnorm`` is "eval"."""
    model.train()
    if batchnorm == "eval":
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def freeze_all_but(model: nn.Module, trainable: set[str] | None) -> list[nn.Parameter]:
    """Let only the named tensors learn (None: all) and return them.

    Frozen tensors carry no gradient and are not handed to the optimiser, so that weight decay and momentum
    cannot move them: they stay bit-identical. Raises AimfairError for an empty set or an unknown name.
    """
    named = dict(model.named_parameters())
    if trainable is None:
        trainable = set(named)
    if not trainable:
        raise AimfairError("the mask is empty: no tensor is left to fine-tune; choose a larger k")
    if trainable - set(named):
        raise AimfairError(f"the mask names tensors that the model does not have: {sorted(trainable - set(named))[:3]}")
    for name, parameter in named.items():
        parameter.grad = None
        parameter.requires_grad_(name in trainable)
    return [parameter for name, parameter in named.items() if name in trainable]


def fit(
    model: nn.Module,
    train: FaceSet,
    validation: FaceSet,
    schedule: Schedule,
    seed: int,
    device: str = "cpu",
    trainable: set[str] | None = None,
    loss: Loss = binary_cross_entropy,
    order: Order | None = None,
    blend: Blend | None = None,
    what: str = "training",
    resume: Path | None = None,
    at_end: Callable[[], None] | None = None,
) -> History:
    """Train ``model`` in place and leave in it the weights of the chosen epoch.

    Order, crops and flips of epoch e are drawn from (seed, e) alone, on the CPU: they are the same on every
    device, and a training that was killed goes on from its last checkpoint as if nothing had happened.

    order   sampling other than a shuffled pass; see :data:`Order`
    blend   what is done to a batch after its crops and flips; see :data:`Blend`. A loss that reads ``index`` is
            handed the indices of the whole batch, as ``order`` drew them
    resume  file for that checkpoint (written about twice a minute, deleted at the end); None: no checkpoint
    at_end  called while ``model`` holds the weights of the last epoch, before it gets those of the chosen one
    Raises AimfairError for an empty training set or an empty mask, and Diverged where the loss, or what the model answers to
    the validation faces, is not finite.
    """
    if len(train) == 0 or len(validation) == 0:
        raise AimfairError(f"{what}: nothing to train on ({len(train)} training, {len(validation)} validation faces)")
    began = perf_counter()
    cuda = torch.device(device).type == "cuda"
    model.to(device)
    optimiser = torch.optim.SGD(
        freeze_all_but(model, trainable), schedule.lr, schedule.momentum, weight_decay=schedule.weight_decay
    )
    if isinstance(loss, nn.Module):
        loss.to(device)
    images, target = train.images.to(device), train.target.to(device, torch.float32)
    history = History()
    best: dict[str, Tensor] = {}
    identity = asdict(schedule) | {"seed": seed, "learns": trainable and sorted(trainable)}
    if resume is not None and resume.exists():
        past, best = checkpoint.load(resume, model, optimiser, loss, identity, device)
        history = History(**past)
    saved = perf_counter()
    start = len(history.loss)
    for epoch in progress(range(start, schedule.epochs), what, total=schedule.epochs, unit="epoch", done=start):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        decays = sum(epoch >= milestone for milestone in schedule.milestones)
        for settings in optimiser.param_groups:
            settings["lr"] = schedule.lr * schedule.gamma**decays
        set_mode(model, schedule.batchnorm)
        total, steps = torch.zeros((), device=device), 0
        drawn = torch.randperm(len(train), generator=generator) if order is None else order(generator)
        for index in batches(drawn, schedule.batch_size):
            index = index.to(device)
            inputs, wanted = augment(images[index], generator, schedule.crop_scale), target[index]
            if blend is not None:
                inputs, wanted = blend(inputs, wanted, generator)
            with torch.autocast("cuda", torch.bfloat16, enabled=cuda):
                value = loss(model(inputs).float(), wanted, index)
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            optimiser.step()
            total += value.detach()
            steps += 1
        history.loss.append(float(total) / steps)
        logits = evaluate(model, validation, device)
        if not (torch.isfinite(total) and logits.isfinite().all()):  # the last step shows in the logits alone
            if resume is not None:
                resume.unlink(missing_ok=True)
            raise Diverged(
                f"{what}: the loss is not finite in epoch {epoch + 1} (learning rate {schedule.lr}): choose a smaller one"
            )
        correct = 100.0 * ((logits >= 0) == (validation.target == 1)).double()
        history.validation_accuracy.append(correct.mean().item())
        if schedule.select == "validation-worst-group":
            groups = validation.groups
            history.validation_worst_group.append(min(correct[groups == g].mean().item() for g in groups.unique()))
        if _is_best(history, schedule):
            history.chosen = epoch
            best = {name: value.detach().clone() for name, value in model.state_dict().items()}
        if resume is not None and epoch + 1 < schedule.epochs and perf_counter() - saved > checkpoint.SECONDS_BETWEEN:
            so_far = replace(history, seconds=history.seconds + perf_counter() - began)
            checkpoint.save(resume, model, optimiser, loss, identity, asdict(so_far), best)
            saved = perf_counter()
    if at_end is not None:
        at_end()
    model.load_state_dict(best)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
        parameter.grad = None
    history.seconds += perf_counter() - began
    if resume is not None:
        resume.unlink(missing_ok=True)
    return history


def _is_best(history: History, schedule: Schedule) -> bool:
    worst = schedule.select == "validation-worst-group"
    values = history.validation_worst_group if worst else history.validation_accuracy
    if schedule.select == "last" or len(values) == 1:
        return True
    before = max(values[:-1])
    return values[-1] >= before if schedule.ties == "last" else values[-1] > before
