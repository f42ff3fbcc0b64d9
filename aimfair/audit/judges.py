"""Which judge looks at the synthetic faces of a profile, and where it comes from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor

from aimfair.audit.judge import Judge, load_judge, train_judge
from aimfair.environment import AimfairError, home
from aimfair.generate.corpora import CORPORA, Corpus
from aimfair.study.corpus import corpus_root, load_corpus
from aimfair.study.profiles import Profile

SHIPPED = {"faceworld": "judge.safetensors", "fairface": "judge-fairface.safetensors"}
"""Corpus -> the judge of it in ``data/tiny-sd``. Each looks at 64 px, to which it resizes what it is shown."""


class NoJudge(AimfairError):
    """There is nothing here on which a judge of a profile's faces could learn."""


def judge_of(profile: Profile, device: str = "cpu", data_root: str = "") -> Judge:
    """The judge of a profile's synthetic faces, which never saw a face or a label that a classifier learns from.

    For FaceWorld and for the corpus FairFace the one that the repository ships; else a classifier of the profile's external
    corpus (:func:`train_corpus_judge`), trained at the first call and kept in ``data/cache``. Raises NoJudge where the
    profile names no corpus, or one that is not on this disk.
    """
    known = _corpus(profile)
    if known in SHIPPED:
        return load_judge(_shipped(known), device)
    if not known:
        raise NoJudge(
            f"profile {profile.profile} names no corpus on which a judge of its faces could learn: set -p corpus= to "
            f"{', '.join(CORPORA)}, or have CLIP judge an audit (--clip FOLDER)"
        )

    def train() -> Judge:
        try:
            corpus_root(profile, data_root)
        except AimfairError as error:
            raise NoJudge(
                f"the judge of the faces learns from {known}, which is not here: give -p corpus_root=FOLDER, or have CLIP "
                "judge an audit (--clip FOLDER)"
            ) from error
        return train_corpus_judge(load_corpus(profile, data_root), device=device)[0]

    return kept_judge(judge_identity(profile), train, device)


def judge_identity(profile: Profile) -> str:
    """What tells the judge of one profile from that of another: a digest of the shipped one, or corpus and image size."""
    known = _corpus(profile)
    if known in SHIPPED:
        return f"{known}@{hashlib.blake2b(_shipped(known).read_bytes(), digest_size=4).hexdigest()}"
    return f"{known}-{profile.image_size}"


def _corpus(profile: Profile) -> str:
    """What the judge of a profile's faces learns from."""
    return "faceworld" if profile.dataset == "faceworld" else profile.corpus


def _shipped(corpus: str) -> Path:
    return home() / "data" / "tiny-sd" / SHIPPED[corpus]


def kept_judge(name: str, train: Callable[[], Judge], device: str = "cpu") -> Judge:
    """The judge ``name`` of ``data/cache``; trained and kept there if it is missing, by one process while others wait."""
    path = home() / "data" / "cache" / f"judge-{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            train().save(path)
    return load_judge(path, device)


def train_corpus_judge(corpus: Corpus, *, epochs: int = 8, seed: int = 1, device: str = "cpu") -> tuple[Judge, Tensor]:
    """A judge of real looks, trained on a captioned corpus; returns it and the indices of the faces kept from it.

    Every tenth face is kept back, so that the judge's own accuracy can be told: its word is worth no more than that.
    It learns from the corpus' attributes, hence no label of a face that a classifier is trained on is read. The seed
    differs from that of the classifier whose features the autoencoder is trained to keep: a twin of it would be no
    independent judge.
    """
    held = torch.arange(len(corpus.images)) % 10 == 9
    judge = train_judge(
        corpus.images[~held], corpus.labels[~held], corpus.names, epochs=epochs, seed=seed, device=device
    )
    return judge, held.nonzero().flatten()
