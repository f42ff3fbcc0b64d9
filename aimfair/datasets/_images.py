"""Image files in folders and archives, decoded in parallel threads to uint8 arrays.

Faces are squashed to a square by an antialiased bilinear resize without a crop: the evaluation transform
of AIM-Fair, applied once and kept. At 64 px two cores decode thousands of faces a second, so decoded
images are not cached on disk; only a tar archive, which allows no random access, is rewritten as a zip.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.Image import Transpose
from torch import Tensor

from aimfair.datasets import Catalogue
from aimfair.environment import AimfairError, cores, home, reading, recognise
from aimfair.progress import progress

MEMORY_LIMIT = 4 * 2**30
"""Bytes of decoded images beyond which they are read into a memory map instead of an array in memory."""

FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
TURNS = dict(
    enumerate(
        (
            Transpose.FLIP_LEFT_RIGHT,
            Transpose.ROTATE_180,
            Transpose.FLIP_TOP_BOTTOM,
            Transpose.TRANSPOSE,
            Transpose.ROTATE_270,
            Transpose.TRANSVERSE,
            Transpose.ROTATE_90,
        ),
        2,
    )
)
"""EXIF orientation -> how the picture is turned to be seen upright; 1 is upright."""
BLOCK = 2048


class BrokenImage(AimfairError):
    """An image file whose content cannot be decoded, as opposed to one that cannot be reached."""


class Container:
    """A folder or zip file of images: the sorted relative ``members`` at any depth, read from any thread.

    Hidden files, such as the companions ``._1.jpg`` and ``__MACOSX/`` of other systems, are none of its members.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._lock = path, threading.Lock()  # a ZipFile is not safe across threads
        self._archive = None
        if path.is_dir():
            walk = os.walk(path, onerror=_refuse)
            names = [(Path(at) / name).relative_to(path).as_posix() for at, _, found in walk for name in found]
        else:
            with reading(path):
                self._archive = zipfile.ZipFile(path)
            names = [entry.filename for entry in self._archive.infolist() if not entry.is_dir()]
        self.members = sorted(name for name in names if not re.search(r"(^|/)(\.|__MACOSX/)", name))

    def read(self, member: str) -> bytes:
        """Content of a file. Raises BrokenImage for one that is damaged in its archive, else AimfairError."""
        try:
            if self._archive is None:
                return (self.path / member).read_bytes()
            with self._lock:
                return self._archive.read(member)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise BrokenImage(f"is damaged inside the archive: {error}") from error
        except (OSError, KeyError, RuntimeError) as error:
            raise AimfairError(f"{self.path / member} cannot be read ({error}); check its permissions") from error


def _refuse(error: OSError) -> None:
    raise AimfairError(f"{error.filename} cannot be read ({error.strerror}); check its permissions")


class Location(NamedTuple):
    """One image file: ``member`` inside ``container``."""

    container: Container
    member: str


# Finding


def first(*candidates: Path) -> Path | None:
    """The first candidate that exists; a folder counts only when it is not empty."""
    return next((p for p in candidates if p.is_file() or (p.is_dir() and any(p.iterdir()))), None)


def absent(root: Path, wanted: str, data_set: str) -> AimfairError:
    """The error of a folder that does not hold what is ``wanted`` of a data set."""
    parquet = any(root.rglob("*.parquet"))
    copy = " (its parquet files are not read: write their images and labels into the usual files)" if parquet else ""
    return AimfairError(f"no {wanted} in {root}{copy}: data/README.md says how to get {data_set}")


def read_list(path: Path, **options: Any) -> pd.DataFrame:
    """``pd.read_csv`` of a list that describes images; fields are separated by white space in a ``.txt``, else by what its
    first line has most of: commas, semicolons or tabs. Raises AimfairError for what is no table."""
    with reading(path, "mend it (a table in UTF-8), or fetch it again"):
        with path.open(encoding="utf-8-sig") as file:
            most = max(",;\t", key=file.readline().count)
        between = r"\s+" if path.suffix == ".txt" else most
        table = pd.read_csv(path, sep=between, skipinitialspace=True, encoding="utf-8-sig", **options)
    # Of too many fields pandas takes the first as index, and shifts the rest.
    if not isinstance(table.index, pd.RangeIndex):
        raise AimfairError(f"{path}: its lines have more fields than columns; fetch the list again")
    return table


