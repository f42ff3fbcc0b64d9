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
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from aimfair.datasets import Catalogue
from aimfair.environment import AimfairError, home
from aimfair.progress import progress

MEMORY_LIMIT = 4 * 2**30
"""Bytes of decoded images beyond which ``read`` returns a memory map instead of an array in memory."""

FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
BLOCK, TASK = 2048, 32

Result = TypeVar("Result")


class BrokenImage(AimfairError):
    """An image file whose content cannot be decoded, as opposed to one that cannot be reached."""


class Location(NamedTuple):
    """One image file: ``member`` inside the folder or zip file ``container``."""

    container: Path
    member: str

    def __str__(self) -> str:
        return str(self.container / self.member)


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
    for path in candidates:
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            return path
    return None


def listing(container: Path) -> list[str]:
    """Sorted relative names of all files in a folder (at any depth) or a zip file."""
    if container.is_dir():
        walk = os.walk(container)
        return sorted((Path(at) / name).relative_to(container).as_posix() for at, _, names in walk for name in names)
    with _zip(container) as archive:
        return sorted(entry.filename for entry in archive.infolist() if not entry.is_dir())


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


def tar_as_zip(archive: Path, cache: Path | None = None) -> Path:
    """Rewrite a tar archive once as an uncompressed zip file in ``cache`` and return its path.

    A compressed tar can only be read from the front; a zip gives any member at once and is one file where
    unpacking would make thousands. The name holds the archive's path, size and modification time, the file
    appears whole or not at all, and of several processes one writes while the others wait.
    Raises AimfairError for a damaged archive or a cache that cannot be written.
    """
    stat = archive.stat()
    identity = f"{archive.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
    key = hashlib.sha256(identity.encode()).hexdigest()[:12]
    cache = _cache_folder(cache)
    target = cache / f"{archive.name.split('.')[0]}-{key}.zip"
    if target.exists():
        return target
    temporary = target.with_suffix(".tmp")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_suffix(".lock")):
            if not target.exists():
                try:
                    _copy_members(archive, temporary)
                    os.replace(temporary, target)
                finally:
                    temporary.unlink(missing_ok=True)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise AimfairError(f"{archive} is damaged or incomplete ({error}): fetch it again") from error
    except OSError as error:
        raise AimfairError(f"{archive} cannot be unpacked into {cache} ({error}): make room there") from error
    return target


def build(
    name: str,
    names: Sequence[str],
    locations: Sequence[Location],
    attributes: pd.DataFrame,
    skipped: list[str],
    on_error: str,
    memory_limit: int,
    cache: Path | None,
) -> Catalogue:
    """Catalogue of the faces at ``locations``, one row of ``attributes`` and one name for each.

    on_error      "raise": a broken image ends the reading that meets it, with one line that names the file.
                  "skip": every image is decoded once now; the broken ones leave the catalogue together with
                  their labels and are listed in ``skipped``, so that quotas are drawn from sound images only.
    memory_limit  bytes of decoded images beyond which they are kept in a file in ``cache``, not in memory
    """
    if on_error not in ("raise", "skip"):
        raise AimfairError(f"on_error is {on_error!r}: choose 'raise' or 'skip'")
    if on_error == "skip":
        reasons = list(_each(partial(_fault, size=8), locations, f"checking {name}"))
        sound = [row for row, reason in enumerate(reasons) if reason is None]
        skipped = skipped + [reason for reason in reasons if reason is not None]
        names, locations = [names[row] for row in sound], [locations[row] for row in sound]
        attributes = attributes.iloc[sound]
    if not len(names):
        raise AimfairError(f"{name}: no usable image; left out: {'; '.join(skipped[:3]) or 'none'}")

    def read(indices: np.ndarray, size: int) -> Tensor:
        chosen = [locations[index] for index in indices]
        return read_images(chosen, size, f"decoding {Path(name).name}", memory_limit, cache)

    return Catalogue(name, np.array(names, dtype=str), attributes.reset_index(drop=True), read, skipped)


def read_images(
    locations: Sequence[Location],
    size: int,
    what: str = "decoding",
    memory_limit: int = MEMORY_LIMIT,
    cache: Path | None = None,
) -> Tensor:
    """(n, 3, size, size) uint8 images in the order of ``locations``, whatever the number of threads.

    Beyond ``memory_limit`` bytes the tensor maps a nameless file in ``cache`` that vanishes with it.
    Raises AimfairError naming the first file that cannot be decoded, or when the disk is full.
    """
    if size < 1:
        raise AimfairError(f"image size is {size}: it must be a positive number of pixels")
    shape = (len(locations), 3, size, size)
    faces = _each(partial(_decode_at, size=size), locations, what)
    if np.prod(shape) <= memory_limit:
        images = np.empty(shape, np.uint8)
        for row, face in enumerate(faces):
            images[row] = face
        return torch.from_numpy(images)
    cache = _cache_folder(cache)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache) as file:
            for face in faces:
                file.write(face.tobytes())
            file.flush()
            return torch.from_numpy(np.memmap(file, np.uint8, mode="r+", shape=shape))
    except OSError as error:
        wanted = f"{np.prod(shape) / 2**30:.1f} GiB of decoded images"
        raise AimfairError(f"no room for {wanted} in {cache} ({error}): free some") from error


def _each(work: Callable[..., Result], locations: Sequence[Location], what: str) -> Iterator[Result]:
    """``work(fetch, location)`` of every location, in order, by a pool of threads (Pillow decodes outside the GIL)."""

    def results() -> Iterator[Result]:
        with _opened(locations) as fetch, ThreadPoolExecutor(_cores()) as pool:
            for start in range(0, len(locations), BLOCK):  # bounds what waits in memory for a slow consumer
                block = locations[start : start + BLOCK]
                tasks = [block[at : at + TASK] for at in range(0, len(block), TASK)]
                for done in pool.map(lambda task: [work(fetch, location) for location in task], tasks):
                    yield from done

    return progress(results(), what, total=len(locations), unit="image")


def _decode_at(fetch: Callable[[Location], bytes], location: Location, size: int) -> np.ndarray:
    try:
        return decode(fetch(location), size)
    except BrokenImage as error:
        raise BrokenImage(f"{location} {error}; replace or remove it") from error


def _fault(fetch: Callable[[Location], bytes], location: Location, size: int) -> str | None:
    """Why the image cannot be decoded, or None."""
    try:
        decode(fetch(location), size)
    except BrokenImage as error:
        return f"{location.member}: {error}"
    return None


@contextmanager
def _opened(locations: Sequence[Location]) -> Iterator[Callable[[Location], bytes]]:
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


def _copy_members(archive: Path, target: Path) -> None:
    with tarfile.open(archive, "r|*") as source, zipfile.ZipFile(target, "w") as copy:
        for member in progress(source, f"unpacking {archive.name}", unit="file"):
            content = source.extractfile(member) if member.isfile() else None
            if content is not None:
                copy.writestr(zipfile.ZipInfo(member.name), content.read())


def _cache_folder(cache: Path | None) -> Path:
    return home() / "data" / "cache" if cache is None else cache


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
