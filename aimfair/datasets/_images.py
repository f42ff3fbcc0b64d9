"""Image files in folders and archives, decoded in parallel threads to uint8 arrays.

Faces are squashed to a square by an antialiased bilinear resize without a crop: the evaluation transform
of AIM-Fair, applied once and kept. At 64 px two cores decode thousands of faces a second, so decoded
images are not cached on disk; only a tar archive, which allows no random access, is rewritten as a zip.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from aimfair.datasets import Catalogue
from aimfair.environment import AimfairError, cores, home
from aimfair.progress import progress

MEMORY_LIMIT = 4 * 2**30
"""Bytes of decoded images beyond which they are read into a memory map instead of an array in memory."""

FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
BLOCK = 2048


class BrokenImage(AimfairError):
    """An image file whose content cannot be decoded, as opposed to one that cannot be reached."""


class Location(NamedTuple):
    """One image file: ``member`` inside the folder or zip file ``container``."""

    container: Path
    member: str

    def __str__(self) -> str:
        return str(self.container / self.member)


# Finding


def data_root(root: str | Path | None, data_set: str) -> Path:
    """``root`` as a path. Raises AimfairError when none is given or it does not exist."""
    if root is None:
        raise AimfairError(
            f"{data_set} is read from a local copy: give the path to it (data/README.md says how to get one)"
        )
    path = Path(root).expanduser()
    if not path.exists():
        raise AimfairError(f"{data_set}: {path} does not exist; give the folder that holds the data set")
    return path


def first(candidates: Iterable[Path]) -> Path | None:
    """The first candidate that exists; a folder counts only when it is not empty."""
    return next((p for p in candidates if p.is_file() or (p.is_dir() and any(p.iterdir()))), None)


def listing(container: Path) -> list[str]:
    """Sorted relative names of all files in a folder (at any depth) or a zip file."""
    if container.is_dir():
        walk = os.walk(container)
        return sorted((Path(at) / name).relative_to(container).as_posix() for at, _, names in walk for name in names)
    with _zip(container) as archive:
        return sorted(entry.filename for entry in archive.infolist() if not entry.is_dir())


def read_list(path: Path, file: Any = None, **options: Any) -> pd.DataFrame:
    """``pd.read_csv`` of a list that describes images, or of the rest of the open ``file``.

    Fields are separated by commas in a ``.csv``, by white space in a ``.txt``. Raises AimfairError for what is no table.
    """
    separated: dict[str, Any] = {"sep": r"\s+"} if path.suffix == ".txt" else {"skipinitialspace": True}
    index = options.pop("index_col", None)
    try:
        table = pd.read_csv(path if file is None else file, **separated, **options)
    except (ValueError, OSError) as error:  # pandas raises kinds of ValueError for whatever is wrong with a list
        raise AimfairError(f"{path} cannot be read as a list ({str(error).strip()}): fetch it again") from error
    if not isinstance(
        table.index, pd.RangeIndex
    ):  # pandas takes the first of too many fields for an index, and shifts the rest
        raise AimfairError(f"{path}: its lines have more fields than columns; fetch the list again")
    return table if index is None else table.set_index(table.columns[0] if index == 0 else index)


def match(
    table: pd.DataFrame, files: Mapping[str, Location], listed: Path
) -> tuple[pd.DataFrame, list[Location], list[str]]:
    """Bring a list and the images together: the rows that have an image, where each is, and who was left out and why.

    ``table`` has a row for each name in the list ``listed``. Raises AimfairError for a name that it has twice, and when
    there is an image of none.
    """
    if table.index.has_duplicates:
        raise AimfairError(f"{listed}: {table.index[table.index.duplicated()][0]} is listed twice")
    found = table.index.isin(files.keys())
    if not found.any():
        raise AimfairError(f"{listed} does not match the images: it lists {len(table)}, and none of them is there")
    skipped = [f"{name}: in {listed.name}, no image" for name in table.index[~found]]
    skipped += [f"{name}: not in {listed.name}" for name in files.keys() - set(table.index)]
    table = table[found]
    return table, [files[name] for name in table.index], sorted(skipped)


def tar_as_zip(archive: Path) -> Path:
    """Rewrite a tar archive once as an uncompressed zip file in ``data/cache`` and return its path.

    A compressed tar can only be read from the front; a zip gives any member at once and is one file where
    unpacking would make thousands. The name holds the archive's path, size and modification time, the file
    appears whole or not at all, and of several processes one writes while the others wait.
    Raises AimfairError for a damaged archive or a folder that cannot be written.
    """
    stat, cache = archive.stat(), cache_folder()
    identity = f"{archive.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
    target = cache / f"{archive.name.split('.')[0]}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}.zip"
    temporary = target.with_suffix(".tmp")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_suffix(".lock")):
            if not target.exists():
                try:
                    with tarfile.open(archive, "r|*") as source, zipfile.ZipFile(temporary, "w") as copy:
                        for member in progress(source, f"unpacking {archive.name}", unit="file"):
                            if content := source.extractfile(member) if member.isfile() else None:
                                copy.writestr(zipfile.ZipInfo(member.name), content.read())
                    os.replace(temporary, target)
                finally:
                    temporary.unlink(missing_ok=True)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise AimfairError(f"{archive} is damaged or incomplete ({error}): fetch it again") from error
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
        faces = progress(_decode_all(locations, 8), f"checking {name}", total=len(locations), unit="image")
        broken = [face if isinstance(face, BrokenImage) else None for face in faces]
        sound = [error is None for error in broken]
        skipped = skipped + [f"{at.member}: {error}" for at, error in zip(locations, broken, strict=True) if error]
        locations, table = list(compress(locations, sound)), table[sound]
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
    shape = (len(locations), 3, size, size)
    if np.prod(shape) <= MEMORY_LIMIT:
        images = np.empty(shape, np.uint8)
        for row, face in enumerate(_sound(locations, size, what)):
            images[row] = face
        return torch.from_numpy(images)
    cache = cache_folder()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache) as file:
            for face in _sound(locations, size, what):
                file.write(face.tobytes())
            file.flush()
            return torch.from_numpy(np.memmap(file, np.uint8, mode="r+", shape=shape))
    except OSError as error:
        wanted = f"{np.prod(shape) / 2**30:.1f} GiB of decoded images"
        raise AimfairError(f"no room for {wanted} in {cache} ({error}): free some") from error


def _sound(locations: Sequence[Location], size: int, what: str) -> Iterator[np.ndarray]:
    """Every face in order; the first broken one ends it."""
    faces = progress(_decode_all(locations, size), what, total=len(locations), unit="image")
    for location, face in zip(locations, faces, strict=True):
        if isinstance(face, BrokenImage):
            raise BrokenImage(f"{location} {face}; replace or remove it") from face
        yield face


def _decode_all(locations: Sequence[Location], size: int) -> Iterator[np.ndarray | BrokenImage]:
    """Every face in order, and in the place of a broken one what is wrong with it. Pillow decodes outside the GIL."""

    def decode_one(location: Location) -> np.ndarray | BrokenImage:
        try:
            return decode(fetch(location), size)
        except BrokenImage as error:
            return error

    with _open_containers(locations) as fetch, ThreadPoolExecutor(cores()) as pool:
        for start in range(0, len(locations), BLOCK):  # bounds what waits in memory for a slow consumer
            yield from pool.map(decode_one, locations[start : start + BLOCK])


def decode(data: bytes, size: int) -> np.ndarray:
    """Content of an image file -> (3, size, size) uint8, RGB.

    Grey, palette and CMYK become RGB and an alpha channel is dropped. Raises BrokenImage for a truncated
    or foreign file, and for modes of more than 8 bits, whose conversion would clip nearly every pixel.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.mode not in MODES:
                raise BrokenImage(f"has mode {image.mode}, not 8 bits per channel: convert it to RGB")
            face = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    except (BrokenImage, MemoryError):
        raise
    except UnidentifiedImageError:
        raise BrokenImage("is not a JPEG, PNG, BMP or WebP image") from None
    except Exception as error:  # decoders meet damaged input with whatever exception comes first
        raise BrokenImage(f"cannot be decoded: {error}") from error
    return np.asarray(face).transpose(2, 0, 1)


@contextmanager
def _open_containers(locations: Sequence[Location]) -> Iterator[Callable[[Location], bytes]]:
    """A function from location to file content that may be called from any thread."""
    with ExitStack() as stack:
        containers = {location.container for location in locations}
        archives = {path: stack.enter_context(_zip(path)) for path in containers if not path.is_dir()}
        lock = threading.Lock()  # a ZipFile is not safe across threads; reading takes a tenth of decoding

        def fetch(location: Location) -> bytes:
            archive = archives.get(location.container)
            try:
                if archive is None:
                    return (location.container / location.member).read_bytes()
                with lock:
                    return archive.read(location.member)
            except (zipfile.BadZipFile, zlib.error, EOFError) as error:
                raise BrokenImage(f"is damaged inside the archive: {error}") from error
            except (OSError, KeyError, RuntimeError) as error:
                raise AimfairError(
                    f"{location} cannot be read ({error}); check the file and its permissions"
                ) from error

        yield fetch


def _zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise AimfairError(f"{path} is not a complete zip file ({error}): fetch it again") from error
    except OSError as error:
        raise AimfairError(f"{path} cannot be read ({error})") from error
