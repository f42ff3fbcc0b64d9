"""Data sets are read from tiny copies in their real layouts; the colour of each image tells which face it is."""

import io
import os
import tarfile
import threading
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from aimfair.datasets import _images, load
from aimfair.environment import AimfairError

ATTRIBUTES = ["Male", "Smiling", "Young"]
MAPS = Path("/proc/self/maps")
ATTRIBUTE_LIST, PARTITION = "list_attr_celeba.txt", "list_eval_partition.txt"
IDS = [1, 2, 3, 162_770, 162_771, 182_637, 182_638, 202_599]


def picture(number, size=(12, 15), kind="JPEG", mode="RGB"):
    """File content of a flat image whose colour encodes ``number`` (0 to 15)."""
    file = io.BytesIO()
    Image.new("RGB", size, (number * 16, 128, 255 - number * 16)).convert(mode).save(file, kind, quality=95)
    return file.getvalue()


def number_of(image):
    """Inverse of ``picture``: which face a decoded image shows."""
    return round(float(image[0].float().mean()) / 16)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def write_zip(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_tar(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def value(i, attribute):
    return (i >> ATTRIBUTES.index(attribute)) & 1


def celeba_lists(folder, ids=IDS, csv=False, anno="", evaluation=""):
    kind, between = ("csv", ",") if csv else ("txt", "  ")
    rows = [[f"{n:06d}.jpg", *(str(2 * value(i, a) - 1) for a in ATTRIBUTES)] for i, n in enumerate(ids)]
    head = [",".join(["image_id", *ATTRIBUTES])] if csv else [str(len(rows)), " ".join(ATTRIBUTES) + " "]
    lines = [*head, *(between.join(row) for row in rows), ""]
    write(folder / anno / f"list_attr_celeba.{kind}", "\n".join(lines))
    parts = "".join(f"{row[0]}{between[:1]}{i % 3}\n" for i, row in enumerate(rows))
    write(folder / evaluation / f"list_eval_partition.{kind}", "image_id,partition\n" * csv + parts)


def celeba_files(prefix="", ids=IDS):
    return {f"{prefix}{n:06d}.jpg": picture(i) for i, n in enumerate(ids)}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(_images, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def celeba(tmp_path):
    celeba_lists(tmp_path)
    write_zip(tmp_path / "img_align_celeba.zip", celeba_files("img_align_celeba/"))
    return tmp_path


# Decoding


@pytest.mark.parametrize(
    ("mode", "kind"), [("RGB", "JPEG"), ("CMYK", "JPEG"), ("RGBA", "PNG"), ("P", "PNG"), ("RGB", "WEBP")]
)
def test_colour_modes_become_rgb(mode, kind):
    image = _images.decode(picture(5, kind=kind, mode=mode), 8)
    assert image.shape == (3, 8, 8) and image.dtype == np.uint8
    assert np.abs(image.reshape(3, -1).mean(1) - [80, 128, 175]).max() < 26  # palettes are coarse, CMYK has no profile


def test_grey_pictures_and_those_of_more_than_eight_bits():
    for mode in ("L", "LA", "1"):
        image = _images.decode(picture(0, kind="PNG", mode=mode), 8)
        assert np.array_equal(image[0], image[1]) and np.array_equal(image[1], image[2])
    deep = io.BytesIO()
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(deep, "PNG")
    with pytest.raises(AimfairError, match="8 bits"):
        _images.decode(deep.getvalue(), 4)


def test_faces_are_squashed_whole_by_an_antialiased_resize():
    pixels = np.random.default_rng(0).integers(0, 256, (109, 89, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    wanted = torch.nn.functional.interpolate(
        torch.from_numpy(pixels).permute(2, 0, 1)[None].float(), (32, 32), mode="bilinear", antialias=True
    )[0]
    assert (torch.tensor(_images.decode(file.getvalue(), 32)) - wanted).abs().max() < 1.5


@pytest.mark.parametrize("damage", [picture(3, (200, 200))[:900], picture(3, (200, 200), "PNG")[:150], b"text", b""])
def test_a_broken_image_is_named_or_leaves_with_its_labels(celeba, damage):
    write_zip(
        celeba / "img_align_celeba.zip", celeba_files("img_align_celeba/") | {"img_align_celeba/000003.jpg": damage}
    )
    faces = load("celeba", celeba)
    assert len(faces.read(np.array([0, 1, 3]), 8)) == 3
    with pytest.raises(AimfairError, match=r"img_align_celeba/000003\.jpg .*; replace or remove it") as error:
        faces.read(np.arange(len(faces)), 8)
    assert "\n" not in str(error.value)
    faces = load("celeba", celeba, on_error="skip")
    assert [line.split(": ")[0] for line in faces.skipped] == ["img_align_celeba/000003.jpg"]
    shown = [number_of(image) for image in faces.read(np.arange(len(IDS) - 1), 8)]
    assert shown == [0, 1, 3, 4, 5, 6, 7] and faces.labels("Smiling").tolist() == [value(i, "Smiling") for i in shown]


def test_a_reading_that_ends_early_leaves_no_thread_behind(celeba):
    """A thread that the garbage collector must wait for can wait for what the collector interrupted: for ever."""
    write_zip(
        celeba / "img_align_celeba.zip", celeba_files("img_align_celeba/") | {"img_align_celeba/000001.jpg": b"text"}
    )
    before = set(threading.enumerate())
    faces = load("celeba", celeba)
    with pytest.raises(AimfairError) as error:
        faces.read(np.arange(len(faces)), 8)
    assert set(threading.enumerate()) == before, error  # which holds on to all that was left in the middle


def test_damaged_containers_are_named(celeba):
    path = celeba / "img_align_celeba.zip"
    content = bytearray(path.read_bytes())
    content[content.index(b"\xff\xd8") + 30] ^= 0xFF  # now the checksum is wrong
    path.write_bytes(content)
    with pytest.raises(AimfairError, match=r"000001\.jpg is damaged inside the archive"):
        load("celeba", celeba).read(np.array([0]), 8)
    path.unlink()
    for name, content in celeba_files().items():
        write(celeba / "img_align_celeba" / name, content)
    faces = load("celeba", celeba)
    (celeba / "img_align_celeba" / "000003.jpg").unlink()
    with pytest.raises(AimfairError, match=r"000003\.jpg cannot be read"):
        faces.read(np.arange(len(faces)), 8)


def test_images_come_in_the_order_asked_for_with_any_number_of_threads(celeba, monkeypatch):
    faces = load("celeba", celeba)
    index = np.random.default_rng(0).integers(0, len(faces), 3000)
    results = []
    for threads in (1, 7):
        monkeypatch.setattr(_images, "cores", lambda threads=threads: threads)
        results.append(faces.read(index, 4))
    assert torch.equal(*results)
    assert [number_of(image) for image in results[0]] == index.tolist()


def test_large_sets_are_mapped_from_a_file_that_leaves_nothing(celeba, cache, monkeypatch):
    in_memory = load("celeba", celeba).read(np.arange(8), 16)
    monkeypatch.setattr(_images, "MEMORY_LIMIT", 1000)
    mapped = load("celeba", celeba).read(np.arange(8), 16)
    if MAPS.exists():
        assert f"{cache}/" in MAPS.read_text()
    assert torch.equal(mapped, in_memory)
    assert not any(cache.iterdir())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs the device that is always full")
def test_a_full_disk_ends_in_one_line(celeba, monkeypatch):
    monkeypatch.setattr(_images.tempfile, "TemporaryFile", lambda dir: open("/dev/full", "w+b"))  # noqa: SIM115
    monkeypatch.setattr(_images, "MEMORY_LIMIT", 0)
    with pytest.raises(AimfairError, match="no room for"):
        load("celeba", celeba).read(np.arange(8), 64)


def test_nothing_no_size_and_no_such_option(celeba):
    faces = load("celeba", celeba)
    assert faces.read(np.array([], np.int64), 8).shape == (0, 3, 8, 8)
    with pytest.raises(AimfairError, match="positive number of pixels"):
        faces.read(np.arange(2), 0)
    with pytest.raises(AimfairError, match="'raise' or 'skip'"):
        load("celeba", celeba, on_error="ignore")


# Tar archives


UTKFACE_NAMES = [
    "1_0_0_20170109150557335.jpg.chip.jpg",
    "90_1_4_20170112213500903.jpg.chip.jpg",
    "25_0_2_2017.chip.jpg",
]


def test_a_tar_is_rewritten_once_for_all_who_read_it(tmp_path, cache):
    archive = write_tar(tmp_path / "UTKFace.tar.gz", {f"UTKFace/{n}": picture(i) for i, n in enumerate(UTKFACE_NAMES)})
    with ThreadPoolExecutor(4) as readers:
        for faces in readers.map(load, ["utkface"] * 4, [tmp_path, archive] * 2):
            assert sorted(map(number_of, faces.read(np.arange(3), 8))) == [0, 1, 2]
    assert {path.suffix for path in cache.iterdir()} <= {".zip", ".lock"} and len(list(cache.glob("*.zip"))) == 1
    os.utime(archive, ns=(0, 0))
    load("utkface", tmp_path)
    assert len(list(cache.glob("*.zip"))) == 2


def test_a_truncated_tar_and_a_cache_that_cannot_be_made(tmp_path, cache):
    archive = write_tar(tmp_path / "UTKFace.tar.gz", {f"UTKFace/{n}": os.urandom(5000) for n in UTKFACE_NAMES})
    write(cache, b"a file")
    with pytest.raises(AimfairError, match="cannot be unpacked into .*: make room there"):
        load("utkface", tmp_path)
    cache.unlink()
    archive.write_bytes(archive.read_bytes()[:-6000])
    with pytest.raises(AimfairError, match="cannot be read .*: fetch it again"):
        load("utkface", tmp_path)
    assert {path.suffix for path in cache.iterdir()} <= {".lock"}


# What a person sees, and what other systems leave


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_the_camera_was_held(orientation, kind):
    upright = Image.new("L", (24, 40), 60)
    upright.paste(220, (0, 0, 24, 10))  # a bright bar above, darker to its left
    upright.paste(140, (0, 0, 8, 10))
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # what undoes the turn that the orientation asks for
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(back[orientation]))
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    stored.convert("RGB").save(file, kind, exif=exif, quality=95)
    wanted = np.asarray(upright.resize((16, 16), Image.Resampling.BILINEAR), float)
    assert np.abs(_images.decode(file.getvalue(), 16)[0] - wanted).max() < 8


def test_damaged_notes_of_a_camera_spoil_no_picture():
    sound, damaged = io.BytesIO(), io.BytesIO()
    image = Image.new("RGB", (12, 15), (80, 128, 175))
    image.save(sound, "JPEG")
    image.save(damaged, "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff\x12\x01")
    assert np.array_equal(*(_images.decode(file.getvalue(), 8) for file in (sound, damaged)))


HIDDEN = (
    "img_align_celeba/._000001.jpg",
    "__MACOSX/img_align_celeba/000001.jpg",
    "img_align_celeba/.DS_Store",
    ".x/1.jpg",
)


@pytest.mark.parametrize("packed", [True, False])
def test_hidden_companions_of_other_systems_are_no_files_of_a_data_set(celeba, packed):
    files = dict.fromkeys(HIDDEN, b"not an image") | celeba_files("img_align_celeba/")
    if packed:
        write_zip(celeba / "img_align_celeba.zip", files)
    else:
        (celeba / "img_align_celeba.zip").unlink()
        for name, content in files.items():
            write(celeba / name, content)
    with warnings.catch_warnings(action="error"):
        faces = load("celeba", celeba)
    assert not faces.skipped and number_of(faces.read(np.array([0]), 8)[0]) == 0


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("between", [";", "\t", ", "])
def test_lists_may_be_separated_by_what_spreadsheets_write(celeba, between, mark):
    (celeba / ATTRIBUTE_LIST).unlink()
    celeba_lists(celeba, csv=True)
    for name in ("list_attr_celeba.csv", "list_eval_partition.csv"):
        write(celeba / name, mark + (celeba / name).read_text().replace(",", between))
    assert load("celeba", celeba).labels("Smiling").tolist() == [value(i, "Smiling") for i in range(8)]


@pytest.mark.parametrize("start", ["./", ".\\", ""])
def test_paths_in_a_list_may_be_written_as_another_system_does(tmp_path, start):
    base = tmp_path / "Smiling_Male"
    group_folders(base)
    rows = [
        (start + path.replace("/", "\\" if "\\" in start else "/"), *labels)
        for path, *labels in (
            ("Smiling_Male/1_0/00001.png", 1, 0, "b", 7),
            ("Smiling_Male/0_1/00000.png", 0, 1, "a", 3),
        )
    ]
    write(tmp_path / "manifest.csv", manifest(rows))
    with pytest.warns(UserWarning, match="6 left out"):
        assert load("folder", tmp_path, target="Smiling", protected="Male").names.tolist() == [
            "0_1/00000.png",
            "1_0/00001.png",
        ]
    write(
        tmp_path / "fairface_label_train.csv",
        fairface_list([(start + TRAIN[0][0].replace("/", start[-1:] or "/"), *TRAIN[0][1:])]),
    )
    write(tmp_path / "train" / "1.jpg", picture(1))
    assert load("fairface", tmp_path).names.tolist() == ["train/1.jpg"]


def test_a_list_in_another_encoding_is_called_that(tmp_path):
    group_folders(tmp_path)
    write(tmp_path / "manifest.csv", manifest([("0_1/00000.png", 0, 1, "caf\xe9", 3)]).encode("latin-1"))
    with pytest.raises(AimfairError, match=r"manifest\.csv cannot be read \(it is no text in UTF-8\): mend it"):
        load("folder", tmp_path)


def test_a_folder_that_may_not_be_looked_into_is_no_empty_one(tmp_path, monkeypatch):
    group_folders(tmp_path)
    listdir, hidden = os.scandir, str(tmp_path / "1_0")

    def refuse(path):
        if str(path) == hidden:
            raise PermissionError(13, "Permission denied", hidden)
        return listdir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(AimfairError, match=r"1_0 cannot be read \(Permission denied\); check its permissions"):
        load("folder", tmp_path)


def test_what_is_left_out_is_counted_and_told(tmp_path):
    group_folders(tmp_path)
    write(tmp_path / "manifest.csv", manifest([("0_1/00000.png", 0, 1, "a", 3), ("1_1/9.png", 1, 1, "b", 4)]))
    write(tmp_path / "0_0" / "notes.txt", "not an image")
    for elsewhere in ("0_0 (2)", "2_1"):
        write(tmp_path / elsewhere / "0.png", picture(1))
    with pytest.warns(
        UserWarning,
        match=r"11 left out: not in manifest.csv \(7\); in no group folder \(2\); not a png, .* \(1\); the first is 0_0/notes.txt",
    ):
        load("folder", tmp_path)


# CelebA


@pytest.mark.parametrize("layout", ["folder", "celeba/", "nested", "zip", "official", "csv", "nested zip"])
def test_celeba_layouts_agree(tmp_path, layout):
    base = tmp_path / "celeba" if layout == "celeba/" else tmp_path
    official = layout == "official"
    celeba_lists(base, csv=layout == "csv", anno="Anno" * official, evaluation="Eval" * official)
    if "zip" in layout or official:
        inside = "img_align_celeba/" * (1 + (layout == "nested zip"))
        write_zip(base / ("Img" * official) / "img_align_celeba.zip", celeba_files(inside))
    else:
        inside = "img_align_celeba/" * (1 + (layout == "nested"))
        for name, content in celeba_files(inside).items():
            write(base / name, content)
    faces = load("celeba", tmp_path)
    assert faces.names.tolist() == [f"{n:06d}.jpg" for n in IDS] and not faces.skipped
    assert [number_of(image) for image in faces.read(np.arange(8), 8)] == list(range(8))
    for attribute in ATTRIBUTES:
        assert faces.labels(attribute).tolist() == [value(i, attribute) for i in range(8)]
    splits = ["train", "validation", "test"]
    assert faces.attributes["split"].tolist() == [splits[i % 3] for i in range(8)]


def test_without_a_partition_the_official_ids_decide(celeba):
    (celeba / PARTITION).unlink()
    table = load("celeba", celeba).attributes
    assert table["split"].tolist() == ["train"] * 4 + ["validation"] * 2 + ["test"] * 2 and "identity" not in table
    text = (celeba / ATTRIBUTE_LIST).read_text()
    (celeba / ATTRIBUTE_LIST).write_text(text.replace("000003.jpg", "face-3.jpg"))
    with pytest.raises(AimfairError, match=r"no list_eval_partition, and face-3\.jpg is no official name"):
        load("celeba", celeba)


def test_lines_in_any_order_give_id_order_and_identities(celeba):
    celeba_lists(celeba, ids=IDS[::-1])
    write(celeba / "identity_CelebA.txt", "".join(f"{n:06d}.jpg {n % 7}\n" for n in IDS))
    faces = load("celeba", celeba)
    assert faces.names.tolist() == [f"{n:06d}.jpg" for n in IDS]
    assert faces.attributes["identity"].tolist() == [n % 7 for n in IDS]
    assert faces.labels("Smiling").tolist() == [value(7 - i, "Smiling") for i in range(8)]


def test_missing_unlisted_and_repeated_images_are_reported(celeba):
    files = celeba_files("img_align_celeba/")
    del files["img_align_celeba/000002.jpg"]
    more = {"img_align_celeba/000009.jpg": picture(9), "more/000003.jpg": picture(9)}
    write_zip(celeba / "img_align_celeba.zip", files | more)
    faces = load("celeba", celeba)
    assert [line.split(":")[0] for line in faces.skipped] == ["000002.jpg", "000003.jpg", "000009.jpg"]
    images = faces.read(np.arange(len(faces)), 8)
    assert [value(number_of(image), "Male") for image in images] == faces.labels("Male").tolist()


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        (ATTRIBUTE_LIST, "000003.jpg  -1  1  -1", "000003.jpg  -1  1", "000003.jpg has not -1 or 1"),
        (ATTRIBUTE_LIST, "000003.jpg  -1  1  -1", "000003.jpg  -1  0  -1", "000003.jpg has not -1 or 1"),
        (ATTRIBUTE_LIST, "000003.jpg  -1  1  -1", "000003.jpg  -1  1  -1  1", "cannot be read .*fetch it"),
        (ATTRIBUTE_LIST, "000003.jpg  -1  1  -1", "000003.jpg  -1  x  -1", "000003.jpg has not -1 or 1"),
        (ATTRIBUTE_LIST, "8\n", "9\n", "incomplete: 8 of 9 faces"),
        (ATTRIBUTE_LIST, "8\n", "", "line 1: not the number of faces"),
        (ATTRIBUTE_LIST, "000003.jpg", "000002.jpg", "000002.jpg is listed twice"),
        (PARTITION, "000003.jpg 2", "000003.jpg", "000003.jpg has no whole number"),
        (PARTITION, "000003.jpg 2", "000003.jpg 3", "a partition is 0, 1 or 2"),
        (PARTITION, "000003.jpg 2\n", "", "000003.jpg has no whole number, 1 such"),
        (PARTITION, "000003.jpg 2\n", "000003.jpg 2\n000003.jpg 1\n", "000003.jpg is listed twice"),
    ],
)
def test_what_is_wrong_in_a_list_is_named(celeba, file, old, new, said):
    path = celeba / file
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(AimfairError, match=f"{file}.*{said}"):
        load("celeba", celeba)


def test_celeba_says_what_is_missing(celeba, tmp_path):
    write_zip(celeba / "img_align_celeba.zip", {"img_align_celeba/face-1.jpg": picture(1)})
    with pytest.raises(AimfairError, match="does not match the images"):
        load("celeba", celeba)
    (celeba / "img_align_celeba.zip").unlink()
    with pytest.raises(AimfairError, match="no img_align_celeba or"):
        load("celeba", celeba)
    (celeba / ATTRIBUTE_LIST).unlink()
    with pytest.raises(AimfairError, match="no list_attr_celeba"):
        load("celeba", celeba)


@pytest.mark.parametrize("name", ["celeba", "fairface", "utkface"])
def test_a_data_set_as_parquet_files_is_called_that(name, tmp_path):
    write(tmp_path / "data" / "train-00000-of-00019.parquet", b"PAR1")
    with pytest.raises(AimfairError, match="its parquet files are not read: write their images"):
        load(name, tmp_path)


# UTKFace


def test_images_in_the_wild_are_told_apart_from_the_aligned_ones(tmp_path):
    aligned, wild = "UTKFace/31_1_0_20170112.jpg.chip.jpg", "31_1_0_20170112.jpg"
    for folder in ("part1", "UTKFace", "in_the_wild", "UTKFace/part3"):
        path = write_zip(tmp_path / "UTKFace.zip", {aligned: picture(4), f"{folder}/{wild}": picture(5)})
        with pytest.warns(UserWarning, match=r"from the images in the wild.* \(1\)"):
            faces = load("utkface", path)
        assert [number_of(image) for image in faces.read(np.arange(len(faces)), 8)] == [4]
    with pytest.raises(AimfairError, match="no usable image; left out: .*in the wild"):
        load("utkface", write_zip(tmp_path / "wild.zip", {f"part2/{wild}": picture(5)}))
    write(tmp_path / "wild" / "part1" / wild, picture(5))
    with pytest.raises(AimfairError, match=r"no UTKFace, .* \(images in the wild are not read\)"):
        load("utkface", tmp_path / "wild")


def test_utkface_labels_come_from_the_names_and_malformed_ones_are_listed(tmp_path):
    sound = {
        "116_1_4_20170112.jpg.chip.jpg": (1, 0, 0, 116, "Others"),
        "24_0_1_20170116220224657 .jpg.chip.jpg": (0, 1, 0, 24, "Black"),
        "33_1_0_20170112jpg.chip.jpg": (1, 0, 1, 33, "White"),
        "8_0_3_1.chip.png": (0, 1, 0, 8, "Indian"),
    }
    malformed = [
        "39_1_20170116174525125.jpg.chip.jpg",
        "53__0_20170116184028385.jpg.chip.jpg",
        "7_0_5_20170116.jpg.chip.jpg",
        "7_2_0_20170116.jpg.chip.jpg",
        "Thumbs.db",
    ]
    files = {f"UTKFace/{name}": picture(i) for i, name in enumerate([*sound, *malformed])}
    again = {f"crop_part1/{name}": picture(15) for name in [*sound][:2]}
    faces = load("utkface", write_zip(tmp_path / "UTKFace.zip", files | again))
    assert faces.names.tolist() == sorted(sound)
    rows = faces.attributes[["Female", "Male", "White", "age", "race"]].itertuples(index=False, name=None)
    assert [tuple(row) for row in rows] == [sound[name] for name in faces.names]
    # Of two files of a name the first in the archive counts.
    assert [number_of(image) for image in faces.read(np.arange(4), 8)] == [0, 1, 2, 3]
    assert [line.split(": ")[0] for line in faces.skipped] == sorted([*malformed, *[*sound][:2]])
    assert sum(line.endswith(": there twice") for line in faces.skipped) == 2


def test_utkface_may_be_given_as_its_own_folder_and_needs_a_usable_name(tmp_path):
    write(tmp_path / "31_1_0_20170112.jpg.chip.jpg", picture(4))
    assert load("utkface", tmp_path).labels("Female").tolist() == [1]
    write(tmp_path / "UTKFace" / "face.jpg", picture(1))
    with pytest.raises(AimfairError, match="no usable image"):
        load("utkface", tmp_path)


@pytest.mark.skipif("AIMFAIR_UTKFACE" not in os.environ, reason="AIMFAIR_UTKFACE does not name a folder with UTKFace")
def test_the_real_utkface_has_the_known_counts():
    faces = load("utkface", os.environ["AIMFAIR_UTKFACE"])
    count, races = faces.attributes.groupby(["Male", "race"]).size(), ["White", "Black", "Asian", "Indian", "Others"]
    # Copies of UTKFace hold 23,708 files, or 23,707 with one black man less.
    assert len(faces) in (23_704, 23_705) and len(faces.skipped) == 3
    assert [count[0, race] for race in races] == [4601, 2208, 1859, 1714, 932]
    assert [count[1, race] for race in races] == [5477, 2318 - (23_705 - len(faces)), 1575, 2261, 760]


# FairFace


def fairface_list(rows):
    return "file,age,gender,race,service_test\n" + "".join(f"{','.join(row)},True\n" for row in rows)


TRAIN = [("train/1.jpg", "20-29", "Male", "White"), ("train/2.jpg", "more than 70", "Female", "Latino_Hispanic")]
VAL = [("val/1.jpg", "0-2", "Female", "White")]


@pytest.mark.parametrize("layout", ["folders", "zips", "bundle"])
def test_fairface_layouts_agree(tmp_path, layout):
    write(tmp_path / "fairface_label_train.csv", fairface_list(TRAIN))
    write(tmp_path / "fairface_label_val.csv", fairface_list(VAL))
    train, val = {"train/1.jpg": picture(1), "train/2.jpg": picture(2)}, {"val/1.jpg": picture(3)}
    if layout == "folders":
        for name, content in (train | val).items():
            write(tmp_path / name, content)
    elif layout == "zips":
        write_zip(tmp_path / "fairface_train.zip", train)
        write_zip(tmp_path / "fairface_val.zip", val)
    else:
        bundle = {f"fairface-img-margin025-trainval/{name}": content for name, content in (train | val).items()}
        write_zip(tmp_path / "fairface-img-margin025-trainval.zip", bundle)
    faces = load("fairface", tmp_path)
    assert faces.names.tolist() == ["train/1.jpg", "train/2.jpg", "val/1.jpg"] and not faces.skipped
    assert [number_of(image) for image in faces.read(np.arange(3), 8)] == [1, 2, 3]
    assert faces.labels("Female").tolist() == [0, 1, 1] and faces.labels("Male").tolist() == [1, 0, 0]
    assert faces.labels("White").tolist() == [1, 0, 1]
    assert faces.attributes["age"].tolist() == ["20-29", "more than 70", "0-2"]
    assert faces.attributes["split"].tolist() == ["train", "train", "validation"]


def test_fairface_reports_what_does_not_match(tmp_path):
    write(tmp_path / "fairface_label_train.csv", fairface_list(TRAIN))
    write_zip(tmp_path / "fairface_train.zip", {"train/2.jpg": picture(2), "train/3.jpg": picture(3)})
    faces = load("fairface", tmp_path)
    assert faces.names.tolist() == ["train/2.jpg"] and number_of(faces.read(np.array([0]), 8)[0]) == 2
    assert [line.split(":")[0] for line in faces.skipped] == ["train/1.jpg", "train/3.jpg"]
    write_zip(tmp_path / "fairface_train.zip", {"train/8.jpg": picture(2)})
    with pytest.raises(AimfairError, match="does not match the images"):
        load("fairface", tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,age,gender\ntrain/1.jpg,3-9,Male\n", "line 1: no column race"),
        (fairface_list([*TRAIN, ("train/3.jpg", "3-9", "male?", "White")]), "line 4"),
        (fairface_list([*TRAIN, TRAIN[0]]), "train/1.jpg is listed twice"),
    ],
)
def test_a_malformed_fairface_list_is_located(tmp_path, text, said):
    write(tmp_path / "fairface_label_train.csv", text)
    write_zip(tmp_path / "fairface_train.zip", {"train/1.jpg": picture(1)})
    with pytest.raises(AimfairError, match=said):
        load("fairface", tmp_path)


# Folders


def group_folders(base):
    """Image i of group (t, p) shows the number 4 * i + 2 * t + p."""
    for t, p in ((0, 0), (0, 1), (1, 0), (1, 1)):
        for i in range(2):
            write(base / f"{t}_{p}" / f"{i:05d}.png", picture(4 * i + 2 * t + p, kind="PNG"))


@pytest.mark.parametrize("nested", [False, True])
def test_folders_are_labels(tmp_path, nested):
    group_folders(tmp_path / "Wearing_Hat_Male" if nested else tmp_path)
    faces = load("folder", tmp_path, target="Wearing_Hat", protected="Male").faces(range(8), "Wearing_Hat", "Male", 8)
    assert faces.counts() == (2, 2, 2, 2)
    assert [number_of(image) % 4 for image in faces.images] == faces.groups.tolist()


def manifest(rows):
    return "path,target,protected,prompt_id,seed\n" + "".join(",".join(map(str, row)) + "\n" for row in rows)


@pytest.mark.parametrize("at", ["base", "root"])
def test_a_manifest_adds_columns_and_reports_what_does_not_match(tmp_path, at):
    base = tmp_path / "Smiling_Male"
    group_folders(base)
    write(base / "0_0" / "notes.txt", "not an image")
    write(base / "1_1" / "00008.webp", picture(4, kind="WEBP"))
    rows = [("1_0/00001.png", 1, 0, "b", 7), ("0_1/00000.png", 0, 1, "a", 3), ("1_1/00009.png", 1, 1, "c", 1)]
    if at == "base":
        write(base / "manifest.csv", manifest(rows))
    else:
        rows = [(f"Smiling_Male/{path}", *rest) for path, *rest in rows]
        write(tmp_path / "manifest.csv", manifest([*rows, ("Young_Male/0_0/00000.png", 0, 0, "d", 1)]))
    faces = load("folder", tmp_path, target="Smiling", protected="Male")
    assert faces.names.tolist() == ["0_1/00000.png", "1_0/00001.png"]
    assert faces.attributes["prompt_id"].tolist() == ["a", "b"] and faces.attributes["seed"].tolist() == [3, 7]
    assert [number_of(image) for image in faces.read(np.arange(2), 8)] == [1, 6]
    assert "0_0/notes.txt: not a png, jpg or webp file" in faces.skipped
    assert "1_1/00008.webp: not in manifest.csv" in faces.skipped
    assert "1_1/00009.png: in manifest.csv, no image" in faces.skipped
    assert sum("not in manifest.csv" in line for line in faces.skipped) == 7 and len(faces.skipped) == 9


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            manifest([("0_1/00000.png", 0, 1, "a", 3), ("1_0/00001.png", 0, 1, "b", 7)]),
            "1_0/00001.png is of group 0_1",
        ),
        (manifest([("0_1/00000.png", 0, "Male", "a", 3)]), "line 2: not a path and two labels"),
        (manifest([("0_1/00000.png", 0, 1, "a", 3)]) + "1_0/000", "line 3: not a path and two labels"),
        (manifest([("0_1/00000.png", 0, 1, "a", 3)] * 2), "listed twice"),
        ("path,label\n", "no column target, protected"),
    ],
)
def test_a_manifest_that_contradicts_is_refused(tmp_path, text, said):
    group_folders(tmp_path)
    write(tmp_path / "manifest.csv", text)
    with pytest.raises(AimfairError, match=said):
        load("folder", tmp_path)


