"""What can be told of a synthetic pool without showing a face: are the prompts obeyed, and how far from real is it?

The answers are numbers, so they can be published for studies whose pictures must not be.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aimfair import audit, diffusion, models, synthetic
from aimfair.auditing import judges
from aimfair.faces import FaceSet
from aimfair.paths import home
from aimfair.profiles import Profile
from aimfair.tiny_sd import corpora

SAMPLE = 1000
"""Faces that are passed through the autoencoder."""


def inspect(
    profile: Profile, pool: FaceSet, validation: FaceSet, model: nn.Module, device: str = "cpu", data_root: str = ""
) -> dict[str, Any]:
    """Numbers about the generator of ``profile`` and its pool.

    training   the generator's training record: images, minutes, steps, threads, sizes
    judged     where the judge looked -> per cent right per label: "faces kept back" of the corpus, the same
               "through the autoencoder", the "validation faces" of the classifier, the "synthetic faces"
    groups     the audit of the pool, a row per group
    probe      how often, in per cent, a linear probe on ``model``'s features tells synthetic from validation faces

    The judge is a classifier of the corpus (:func:`aimfair.auditing.judges.train_corpus_judge`), for FaceWorld the one that the
    repository ships. Needs a profile with a corpus.
    """
    folder = Path(synthetic.generator(profile, device, data_root))
    names = {"target": profile.target, "protected": profile.protected}
    judged: dict[str, dict[str, float]] = {}
    if profile.corpus == "faceworld":
        judge = audit.load_judge(home() / "data" / "tiny-sd" / "judge.safetensors", device)
    else:
        corpus = corpora.load(profile, data_root)
        judge, held = judges.train_corpus_judge(corpus, device=device)
        columns = [corpus.names.index(name) for name in names.values()]
        images, labels = corpus.images[held], corpus.labels[held][:, columns]
        judged["faces kept back"] = _right(judge, images, labels, names)
        vae = diffusion.load_pipeline(folder, device).vae
        again = reconstruct(vae, images[:SAMPLE], device)
        judged["through the autoencoder"] = _right(judge, again, labels[:SAMPLE], names)
    for what, faces in (("validation faces", validation), ("synthetic faces", pool)):
        labels = torch.stack([faces.target, faces.protected], 1)  # type: ignore[list-item]
        judged[what] = _right(judge, faces.images, labels, names)
    record = folder / "training.json"
    return {
        "training": _short(json.loads(record.read_text())) if record.exists() else {},
        "judged": judged,
        "groups": audit.audit(judge, pool, names).to_dict("records"),
        "probe": probe(model, validation, pool, device),
    }


def reconstruct(vae: Any, images: Tensor, device: str = "cpu", batch_size: int = 100) -> Tensor:
    """(N, 3, H, W) uint8 images -> what the autoencoder makes of them, likewise: the best that its decoder can draw."""
    parts = []
    with torch.inference_mode():
        for batch in images.split(batch_size):
            latent = vae.encode((batch.to(device, vae.dtype) / 127.5) - 1).latent_dist.mean
            pixels = vae.decode(latent).sample.float()
            parts.append(((pixels / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).cpu())
    return torch.cat(parts)


def probe(model: nn.Module, real: FaceSet, drawn: FaceSet, device: str = "cpu", seed: int = 0) -> float:
    """Accuracy, in per cent, of a linear probe that tells ``drawn`` from ``real`` by ``model``'s features.

    As many of either, chosen at random; fitted on one half, scored on the other. 50: they cannot be told apart.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    n = min(len(real), len(drawn), 2 * SAMPLE)
    rng = np.random.default_rng(seed)
    sets = [faces.subset(np.sort(rng.permutation(len(faces))[:n])) for faces in (real, drawn)]
    x = np.concatenate([models.evaluate(model.to(device), faces, device, output="features").numpy() for faces in sets])
    y = np.repeat([0, 1], n)
    fit = np.arange(2 * n) % 2 == 0
    fitted = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(x[fit], y[fit])
    return 100 * float(fitted.score(x[~fit], y[~fit]))


def _right(judge: audit.Judge, images: Tensor, labels: Tensor, names: dict[str, str]) -> dict[str, float]:
    seen = judge.logits(images)[:, [judge.column(name) for name in names.values()]] >= 0
    return dict(zip(names.values(), (100 * (seen == labels.bool()).double().mean(0)).tolist(), strict=True))


def _short(record: dict[str, Any]) -> dict[str, Any]:
    """A training record without its loss curves."""
    return {
        key: {k: v for k, v in value.items() if k != "losses"} if isinstance(value, dict) else value
        for key, value in record.items()
    }
