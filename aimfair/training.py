"""One training loop for every method: the best epoch chosen by a named rule, resumable; SGD on resident images as a rule."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aimfair.augment import augment
from aimfair.environment import AimfairError, Diverged, aside, keep_memory
from aimfair.faces import Batches, FaceSet
from aimfair.models import decide, evaluate, evaluate_batches, logits_of
from aimfair.progress import progress

SECONDS_BETWEEN = 30.0
"""Between two checkpoints: a training that is killed loses at most this much, a shorter one never touches the disk."""

State = dict[str, Tensor]
"""Weights, running statistics and their counters by name, as ``state_dict`` has them."""

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(logits (B,), target (B,) float, index (B,) of the faces in the training set) -> scalar.

A loss with a memory (group weights, running averages) is an ``nn.Module`` that keeps it in buffers, which are saved with
the checkpoint. The optimiser never changes what such a module holds."""

Order = Callable[[torch.Generator], Tensor]
"""Draws the indices of one epoch, in their order, repetitions allowed; default: a permutation of the training set."""

Blend = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]
"""(inputs (B, 3, H, W), target (B,) float, generator) -> the inputs and targets of the step: mix-up and its kin. There may
be fewer of them, and targets may lie between 0 and 1. All chance comes from the generator, on the CPU."""

Step = tuple[Tensor, Tensor, Tensor]
"""Inputs (B, ...), their target (B,), and the index (B,) of the faces in the training set, on the model's device."""

Optimiser = Callable[..., torch.optim.Optimizer]
"""(parameters that learn, learning rate) -> optimiser, such as ``torch.optim.AdamW``."""

Scheduler = Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]
"""Makes of the optimiser what changes its learning rates after each epoch."""


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
    """What happened in each epoch, and the epoch whose weights the model holds."""

    loss: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)
    validation_worst_group: list[float] = field(default_factory=list)
    chosen: int = -1
    seconds: float = 0.0

    def record(
        self, loss: float, right: Tensor | None, validation: FaceSet | Batches | None, schedule: Schedule
    ) -> bool:
        """Add an epoch by its mean loss and which validation faces it gets ``right`` (N,); None where there are none.

        Returns whether it is the best so far by ``schedule.select``, and then notes it as chosen. Protected labels are
        read by the rule "validation-worst-group" alone.
        """
        self.loss.append(loss)
        values = self.validation_accuracy
        if right is not None:
            correct = 100.0 * right.double()
            values.append(correct.mean().item())
        if schedule.select == "validation-worst-group" and isinstance(validation, FaceSet):
            groups = validation.groups
            values = self.validation_worst_group
            values.append(min(correct[groups == g].mean().item() for g in groups.unique()))
        before = max(values[:-1], default=-math.inf)
        best = schedule.select == "last" or values[-1] > before or (values[-1] == before and schedule.ties == "last")
        if best:
            self.chosen = len(self.loss) - 1
        return best


def binary_cross_entropy(logits: Tensor, target: Tensor, index: Tensor) -> Tensor:
    """Mean binary cross-entropy on the logit (the paper's loss in its one-logit form)."""
    return F.binary_cross_entropy_with_logits(logits, target)


def cross_entropy(logits: Tensor, target: Tensor, index: Tensor) -> Tensor:
    """Mean cross-entropy of one logit (B,) or of K logits (B, K) with targets 0 to K - 1."""
    return F.cross_entropy(logits, target) if logits.ndim == 2 else binary_cross_entropy(logits, target.float(), index)


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


def face_steps(
    images: Tensor,
    target: Tensor,
    schedule: Schedule,
    generator: torch.Generator,
    order: Order | None = None,
    blend: Blend | None = None,
) -> Iterator[Step]:
    """One pass through ``images`` (N, 3, H, W) uint8 with ``target`` (N,) float, both on the model's device.

    Order, crops and flips are drawn from the ``generator`` on the CPU.
    """
    drawn = torch.randperm(len(images), generator=generator) if order is None else order(generator)
    for index in batches(drawn, schedule.batch_size):
        index = index.to(images.device)
        inputs, wanted = augment(images.index_select(0, index), generator, schedule.crop_scale), target[index]
        if blend is not None:
            inputs, wanted = blend(inputs, wanted, generator)
        yield inputs, wanted, index


