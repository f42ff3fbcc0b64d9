"""What can be said of a study's generator and pool without showing a face, so that it can be published.

Measure it with ``aimfair measure inspection --seeds 100``; the chapter on real faces shows it.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from aimfair.audit import judges, measures
from aimfair.environment import reading
from aimfair.faces import GROUPS, FaceSet
from aimfair.generate.classifier import Judge
from aimfair.generate.pipelines import load_pipeline
from aimfair.generate.tiny_sd import autoencoder
from aimfair.study.audit import NoJudge, judge_of
from aimfair.study.corpus import NoCorpus, load_corpus
from aimfair.study.pool import is_tiny, model_of
from aimfair.study.profiles import Profile

RECONSTRUCTED = 1000
"""Faces that are passed through the autoencoder."""


def inspect_pool(study: Any, seed: int) -> dict[str, Any]:
    """What can be said of a study's generator and pool without showing a face, so that it can be published.

    training   the generator's training record: images, minutes, steps, threads, sizes; {} where it is none of this book's
    judged     where the judge looked -> per cent right per label: "faces kept back" of the corpus, the same
               "through the autoencoder", the "validation faces" of the classifier, the "synthetic faces"
    groups     the audit of the pool, a row per group
    probe      how often, in per cent, a linear probe on the features of the seed's biased model tells synthetic from
               validation faces; the pool is the same for all seeds, so the first one's serves them all
    unjudged   why there is no judge, hence nothing judged; empty where there is one
    sets       faces per group of "train", "validation", "test" and of the "synthetic pool"
    corpus     faces of the corpus

    Of a generator of this book's own, whose corpus is at hand, the judge is a classifier of that corpus, and is judged by
    what was kept back of it (:func:`aimfair.audit.judges.train_corpus_judge`). Of any other model, and of images made
    elsewhere, it is the one that :func:`judge_of` finds; it looks at the faces alone.
    """
    p, pool, validation = study.profile, study.pool, study.faces("validation")
    names = {"target": p.target, "protected": p.protected}
    record, unjudged = _training_record(p), ""
    judged: dict[str, dict[str, float]] = {}
    groups = [
        {"target": t, "protected": s, "faces": n}
        for (t, s), n in zip(GROUPS, pool.counts(), strict=True)
    ]
    try:
        judge: Judge | None = None
        with suppress(NoCorpus):
            if record and p.corpus not in ("", "faceworld"):
                judge, judged = _judge_with_bounds(study, names)
        judge = judge or judge_of(
            p, study.device, study.data_root
        )  # FaceWorld's generator has its shipped judge
        judged["validation faces"] = judges.agreement(judge, validation, names)
        judged["synthetic faces"] = judges.agreement(judge, pool, names)
        groups = judges.agreement_by_group(judge, pool, names).to_dict("records")
    except NoJudge as error:
        unjudged = str(error)
    sets = {split: study.faces(split).counts() for split in ("train", "validation", "test")}
    return {
        "training": record,
        "judged": judged,
        "groups": groups,
        "probe": measures.probe(study.biased_model(seed), validation, pool, study.device),
        "unjudged": unjudged,
        "sets": sets | {"synthetic pool": pool.counts()},
        "corpus": len(study.split.get("corpus", ())) or record.get("images", 0),
    }


def _training_record(profile: Profile) -> dict[str, Any]:
    """The training record of a generator of this book's own, without its loss curves; {} of any other."""
    path = Path(model_of(profile), "training.json") if is_tiny(profile) else None
    if path is None or not path.exists():
        return {}
    with reading(path):
        record = dict(json.loads(path.read_text()))
    for stage in record.values():
        if isinstance(stage, dict):
            stage.pop("losses", None)
    return record


def _judge_with_bounds(
    study: Any, names: dict[str, str]
) -> tuple[Judge, dict[str, dict[str, float]]]:
    """A judge trained on the corpus; how often it is right on what was kept back, as it is and through the autoencoder."""
    profile, device = study.profile, study.device
    corpus = load_corpus(profile, study.data_root)
    judge, held = judges.train_corpus_judge(corpus, device)
    target, protected = (
        corpus.labels[held, corpus.names.index(name)] for name in names.values()
    )
    kept = FaceSet(corpus.images[held], target, protected, held.numpy().astype(str))
    vae = load_pipeline(model_of(profile), device).vae
    some = kept.subset(torch.arange(min(RECONSTRUCTED, len(kept))))
    again = FaceSet(
        autoencoder.reconstruct(vae, some.images, device),
        some.target,
        some.protected,
        some.names,
    )
    return judge, {
        "faces kept back": judges.agreement(judge, kept, names),
        "through the autoencoder": judges.agreement(judge, again, names),
    }


MEASUREMENTS = {"inspection": inspect_pool}
