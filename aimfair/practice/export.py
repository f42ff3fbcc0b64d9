"""A classifier of timm or torchvision from its weights, and the files in which a repaired one is handed on."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from aimfair.environment import AimfairError
from aimfair.models import logits_of, read_weights

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Classifier(NamedTuple):
    """A model and what it expects: square images of ``size`` pixels, their channels normalised by ``mean`` and ``std``."""

    model: nn.Module
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def make_classifier(name: str, classes: int, weights: Path | None = None, seed: int = 0) -> Classifier:
    """The classifier ``timm:...`` or ``torchvision:...``, with these weights or random ones drawn from ``seed``.

    Of two classes it has one logit, or two where the weights have. Raises AimfairError for a name that the library does not
    know, and names tensors that are missing in the weights, have another shape, or belong to another model.
    """
    library, _, short = name.partition(":")
    if library not in ("timm", "torchvision") or not short:
        raise AimfairError(f"--model is timm:NAME or torchvision:NAME, such as timm:resnet18, got {name!r}")
    state = read_weights(weights) if weights else None
    wrong = ""
    for outputs in (1, 2) if classes == 2 else (classes,):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            classifier = _make(library, short, outputs)
        own = {key: value.shape for key, value in classifier.model.state_dict().items()}
        given = {key: value.shape for key, value in state.items()} if state else own
        differing = [key for key in own.keys() | given.keys() if own.get(key) != given.get(key)]
        if not differing:
            classifier.model.load_state_dict(state or classifier.model.state_dict())
            return classifier
        if not wrong or len(differing) < 5:
            said = [f"{key} {_shape(given.get(key))} for {_shape(own.get(key))}" for key in sorted(differing)[:3]]
            wrong = f"{len(differing)} tensors differ from {name} with {classes} classes: {', '.join(said)}"
    raise AimfairError(f"{weights} does not fit: {wrong}")


def _shape(shape: torch.Size | None) -> str:
    return "nothing" if shape is None else str(tuple(shape))


def _make(library: str, name: str, outputs: int) -> Classifier:
    try:
        if library == "timm":
            import timm

            model = timm.create_model(name, pretrained=False, num_classes=outputs)
            about: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
            return Classifier(model, about["input_size"][-1], tuple(about["mean"]), tuple(about["std"]))
        from torchvision.models import get_model

        return Classifier(get_model(name, weights=None, num_classes=outputs), 224, *IMAGENET)
    except (ValueError, RuntimeError) as error:
        raise AimfairError(f"{library} makes no model {name!r}: {str(error).splitlines()[0]}") from error


def write_safetensors(model: nn.Module, path: Path, about: Mapping[str, str]) -> None:
    """All tensors in their own precision, at once or not at all; ``about`` goes into the header."""
    from safetensors.torch import save_model

    partial = path.with_suffix(".partial")
    save_model(model, str(partial), dict(about))
    partial.replace(path)


def write_onnx(model: nn.Module, example: Tensor, path: Path) -> str:
    """Export for batches of any size and compare with the model on ``example`` (B, 3, H, W); returns what came of it.

    Needs the packages of ``aimfair[onnx]``; where they are missing nothing is written. Raises AimfairError for an export
    whose logits are others.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        return f"model.onnx was not written: {error.name} is missing (pip install aimfair[onnx])"
    model = model.cpu().eval()
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        wanted = logits_of(model, example)
        how: dict[str, Any] = {"dynamo": True, "verbose": False, "external_data": False}
        names: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits"]}
        torch.onnx.export(
            model, (example,), str(path), **names, **how, dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = torch.from_numpy(session.run(None, {"images": example.contiguous().numpy()})[0]).reshape(wanted.shape)
    off = (found - wanted).abs().max().item()
    if not off <= 1e-3 * max(1.0, wanted.abs().max().item()):
        path.unlink()
        raise AimfairError(f"the ONNX export answers otherwise than the model: logits differ by up to {off:g}")
    return f"model.onnx gives the same logits on {len(example)} images, to {off:.0e}"