def as_posix(paths: pd.Series) -> pd.Series:
    """Paths of a list as members are called: ``.\\0_0\\1.png`` and ``./0_0/1.png`` are ``0_0/1.png``."""
    return paths.str.replace("\\", "/").str.replace(r"^(\./)+", "", regex=True)


def match(
    table: pd.DataFrame, files: Sequence[tuple[str, Location]], listed: Path
) -> tuple[pd.DataFrame, list[Location], list[str]]:
    """Bring a list and the images together: the rows that have an image, where each is, and who was left out and why.

    table  a row for each name in the list ``listed``
    files  name and place of each image; of two of a name the first is read
    Raises AimfairError for a name that the list has twice, and when there is an image of none.
    """
    places = dict(reversed(files))
    if table.index.has_duplicates:
        raise AimfairError(f"{listed}: {table.index[table.index.duplicated()][0]} is listed twice")
    found = table.index.isin(places.keys())
    if not found.any():
        raise AimfairError(f"{listed} does not match the images: it lists {len(table)}, and none of them is there")
    skipped = [f"{name}: in {listed.name}, no image" for name in table.index[~found]]
    skipped += [f"{name}: not in {listed.name}" for name in places.keys() - set(table.index)]
    skipped += [f"{name}: there twice" for name, place in files if place != places[name]]
    table = table[found]
    return table, [places[name] for name in table.index], sorted(skipped)


def tar_as_zip(archive: Path) -> Path:
    """Rewrite a tar archive once as an uncompressed zip file in ``data/cache``, which gives any member at once.

    The file's name holds the archive's path, size and time. It appears whole or not at all, and of several processes
    one writes while the others wait. Raises AimfairError for a damaged archive or a folder that cannot be written.
    """
    stat, cache = archive.stat(), cache_folder()
    identity = f"{archive.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
    target = cache / f"{archive.name.split('.')[0]}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}.zip"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_suffix(".lock")), tempfile.TemporaryDirectory(dir=cache) as aside:
            if not target.exists():
                whole = Path(aside, target.name)
                with tarfile.open(archive, "r|*") as source, zipfile.ZipFile(whole, "w") as copy:
                    for member in progress(source, f"unpacking {archive.name}", unit="file"):
                        if content := source.extractfile(member) if member.isfile() else None:
                            copy.writestr(zipfile.ZipInfo(member.name), content.read())
                whole.replace(target)
    except (tarfile.TarError, EOFError, zlib.error):
        with reading(archive):
            raise
    except OSError as error:
        raise AimfairError(f"{archive} cannot be unpacked into {cache} ({error}): make room there") from error
    return target


def cache_folder() -> Path:
    """Where a rewritten archive, and images beyond :data:`MEMORY_LIMIT`, are kept."""
    return home() / "data" / "cache"


# Reading


def build(
    name: str,
    table: pd.DataFrame,
    locations: Sequence[Location],
    skipped: list[str],
    on_error: str = "raise",
) -> Catalogue:
    """Catalogue of the faces at ``locations``: one row of ``table`` each, attributes under the face's name as index.

    on_error  "raise": a broken image ends the reading that meets it, with one line that names the file.
              "skip": every image is decoded once now; the broken ones leave the catalogue together with
              their labels and are listed in ``skipped``, so that quotas are drawn from sound images only.
    """
    if on_error not in ("raise", "skip"):
        raise AimfairError(f"on_error is {on_error!r}: choose 'raise' or 'skip'")
    if on_error == "skip":
        faces = list(progress(_decode_all(locations, 1), f"checking {name}", len(locations), "image"))
        sound = [not isinstance(face, BrokenImage) for face in faces]
        skipped = skipped + [
            f"{at.member}: {face}" for at, face in zip(locations, faces, strict=True) if isinstance(face, BrokenImage)
        ]
        locations, table = [at for at, keep in zip(locations, sound, strict=True) if keep], table[sound]
    if not len(locations):
        raise AimfairError(f"{name}: no usable image; left out: {'; '.join(skipped[:3]) or 'none'}")

    def read(indices: np.ndarray, size: int) -> Tensor:
        return _read_images([locations[index] for index in indices], size, f"decoding {Path(name).name}")

    return Catalogue(name, np.array(table.index, dtype=str), table.reset_index(drop=True), read, skipped)


