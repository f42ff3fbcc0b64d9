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

from aimfair import models
from aimfair.audit import judge as audit
from aimfair.audit import judges
from aimfair.environment import AimfairError
from aimfair.faces import FaceSet
from aimfair.generate import diffusion
from aimfair.study import synthetic
from aimfair.study.corpus import corpus_root, load_corpus
from aimfair.study.profiles import Profile

SAMPLE = 1000
"""Faces that are passed through the autoencoder."""


def inspect(
    profile: Profile, pool: FaceSet, validation: FaceSet, model: nn.Module, device: str = "cpu", data_root: str = ""
) -> dict[str, Any]:
    """Numbers about the generator of ``profile`` and its pool.

    training   the generator's training record: images, minutes, steps, threads, sizes; {} where it is none of this book's
    judged     where the judge looked -> per cent right per label: "faces kept back" of the corpus, the same
               "through the autoencoder", the "validation faces" of the classifier, the "synthetic faces"
    groups     the audit of the pool, a row per group
    probe      how often, in per cent, a linear probe on ``model``'s features tells synthetic from validation faces
    unjudged   why there is no judge, hence nothing judged; empty where there is one

    Of a generator of this book's own, whose corpus is at hand, the judge is a classifier of that corpus, and is judged by
    what was kept back of it (:func:`aimfair.audit.judges.train_corpus_judge`). Of any other model, and of images made
    elsewhere, it is the one that :func:`aimfair.audit.judges.judge_of` finds; it looks at the faces alone.
    """
    names = {"target": profile.target, "protected": profile.protected}
    record = _record(profile)
    judged: dict[str, dict[str, float]] = {}
    unjudged = ""
    judge: audit.Judge | None = None
    if record and _corpus_at_hand(profile, data_root):
        judge, judged = _judge_and_its_bounds(profile, names, device, data_root)
    else:
        try:
            judge = judges.judge_of(profile, device, data_root)
        except judges.NoJudge as error:
            unjudged = str(error)
    groups = [{"target": t, "protected": p, "faces": n} for (t, p), n in zip(audit.GROUPS, pool.counts(), strict=True)]
    if judge is not None:
        for what, faces in (("validation faces", validation), ("synthetic faces", pool)):
            labels = torch.stack([faces.target, faces.protected], 1)  # type: ignore[list-item]
            judged[what] = _right(judge, faces.images, labels, names)
        groups = audit.audit(judge, pool, names).to_dict("records")
    return {
        "training": _short(record),
        "judged": judged,
        "groups": groups,
        "probe": probe(model, validation, pool, device),
        "unjudged": unjudged,
    }


def _record(profile: Profile) -> dict[str, Any]:
    """The training record of a generator of this book's own; {} of any other."""
    if not synthetic.is_tiny(profile):
        return {}
    path = Path(synthetic.model_of(profile), "training.json")
    return json.loads(path.read_text()) if path.exists() else {}


def _corpus_at_hand(profile: Profile, data_root: str) -> bool:
    """Whether the judge can learn from what the generator learnt from. FaceWorld's has its shipped judge."""
    if not profile.corpus or profile.corpus == "faceworld":
        return False
    try:
        corpus_root(profile, data_root)
    except AimfairError:
        return False
    return True


def _judge_and_its_bounds(
    profile: Profile, names: dict[str, str], device: str, data_root: str
) -> tuple[audit.Judge, dict[str, dict[str, float]]]:
    """A judge trained on the corpus; how often it is right on what was kept back, as it is and through the autoencoder."""
    corpus = load_corpus(profile, data_root)
    judge, held = judges.train_corpus_judge(corpus, device=device)
    columns = [corpus.names.index(name) for name in names.values()]
    images, labels = corpus.images[held], corpus.labels[held][:, columns]
    vae = diffusion.load_pipeline(synthetic.model_of(profile), device).vae
    again = reconstruct(vae, images[:SAMPLE], device)
    return judge, {
        "faces kept back": _right(judge, images, labels, names),
        "through the autoencoder": _right(judge, again, labels[:SAMPLE], names),
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