def test_a_manifest_alone_may_say_what_the_images_show(tmp_path):
    for i in range(3):
        write(tmp_path / "deep" / f"{i}.png", picture(i))
    rows = ["deep/2.png,1,0,m", "deep/0.png,0,1,m", "gone.png,0,0,m"]
    write(tmp_path / "manifest.csv", "path,target,protected,model\n" + "\n".join(rows) + "\n")
    faces = load("folder", tmp_path, target="Smiling", protected="Male")
    assert faces.names.tolist() == ["deep/2.png", "deep/0.png"] and faces.attributes["model"].tolist() == ["m", "m"]
    assert faces.labels("Smiling").tolist() == [1, 0] and faces.labels("Male").tolist() == [0, 1]
    assert faces.skipped == ["deep/1.png: not in manifest.csv", "gone.png: in manifest.csv, no image"]
    (tmp_path / "Smiling_Young" / "0_0").mkdir(parents=True)  # now the manifest may be that of another task
    with pytest.raises(AimfairError, match="no group folders"):
        load("folder", tmp_path, target="Smiling", protected="Male")


def test_a_folder_of_another_task_is_refused(tmp_path):
    group_folders(tmp_path / "Smiling_Male")
    with pytest.raises(AimfairError, match=r"found: Smiling_Male.*\(-p target=\.\.\. -p protected="):
        load("folder", tmp_path, target="Young", protected="Male")


# All of them


@pytest.mark.parametrize("name", ["celeba", "utkface", "fairface", "folder"])
def test_paths_that_do_not_exist_and_folders_that_are_empty(name, tmp_path):
    with pytest.raises(AimfairError, match="does not exist"):
        load(name, tmp_path / "nowhere")
    with pytest.raises(AimfairError, match=r"data/README\.md"):
        load(name)
    with pytest.raises(AimfairError, match="no "):
        load(name, tmp_path)


def test_an_attribute_that_is_not_there_is_named_with_those_that_are(celeba):
    with pytest.raises(AimfairError, match=r"'Blond_Hair'; it has: Male, Smiling, Young"):
        load("celeba", celeba).labels("Blond_Hair")


def test_a_list_with_more_fields_than_columns_is_refused_in_place_of_being_shifted(celeba):
    (celeba / ATTRIBUTE_LIST).unlink()
    (celeba / "list_attr_celeba.csv").write_text("image_id,Male,Smiling\n000001.jpg,1,-1,1\n000002.jpg,1,1,1\n")
    with pytest.raises(AimfairError, match="more fields than columns"):
        load("celeba", celeba)
