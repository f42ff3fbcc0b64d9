"""UTKFace (Zhang, Song and Qi, CVPR 2017): age, gender and race of 23,708 aligned faces, in their file names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from aimfair.datasets import Catalogue, _images

RACES = ("White", "Black", "Asian", "Indian", "Others")
NAME = r"^(?P<age>\d{1,3})_(?P<gender>[01])_(?P<race>[0-4])_\d+"
WILD = r"(?:^|/)(?:part[123]|in.the.wild)/"
"""Folders of the images from which the aligned and cropped ones, called .chip.jpg, were made."""
PLACES = ("UTKFace", "UTKFace.zip", "UTKFace.tar.gz", "UTKFace.tar")


def catalogue(root: Path, on_error: str = "raise") -> Catalogue:
    """Faces under ``root``: a folder ``UTKFace/``, ``UTKFace.tar.gz`` or ``UTKFace.zip``, in the order of their names.

    Attributes: Female, Male, White (binary), age (years), race (one of RACES). A name without age, gender
    or race has no labels; such files are left out and listed in ``skipped`` (reading them by position, as
    the common loader does, shifts all later labels), and so is a name that was there before: some copies have a part
    of the faces twice. Images in the wild beside the aligned ones are left out as well. For ``on_error`` see :func:`aimfair.datasets._images.build`; a tar archive becomes
    a zip in ``data/cache``. Raises AimfairError when nothing usable is found.
    """
    images = _open(root)
    files = pd.DataFrame({"member": images.members}, dtype=str)
    files["name"] = files["member"].str.rpartition("/")[2]
    files = files.join(files["name"].str.extract(NAME))
    aligned = files["name"].str.contains(".chip.", regex=False)
    wild = ~aligned & (aligned.any() | files["member"].str.contains(WILD, case=False))
    reason = np.where(files["name"].duplicated(), "there twice", "")  # of two of a name the first is read
    reason = np.where(wild, "from the images in the wild, which are not aligned", reason)
    reason = np.where(files["age"].isna(), "the name does not begin with age_gender_race_date", reason)
    skipped = (files["name"] + ": " + reason)[reason != ""]
    files = files[reason == ""].set_index("name").sort_index().astype({"age": int, "gender": int, "race": int})
    table = pd.DataFrame(
        {
            "Female": files["gender"],
            "Male": 1 - files["gender"],
            "White": (files["race"] == 0).astype("int64"),
            "age": files["age"],
            "race": np.array(RACES)[files["race"]],
        }
    )
    locations = [_images.Location(images, member) for member in files["member"]]
    return _images.build("UTKFace", table, locations, sorted(skipped), on_error)


def _open(root: Path) -> _images.Container:
    found = root if root.is_file() else _images.first(*(root / name for name in PLACES))
    if found is None and any(root.glob("*.chip.jpg")):
        found = root
    if found is None:
        wild = " (images in the wild are not read)" if any(root.glob("part[123]*")) else ""
        raise _images.absent(root, ", ".join(PLACES) + wild, "UTKFace")
    return _images.Container(_images.tar_as_zip(found) if ".tar" in found.suffixes[-2:] else found)