def batch_steps(data: Batches, seed: int, device: str) -> Iterator[Step]:
    """One pass through a user's batches, with the chance of ``seed``."""
    seen = 0
    for inputs, target in data.draw(seed):
        yield inputs.to(device), target.to(device), torch.arange(seen, seen + len(target), device=device)
        seen += len(target)


def validate(model: nn.Module, validation: FaceSet | Batches | None, device: str) -> tuple[Tensor, Tensor]:
    """Logits and targets of the validation faces; where there are none, the sum of the weights for both, which is finite
    where all of them are."""
    if validation is None:
        total = sum(parameter.detach().sum() for parameter in model.parameters())
        return torch.as_tensor(total), torch.as_tensor(total)
    if isinstance(validation, Batches):
        return evaluate_batches(model, validation, device)
    return evaluate(model, validation, device), validation.target


def train_epoch(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    steps: Iterable[Step],
    batchnorm: str = "train",
    loss: Loss = binary_cross_entropy,
) -> float:
    """Take all ``steps`` of an epoch; ``batchnorm`` is that of :class:`Schedule`. Returns the mean loss of the steps."""
    set_mode(model, batchnorm)
    values = []
    for inputs, wanted, index in steps:
        with torch.autocast("cuda", torch.bfloat16, enabled=inputs.is_cuda):
            value = loss(logits_of(model, inputs).float(), wanted, index)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        optimiser.step()
        values.append(value.detach())
    return float(sum(values)) / len(values)


def fit(
    model: nn.Module,
    train: FaceSet | Batches,
    validation: FaceSet | Batches | None,
    schedule: Schedule,
    seed: int,
    device: str = "cpu",
    *,
    trainable: set[str] | None = None,
    loss: Loss = binary_cross_entropy,
    order: Order | None = None,
    blend: Blend | None = None,
    optimiser: Optimiser | None = None,
    scheduler: Scheduler | None = None,
    what: str = "training",
    resume: Path | None = None,
) -> History:
    """Train ``model`` in place and leave in it the weights of the chosen epoch.

    Order, crops and flips of epoch e are drawn from (seed, e) alone, on the CPU: they are the same on every
    device, and a training that was killed goes on from its last checkpoint as if nothing had happened.

    train, validation  faces; or batches of a user's own, whose order and crops are their own affair. With
               ``validation`` None the schedule must select the last epoch
    trainable  names of the tensors that learn; None: all
    order      sampling other than a shuffled pass; see :data:`Order`
    blend      what is done to a batch after its crops and flips; see :data:`Blend`. A loss that reads ``index`` is
               handed the indices of the whole batch, as ``order`` drew them
    optimiser, scheduler  in place of SGD, and of the schedule's milestones
    what       name of the training, for the progress bar and for errors
    resume     file for the checkpoint (written about twice a minute, deleted at the end); None: no checkpoint
    Raises AimfairError for an empty training set or an empty mask, and Diverged where the loss, or a logit of a validation
    face, is not finite.
    """
    for faces, part in ((train, "training"), (validation, "validation")):
        if isinstance(faces, FaceSet) and len(faces) == 0:
            raise AimfairError(f"{what}: nothing to train on (0 {part} faces)")
    began = saved = perf_counter()
    keep_memory()
    model.to(device)
    if isinstance(loss, nn.Module):
        loss.to(device)
    learning = freeze_all_but(model, trainable)
    sgd = partial(torch.optim.SGD, momentum=schedule.momentum, weight_decay=schedule.weight_decay)
    updates = (optimiser or sgd)(learning, schedule.lr)
    if isinstance(train, FaceSet):
        images, target = train.images.to(device), train.target.to(device, torch.float32)
    history, best = History(), dict[str, Tensor]()
    settings = asdict(schedule) | {"seed": seed, "learns": trainable and sorted(trainable)}
    checkpoint = Checkpoint(resume, settings, model, updates, loss) if resume else None
    if checkpoint and checkpoint.path.exists():
        history, best = checkpoint.load(device)
    start = len(history.loss)
    rates = scheduler(updates) if scheduler else None
    for _ in range(start if rates else 0):
        rates.step()  # type: ignore[union-attr]
    for epoch in progress(range(start, schedule.epochs), what, total=schedule.epochs, unit="epoch", done=start):
        if optimiser is None and rates is None:
            decays = sum(epoch >= milestone for milestone in schedule.milestones)
            updates.param_groups[0]["lr"] = schedule.lr * schedule.gamma**decays
        chance = seed * 1_000_003 + epoch
        if isinstance(train, FaceSet):
            generator = torch.Generator().manual_seed(chance)
            steps = face_steps(images, target, schedule, generator, order, blend)
        else:
            steps = batch_steps(train, chance, device)
        mean = train_epoch(model, updates, steps, schedule.batchnorm, loss)
        if rates:
            rates.step()
        logits, wanted = validate(model, validation, device)
        if not (math.isfinite(mean) and logits.isfinite().all()):  # the last step shows in the logits alone
            if checkpoint:
                checkpoint.path.unlink(missing_ok=True)
            raise Diverged(
                f"{what}: the loss is not finite in epoch {epoch + 1} (learning rate {schedule.lr}): choose a smaller one"
            )
        if history.record(mean, None if validation is None else decide(logits) == wanted, validation, schedule):
            best = {name: value.detach().clone() for name, value in model.state_dict().items()}
        if checkpoint and epoch + 1 < schedule.epochs and perf_counter() - saved > SECONDS_BETWEEN:
            checkpoint.save(replace(history, seconds=history.seconds + perf_counter() - began), best)
            saved = perf_counter()
    model.load_state_dict(best)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
        parameter.grad = None
    history.seconds += perf_counter() - began
    if checkpoint:
        checkpoint.path.unlink(missing_ok=True)
    return history


