"""The captioned corpus of a profile: on which its tiny generator is trained, and the judge of its faces."""

from __future__ import annotations

from aimfair.environment import AimfairError, resolve
from aimfair.generate import corpora
from aimfair.study.profiles import Profile


class NoCorpus(AimfairError):
    """The captioned corpus is not on this disk."""


def load_corpus(profile: Profile, data_root: str = "") -> corpora.Corpus:
    """The corpus that ``profile.corpus`` names, at the profile's image size, from :func:`corpus_root`.

    Raises AimfairError for an unknown corpus, for one that is not found, and for one that would share people with the
    classifier's training set.
    """
    if profile.corpus == profile.dataset != "faceworld" and profile.split != "identities":
        raise AimfairError(
            f"profile {profile.profile}: corpus and classifier would share people of {profile.corpus}; set split: identities"
        )
    root = corpus_root(profile, data_root) if profile.corpus in corpora.CORPORA else ""
    return corpora.load(profile.corpus, root, profile.image_size)


def corpus_root(profile: Profile, data_root: str = "") -> str:
    """The folder of the profile's corpus; empty for FaceWorld, which is drawn. Raises NoCorpus where there is none.

    It is ``profile.corpus_root``; else ``data_root`` where classifier and generator share a data set; else a folder
    beside ``data_root`` that bears the corpus' name.
    """
    if profile.corpus == "faceworld":
        return ""
    if not (profile.corpus_root or data_root):
        raise NoCorpus(
            f"profile {profile.profile}: set corpus_root to the folder that holds {profile.corpus}, or give the data set's "
            "with --data (data_root in a notebook) and put the corpus beside it"
        )
    shared = profile.corpus == profile.dataset
    given = resolve(profile.corpus_root or data_root)
    folder = given if profile.corpus_root or shared else given.parent / profile.corpus
    if not folder.is_dir():
        raise NoCorpus(f"{folder} is no folder: set corpus_root to the one that holds {profile.corpus}")
    return str(folder)