def _read_images(locations: Sequence[Location], size: int, what: str) -> Tensor:
    """(n, 3, size, size) uint8 images in the order of ``locations``, whatever the number of threads.

    Beyond :data:`MEMORY_LIMIT` the tensor maps a nameless file in ``data/cache`` that vanishes with it.
    Raises BrokenImage naming the first file that cannot be decoded, AimfairError when the disk is full.
    """
    if size < 1:
        raise AimfairError(f"image size is {size}: it must be a positive number of pixels")
    shape, cache = (len(locations), 3, size, size), cache_folder()

    def sound() -> Iterator[np.ndarray]:
        faces = progress(_decode_all(locations, size), what, len(locations), "image")
        for (container, member), face in zip(locations, faces, strict=True):
            if isinstance(face, BrokenImage):
                raise BrokenImage(f"{container.path / member} {face}; replace or remove it") from face
            yield face

    if np.prod(shape) <= MEMORY_LIMIT:
        images = np.empty(shape, np.uint8)
        for row, face in enumerate(sound()):
            images[row] = face
        return torch.from_numpy(images)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache) as file:
            for face in sound():
                file.write(face.tobytes())
            file.flush()
            return torch.from_numpy(np.memmap(file, np.uint8, mode="r+", shape=shape))
    except OSError as error:
        wanted = f"{np.prod(shape) / 2**30:.1f} GiB of decoded images"
        raise AimfairError(f"no room for {wanted} in {cache} ({error}): free some") from error


def _decode_all(locations: Sequence[Location], size: int) -> Iterator[np.ndarray | BrokenImage]:
    """Every face in order, and in the place of a broken one what is wrong with it. Pillow decodes outside the GIL."""

    def decode_one(location: Location) -> np.ndarray | BrokenImage:
        try:
            return decode(location.container.read(location.member), size)
        except BrokenImage as error:
            return error

    for start in range(0, len(locations), BLOCK):  # bounds what waits in memory for a slow consumer
        # Nothing is yielded while threads run: a generator that is left and collected later would wait for its threads in
        # whatever line the collector came by, and one of those holds a lock that the threads need in order to end.
        with ThreadPoolExecutor(cores()) as pool:
            faces = list(pool.map(decode_one, locations[start : start + BLOCK]))
        yield from faces


def decode(data: bytes, size: int) -> np.ndarray:
    """Content of an image file -> (3, size, size) uint8, RGB.

    Grey, palette and CMYK become RGB, an alpha channel is dropped, and a picture that says how the camera was held (EXIF)
    is turned as a person sees it. Raises BrokenImage for a truncated
    or foreign file, and for modes of more than 8 bits, whose conversion would clip nearly every pixel.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.mode not in MODES:
                raise BrokenImage(f"has mode {image.mode}, not 8 bits per channel: convert it to RGB")
            face = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
            with suppress(Exception):  # what is wrong with the notes of a camera is not wrong with its picture
                orientation = image.getexif().get(ExifTags.Base.Orientation)
                face = face.transpose(TURNS[orientation]) if orientation in TURNS else face
    except (BrokenImage, MemoryError):
        raise
    except UnidentifiedImageError:
        raise BrokenImage(recognise(data[:500]) or "is not a JPEG, PNG, BMP or WebP image") from None
    except Exception as error:  # decoders meet damaged input with whatever exception comes first
        raise BrokenImage(f"cannot be decoded: {error}") from error
    return np.asarray(face).transpose(2, 0, 1)
