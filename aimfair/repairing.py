"""AIM-Fair's repair of a biased model (Algorithm 1): :func:`repair` as a whole, for any classifier of images; and its
steps, of which the methods of this book are made.

    repaired = aimfair.repair(model, real, biased, balanced, validation)

    gaps = gradient_gaps(model, real, biased, balanced, seed=100, mode="train")
    mask = choose_mask(*gaps, k=55)
    history = finetune(model, balanced, validation, schedule, seed=100, mask=mask)

The tensors that react to bias but hardly to the gap between real and synthetic images learn; all others stay as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from torch.utils.data import Dataset

from aimfair import masks
from aimfair.environment import AimfairError, Diverged, choose_device
from aimfair.faces import Batches, FaceSet
from aimfair.gradients import gap, mean_gradients
from aimfair.models import as_input, logits_of
from aimfair.training import History, Optimiser, Schedule, Scheduler, batches, cross_entropy, fit

Gaps = tuple[dict[str, float], dict[str, float]]
"""(domain_gap, bias_gap): of each tensor, how far its mean gradients lie apart on biased real and biased synthetic faces,
and on biased and balanced synthetic faces."""


def three_gradients(
    model: nn.Module,
    real: FaceSet | Batches,
    biased: FaceSet | Batches,
    balanced: FaceSet | Batches,
    seed: int = 0,
    measure: Callable[..., Any] = mean_gradients,
    **options: Any,
) -> list[Any]:
    """Mean gradients (or another ``measure``) on the real, the biased and the balanced synthetic faces.

    options  of :func:`aimfair.gradients.mean_gradients`; the three sets are shuffled and cropped by ``seed`` and the two
             seeds after it. No protected label is read
    """
    sets = [faces.without_protected() if isinstance(faces, FaceSet) else faces for faces in (real, biased, balanced)]
    return [measure(model, faces, seed=seed + i, **options) for i, faces in enumerate(sets)]


def gradient_gaps(
    model: nn.Module,
    real: FaceSet | Batches,
    biased: FaceSet | Batches,
    balanced: FaceSet | Batches,
    seed: int = 0,
    score: str = "absolute",
    **options: Any,
) -> Gaps:
    """Both gaps of :func:`three_gradients`, measured by a ``score`` of :func:`aimfair.gradients.gap` (Eq. 1-4)."""
    on_real, on_biased, on_balanced = three_gradients(model, real, biased, balanced, seed, **options)
    return gap(on_real, on_biased, score), gap(on_biased, on_balanced, score)


def choose_mask(
    domain_gap: Mapping[str, float], bias_gap: Mapping[str, float], k: int, rankings: str = "both"
) -> set[str]:
    """The tensors to fine-tune (Eq. 5-7): :func:`aimfair.masks.select` with ``k`` counted on ResNet-18's 62 tensors, of
    another network the same share."""
    return masks.select(domain_gap, bias_gap, masks.scaled(k, len(domain_gap)), rankings)


def finetune(
    model: nn.Module,
    balanced: FaceSet | Batches,
    validation: FaceSet | Batches | None,
    schedule: Schedule,
    seed: int,
    device: str = "cpu",
    *,
    mask: set[str] | Mapping[str, Tensor] | None = None,
    **how: Any,
) -> History:
    """Fine-tune the model in place on the balanced synthetic faces (Eq. 8); what the mask leaves out stays bit-identical.

    seed  of the biased model. Order and crops are drawn from the next one: they are not those of the pre-training
    mask  names of the tensors that learn; or for some tensors a bool tensor of their shape, true where a single weight
          learns; None: all tensors
    how   ``loss``, ``order``, ``blend``, ``optimiser``, ``scheduler``, ``what`` and ``resume`` of :func:`aimfair.training.fit`, whose errors are raised
    """
    how = {"what": "fine-tuning", **how}
    if not isinstance(mask, Mapping):
        return fit(model, balanced, validation, schedule, seed + 1, device, trainable=mask, **how)
    elements = {name: chosen.to(device) for name, chosen in mask.items()}
    plain = replace(schedule, weight_decay=0.0)
    with only_elements(model.to(device), elements, schedule.weight_decay):
        return fit(model, balanced, validation, plain, seed + 1, device, trainable={*mask}, **how)


@contextmanager
def only_elements(model: nn.Module, elements: Mapping[str, Tensor], weight_decay: float) -> Iterator[None]:
    """Let SGD move only the weights where ``elements`` (name -> bool, shape of the tensor) are true.

    Inside the block the optimiser must have no weight decay of its own: it is added to the gradient here, where the
    mask is true. Elsewhere gradient and momentum are exactly 0, so that those weights stay bit-identical.
    """

    def keep(parameter: nn.Parameter, chosen: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda gradient: torch.where(chosen, gradient + weight_decay * parameter.detach(), 0.0)

    named = dict(model.named_parameters())
    if unknown := elements.keys() - named:
        raise AimfairError(f"the mask names tensors that the model does not have: {sorted(unknown)[:3]}")
    handles = [named[name].register_hook(keep(named[name], chosen)) for name, chosen in elements.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


Images = FaceSet | Dataset | Iterable[Any]
"""A :class:`FaceSet`, a Dataset of (image, target), or an iterable of (images, targets) batches."""


@dataclass(frozen=True, eq=False)
class Repaired:
    """What :func:`repair` made.

    model       the repaired copy of the model, on the device of the original
    domain_gap, bias_gap  of each tensor, see :data:`Gaps`; empty where they were not measured
    mask        names of the tensors that learnt; all others are bit-identical to the original's
    history     training curve, and the chosen epoch
    lr          the learning rate, chosen where several were given
    """

    model: nn.Module
    domain_gap: dict[str, float]
    bias_gap: dict[str, float]
    mask: set[str]
    history: History
    lr: float


def repair(
    model: nn.Module,
    real: Images | None,
    biased: Images | None,
    balanced: Images,
    validation: Images | None = None,
    *,
    selection: str | Collection[str] = "aim-fair",
    k: int = 55,
    score: str = "absolute",
    gradients: str = "train",
    batchnorm: str = "train",
    lr: float | Iterable[float] = 0.01,
    epochs: int = 15,
    batch_size: int = 128,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    optimiser: Optimiser | None = None,
    scheduler: Scheduler | None = None,
    seed: int = 0,
    device: str = "auto",
    resume: Path | None = None,
) -> Repaired:
    """Repair a biased classifier of images by selective fine-tuning on balanced synthetic images; the model stays as it is.

    model       maps images to one logit or to K logits, or to an output that has them as ``logits`` (transformers).
                Parameters that do not require a gradient stay frozen
    real, biased, balanced  the real training images; synthetic ones with the same bias; synthetic ones with equal groups.
                Images are as the model expects them, only those of a FaceSet are brought to [-1, 1] and cropped here;
                targets are 0 to K - 1 (0 and 1 of one logit). No protected label is read
    validation  real images by whose accuracy the epoch, and one of several ``lr``, is chosen; None: the last epoch
    selection   "aim-fair"; "all" tensors; or a set of names. Only "aim-fair" needs ``real`` and ``biased``
    k, score    of :func:`choose_mask` and :func:`aimfair.gradients.gap`
    gradients   "train" or "eval", see :func:`aimfair.gradients.mean_gradients`
    batchnorm   running statistics of batch norm: "train" lets them follow the synthetic images, "keep" leaves them,
                "re-estimate" lets them follow and in the end takes them from the real images again
    loss        (logits, targets) -> scalar, in place of the cross-entropy
    optimiser   (parameters, lr) -> optimiser, in place of SGD; ``scheduler`` (optimiser) -> its learning rates by epoch
    batch_size  of what comes without batches of its own
    seed        of order, crops and dropout; ``resume`` is the file of a half-finished training
    Raises AimfairError, in one line, for sets, models and options that do not fit together, and Diverged for logits or a
    loss that are not finite.
    """
    rates = [float(rate) for rate in lr] if isinstance(lr, Iterable) else [float(lr)]
    if batchnorm not in ("train", "keep", "re-estimate"):
        raise AimfairError(f"batchnorm must be train, keep or re-estimate, got {batchnorm!r}")
    if isinstance(selection, str) and selection not in ("aim-fair", "all"):
        raise AimfairError(f"selection must be aim-fair, all or a set of names, got {selection!r}")
    if not rates or (len(rates) > 1 and validation is None):
        raise AimfairError("one of several learning rates is chosen by validation accuracy: give validation images")
    if (selection == "aim-fair" or batchnorm == "re-estimate") and real is None:
        raise AimfairError(f"{selection if selection == 'aim-fair' else batchnorm} needs the real training images")
    if selection == "aim-fair" and biased is None:
        raise AimfairError("aim-fair needs synthetic images that are biased as the real ones are")
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not learning:
        raise AimfairError("every parameter of the model is frozen: set requires_grad of those that may learn")
    device, home = choose_device(device), next(model.parameters()).device
    on_device = copy.deepcopy(model).to(device)
    classes = count_classes(on_device, balanced, batch_size, device)

    def read(images: Images | None, what: str, shuffle: bool = True) -> Any:
        known = images is None or isinstance(images, FaceSet)
        return images if known else Batches(images, what, classes, batch_size, shuffle)  # type: ignore[arg-type]

    of_real, of_biased = read(real, "real images"), read(biased, "biased synthetic images")
    of_balanced, held = (
        read(balanced, "balanced synthetic images"),
        read(validation, "validation images", shuffle=False),
    )
    measured = (lambda logits, target, index: loss(logits, target)) if loss else cross_entropy
    gaps: Gaps = ({}, {})
    if of_real is not None and of_biased is not None:
        how: dict[str, Any] = {"mode": gradients, "batch_size": batch_size, "device": device, "loss": measured}
        found = gradient_gaps(on_device, of_real, of_biased, of_balanced, seed, score, **how)
        gaps = tuple({n: value for n, value in of.items() if n in learning} for of in found)  # type: ignore[assignment]
    if isinstance(selection, str):
        mask = choose_mask(*gaps, k) if selection == "aim-fair" else learning
    else:
        mask = {*selection}
    schedule = Schedule(
        epochs=epochs,
        batch_size=batch_size,
        milestones=(),
        batchnorm="eval" if batchnorm == "keep" else "train",
        select="last" if validation is None else "validation-accuracy",
        ties="first",
    )
    tune: dict[str, Any] = {"mask": mask, "loss": measured, "optimiser": optimiser, "scheduler": scheduler}
    tried: list[Repaired] = []
    for rate in rates:
        tuned, plan = copy.deepcopy(on_device), replace(schedule, lr=rate)
        what = "repair" if len(rates) == 1 else f"repair, learning rate {rate:g}"
        try:
            history = finetune(tuned, of_balanced, held, plan, seed, device, **tune, what=what, resume=resume)
        except Diverged:
            if rate == rates[-1] and not tried:
                raise
            continue
        tried.append(Repaired(tuned, *gaps, mask, history, rate))
    best = max(tried, key=lambda one: max(one.history.validation_accuracy, default=0))
    if batchnorm == "re-estimate":
        reestimate(best.model, of_real, batch_size, seed, device)
    for repaired, original in zip(best.model.parameters(), model.parameters(), strict=True):
        repaired.requires_grad_(original.requires_grad)
    best.model.train(model.training).to(home)
    return best


def count_classes(model: nn.Module, images: Images, batch_size: int, device: str) -> int:
    """How many classes the model tells apart, by its answer to the first of the images: 2 for one logit, else K.

    Raises AimfairError for outputs that are neither, and Diverged for logits that are not finite.
    """
    if isinstance(images, FaceSet):
        first = as_input(images.images[:batch_size])
    else:
        first, _ = next(iter(Batches(images, "balanced synthetic images", None, batch_size)), (torch.empty(0), None))
    if not len(first):
        raise AimfairError("balanced synthetic images: there are no images")
    was = model.training
    with torch.inference_mode():
        logits = logits_of(model.eval(), first.to(device))
    model.train(was)
    if not logits.isfinite().all():
        raise AimfairError("the model's logits are not finite: its weights or the images hold NaN")
    return 2 if logits.ndim == 1 else logits.shape[1]


def reestimate(model: nn.Module, faces: FaceSet | Batches, batch_size: int, seed: int, device: str) -> None:
    """Replace all running means and variances of ``model`` by those of the images of ``faces``, in place.

    They become the mean over shuffled batches of each batch's mean and unbiased variance, from one pass through whole
    images, as they are looked at in testing; the last incomplete batch is dropped. Weights, labels and the model's mode
    are left alone. Raises AimfairError for a model without batch norm and for no images.
    """
    if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        raise AimfairError("this backbone has no batch norm, so there are no statistics to estimate again")
    if isinstance(faces, Batches):
        update_bn((images.to(device) for images, _ in faces.draw(seed)), model.to(device))
        return
    if len(faces) == 0:
        raise AimfairError("no images to estimate batch-norm statistics from")
    order = torch.randperm(len(faces), generator=torch.Generator().manual_seed(seed))
    update_bn((as_input(faces.images[index].to(device)) for index in batches(order, batch_size)), model.to(device))