@dataclass
class Checkpoint:
    """Half a training in one safetensors file: weights, best weights, the optimiser's and the loss's memory, and history.

    settings  what decides the training beside its data. What learns belongs to them: the optimiser's memory is stored by its place
    """

    path: Path
    settings: dict[str, Any]
    model: nn.Module
    optimiser: torch.optim.Optimizer
    loss: object

    def _learning(self) -> list[nn.Parameter]:
        return [parameter for group in self.optimiser.param_groups for parameter in group["params"]]

    def save(self, history: History, best: State) -> None:
        """Write the state after a completed epoch; the file appears whole or not at all."""
        from safetensors.torch import save

        parts: dict[str, Mapping[str, Tensor]] = {
            "model": self.model.state_dict(),
            "best": best,
            "loss": self.loss.state_dict() if isinstance(self.loss, nn.Module) else {},
            "optimiser": {
                f"{number}/{name}": value
                for number, parameter in enumerate(self._learning())
                for name, value in self.optimiser.state[parameter].items()
                if torch.is_tensor(value)
            },
        }
        tensors = {f"{part}/{name}": value for part, values in parts.items() for name, value in values.items()}
        about = {"settings": json.dumps(self.settings), "history": json.dumps(asdict(history))}
        with aside(self.path) as partial:  # bytes written by Python: safetensors has errors and modes of its own
            partial.write_bytes(
                save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, about)
            )

    def load(self, device: str) -> tuple[History, State]:
        """Put the saved state back; returns the history and the best weights.

        A file of other settings, and one that is damaged, is ignored: then both are empty, and the training starts afresh.
        """
        from safetensors import safe_open

        parts: dict[str, State] = {"model": {}, "best": {}, "optimiser": {}, "loss": {}}
        try:
            with safe_open(self.path, "pt", device=device) as file:
                about = file.metadata()
                if about["settings"] != json.dumps(self.settings):
                    return History(), {}
                for name in file.keys():  # noqa: SIM118
                    part, _, rest = name.partition("/")
                    parts[part][rest] = file.get_tensor(name)
            history = History(**json.loads(about["history"]))
            for part, module in (("model", self.model), ("best", self.model), ("loss", self.loss)):
                wanted = module.state_dict() if isinstance(module, nn.Module) else {}
                if {n: v.shape for n, v in parts[part].items()} != {n: v.shape for n, v in wanted.items()}:
                    raise ValueError(f"its tensors of the {part} are not those of this training")
        except Exception as error:  # whatever a damaged file causes: nothing of it was put in place yet
            warnings.warn(f"{self.path} is damaged ({error}): the training starts afresh", stacklevel=3)
            return History(), {}
        self.model.load_state_dict(parts["model"])
        if isinstance(self.loss, nn.Module):
            self.loss.load_state_dict(parts["loss"])
        learning = self._learning()
        for place, value in parts["optimiser"].items():
            number, _, name = place.partition("/")
            parameter = learning[int(number)]
            # same memory layout as the weight, else later sums could round differently
            alike = value.shape == parameter.shape
            self.optimiser.state[parameter][name] = torch.empty_like(parameter).copy_(value) if alike else value
        return history, parts["best"]
