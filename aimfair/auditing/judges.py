"""Which judge looks at the synthetic faces of a profile, and where it comes from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor

from aimfair import corpora
from aimfair.audit import Judge, load_judge, train_judge
from aimfair.corpora import Corpus
from aimfair.errors import AimfairError
from aimfair.paths import home
from aimfair.profiles import Profile


def judge_of(profile: Profile, device: str = "cpu", data_root: str = "") -> Judge:
    """The judge of a profile's synthetic faces, which never saw a face or a label that a classifier learns from.

    For FaceWorld the one that the repository ships; else a classifier of the profile's external corpus
    (:func:`train_corpus_judge`), trained at the first call and kept in ``data/cache``. Raises AimfairError where the
    profile names no corpus.
    """
    if "faceworld" in (profile.corpus, profile.dataset):
        return load_judge(_shipped(), device)
    if not profile.corpus:
        raise AimfairError(
            f"profile {profile.profile} names no corpus on which a judge of its faces could be trained: set corpus to "
            f"{', '.join(corpora.CORPORA)}, or give the audit a CLIP model"
        )

    def train() -> Judge:
        return train_corpus_judge(corpora.load(profile, data_root), device=device)[0]

    return kept_judge(judge_identity(profile), train, device)


def judge_identity(profile: Profile) -> str:
    """What tells the judge of one profile from that of another: a digest of the shipped one, or corpus and image size."""
    if "faceworld" in (profile.corpus, profile.dataset):
        return f"faceworld@{hashlib.blake2b(_shipped().read_bytes(), digest_size=4).hexdigest()}"
    return f"{profile.corpus}-{profile.image_size}"


def _shipped() -> Path:
    return home() / "data" / "tiny-sd" / "judge.safetensors"


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
