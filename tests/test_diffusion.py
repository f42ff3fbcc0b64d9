"""Generation: every image a job of its own, whatever interrupts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tiny_pipelines import BANK, PAIR, SETTINGS, alike, pictures, stable_diffusion

from aimfair.environment import AimfairError
from aimfair.generate import diffusion
from aimfair.generate.drawing import manifest


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """An untrained Stable Diffusion of 32 x 32 pixels."""
    return stable_diffusion(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def pipeline(folder):
    return diffusion.load_pipeline(folder)


def test_jobs_are_spread_evenly_and_never_change():
    few, many = diffusion.jobs(BANK, 4, PAIR), diffusion.jobs(BANK, 10, PAIR)
    assert len(few) == 16 and len(many) == 40
    assert set(few) <= set(many)
    assert len({job.seed for job in many}) == len({job.path for job in many}) == 40
    counts = [sum(job.prompt_id == prompt.id for job in many) for prompt in BANK]
    assert set(counts) == {3, 4}
    first = few[0]
    assert (first.path, first.prompt_id, first.replicate) == ("Smiling_Male/0_0/00000.png", "0_0/00", 0)
    assert first.seed == SEED and all(0 <= job.seed < 2**63 for job in many)
    assert diffusion.jobs(BANK, 1, "Young_Male")[0].seed != SEED


SEED = 7880784200241985815


def test_a_bank_without_a_group_is_refused():
    with pytest.raises(AimfairError, match=r"no prompt for group \(1, 0\)"):
        diffusion.jobs([p for p in BANK if (p.target, p.protected) != (1, 0)], 2, PAIR)


def test_images_and_manifest(pipeline, folder, tmp_path):
    todo = diffusion.jobs(BANK, 2, PAIR)
    assert diffusion.missing(todo, tmp_path) == todo
    manifest = diffusion.generate(pipeline, todo, tmp_path, batch_size=3, **SETTINGS)
    images, rows = pictures(tmp_path), diffusion.read_manifest(tmp_path)
    assert manifest == tmp_path / "manifest.csv" and diffusion.missing(todo, tmp_path) == []
    assert {im.shape for im in images.values()} == {(16, 16, 3)}
    assert sorted(rows["path"]) == sorted(images) == sorted(job.path for job in todo)
    assert tuple(rows.columns) == diffusion.COLUMNS
    row = rows.set_index("path").loc["Smiling_Male/1_0/00001.png"]
    job = next(j for j in todo if j.path == row.name)
    assert (row["seed"], row["prompt"], row["target"], row["protected"]) == (job.seed, job.prompt, 1, 0)
    assert (row["model"], row["revision"]) == ("model", diffusion.fingerprint(folder))
    assert row["scheduler"] == "DPMSolverMultistepScheduler" and row["guidance"] == 3.0
    assert (row["size"], row["drawn"], row["dtype"]) == (16, "32", "float32")
    assert len({im.tobytes() for im in images.values()}) == 8  # a seed of its own each


def test_the_image_is_what_the_plain_pipeline_draws(pipeline, tmp_path):
    job = diffusion.jobs(BANK, 1, PAIR)[2]
    diffusion.generate(pipeline, [job], tmp_path, **(SETTINGS | {"size": 32}), batch_size=1)
    (ours,) = pictures(tmp_path).values()
    noise = torch.Generator().manual_seed(job.seed)
    theirs = pipeline(job.prompt, num_inference_steps=2, guidance_scale=3.0, generator=noise).images[0]
    assert np.abs(ours - np.asarray(theirs).astype(int)).max() <= 1


def test_an_image_is_made_smaller_by_lanczos(pipeline, tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    todo = diffusion.jobs(BANK, 1, PAIR)[:1]
    diffusion.generate(pipeline, todo, tmp_path, **SETTINGS, painter=lambda *_: lambda batch: [noise])
    (kept,) = pictures(tmp_path).values()
    assert np.array_equal(kept, noise.resize((16, 16), Image.Resampling.LANCZOS))


def test_the_batch_size_does_not_matter(pipeline, tmp_path):
    todo = diffusion.jobs(BANK, 2, PAIR)
    for size in (1, 3, 8):
        diffusion.generate(pipeline, todo, tmp_path / str(size), batch_size=size, **SETTINGS)
    one, three, eight = (pictures(tmp_path / str(size)) for size in (1, 3, 8))
    for name in one:
        assert np.abs(one[name] - three[name]).max() <= 1 and np.abs(one[name] - eight[name]).max() <= 1


def test_a_pool_is_enlarged_without_drawing_again(pipeline, tmp_path):
    diffusion.generate(pipeline, diffusion.jobs(BANK, 1, PAIR), tmp_path, batch_size=4, **SETTINGS)
    before = {path: (tmp_path / path).stat().st_mtime_ns for path in pictures(tmp_path)}
    diffusion.generate(pipeline, diffusion.jobs(BANK, 2, PAIR), tmp_path, batch_size=4, **SETTINGS)
    assert len(pictures(tmp_path)) == len(diffusion.read_manifest(tmp_path)) == 8
    assert all((tmp_path / path).stat().st_mtime_ns == at for path, at in before.items())


def test_what_is_lost_is_drawn_again(pipeline, tmp_path):
    todo = diffusion.jobs(BANK, 2, PAIR)
    manifest = diffusion.generate(pipeline, todo, tmp_path, batch_size=4, **SETTINGS)
    whole = pictures(tmp_path)
    (tmp_path / todo[0].path).unlink()  # a row without an image
    rows = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(rows[:-2]) + rows[-1][:20])  # an image without a row, and half a row
    assert len(diffusion.missing(todo, tmp_path)) == 3
    diffusion.generate(pipeline, todo, tmp_path, batch_size=4, **SETTINGS)
    again = pictures(tmp_path)
    assert again.keys() == whole.keys() and all(np.abs(again[name] - whole[name]).max() <= 1 for name in whole)
    assert sorted(diffusion.read_manifest(tmp_path)["path"]) == sorted(whole)


def test_other_settings_in_the_same_folder_are_refused(pipeline, tmp_path):
    todo = diffusion.jobs(BANK, 1, PAIR)
    diffusion.generate(pipeline, todo, tmp_path, **SETTINGS)
    with pytest.raises(AimfairError, match=r"made with guidance 3\.0, not 5\.0"):
        diffusion.generate(pipeline, todo, tmp_path, **(SETTINGS | {"guidance": 5.0}))
    with pytest.raises(AimfairError, match="made with prompt"):
        diffusion.generate(pipeline, [replace(todo[0], prompt="Something else")], tmp_path, **SETTINGS)


def test_a_killed_run_leaves_whole_images_and_goes_on(folder, pipeline, tmp_path):
    todo = diffusion.jobs(BANK, 30, PAIR)
    code = (
        "import sys; sys.path.insert(0, 'tests')\nfrom aimfair import diffusion\nimport tiny_pipelines as t\n"
        f"diffusion.generate(diffusion.load_pipeline({str(folder)!r}), diffusion.jobs(t.BANK, 30, t.PAIR), "
        f"{str(tmp_path)!r}, batch_size=4, **t.SETTINGS)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parent.parent)
    while len(diffusion.read_manifest(tmp_path)) < 6 and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    rows = diffusion.read_manifest(tmp_path)
    assert 6 <= len(rows) < len(todo)
    pictures(tmp_path)  # every image that is there can be read
    assert all((tmp_path / path).exists() for path in rows["path"])
    diffusion.generate(pipeline, todo, tmp_path, batch_size=60, **SETTINGS)
    paths = diffusion.read_manifest(tmp_path)["path"]
    assert sorted(paths) == sorted(job.path for job in todo) == sorted(pictures(tmp_path))
    assert not list(tmp_path.rglob("*.partial"))


def test_what_was_drawn_before_an_error_is_kept(pipeline, tmp_path):
    todo = diffusion.jobs(BANK, 2, PAIR)
    (tmp_path / PAIR).mkdir()
    (tmp_path / PAIR / "1_0").write_text("in the way of a folder")
    with pytest.raises(AimfairError, match="cannot write to .*images already there are kept"):
        diffusion.generate(pipeline, todo, tmp_path, batch_size=2, **SETTINGS)
    rows = diffusion.read_manifest(tmp_path)
    assert len(rows) >= 4 and sorted(rows["path"]) == sorted(pictures(tmp_path))
    (tmp_path / PAIR / "1_0").unlink()
    diffusion.generate(pipeline, todo, tmp_path, batch_size=2, **SETTINGS)
    assert diffusion.missing(todo, tmp_path) == []


def test_a_full_disk_keeps_what_is_there_and_says_how_to_go_on(pipeline, tmp_path):
    todo = diffusion.jobs(BANK, 2, PAIR)
    image = tmp_path / todo[3].path
    image.parent.mkdir(parents=True)
    image.with_suffix(".partial").symlink_to("/dev/full")  # where the image is written before it gets its name
    with pytest.raises(AimfairError, match=r"No space left on device.*are kept; make room and start again"):
        diffusion.generate(pipeline, todo, tmp_path, batch_size=2, **SETTINGS)
    assert 0 < len(diffusion.missing(todo, tmp_path)) < len(todo)
    diffusion.generate(pipeline, todo, tmp_path, batch_size=2, **SETTINGS)
    assert sorted(diffusion.read_manifest(tmp_path)["path"]) == sorted(pictures(tmp_path))
    assert diffusion.missing(todo, tmp_path) == []


def test_no_room_for_a_row_leaves_the_manifest_whole(pipeline, tmp_path):
    resource = pytest.importorskip("resource")
    todo = diffusion.jobs(BANK, 3, PAIR)
    path = diffusion.generate(pipeline, todo[:8], tmp_path, batch_size=4, **SETTINGS)
    before, limits = path.read_text(), resource.getrlimit(resource.RLIMIT_FSIZE)
    assert len(before) > 1000  # more than an image: only the manifest grows beyond the limit
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, limits[1]))
    try:
        with pytest.raises(AimfairError, match="cannot write to .*File too large"):
            diffusion.generate(pipeline, todo, tmp_path, batch_size=4, **SETTINGS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == before
    diffusion.generate(pipeline, todo, tmp_path, batch_size=4, **SETTINGS)
    assert diffusion.missing(todo, tmp_path) == []


def test_rows_follow_half_a_row_and_stop_when_nobody_wants_them(pipeline, tmp_path):
    todo = diffusion.jobs(BANK, 1, PAIR)
    path = diffusion.generate(pipeline, todo[:2], tmp_path, **SETTINGS)
    whole = path.read_text()
    path.write_text(whole + "Smiling_Male/1_0/000")  # another process was killed
    row = manifest.read_manifest(tmp_path).iloc[-1].to_dict() | {"path": "b.png"}
    manifest.append(tmp_path, [row], allowed=lambda: False)
    assert path.read_text() == whole + "Smiling_Male/1_0/000"
    manifest.append(tmp_path, [row])
    assert path.read_text().startswith(whole) and len(path.read_text().splitlines()) == 4
    assert diffusion.read_manifest(tmp_path)["path"].iloc[-1] == "b.png"
    asked = iter([True, True, False])
    drawn = diffusion.draw(pipeline, todo, tmp_path, **SETTINGS, batch_size=1, allowed=lambda: next(asked, False))
    assert len(list(drawn)) <= 2 and len(diffusion.missing(todo, tmp_path)) >= 1


def test_an_older_manifest_is_read_and_gets_the_new_columns(pipeline, tmp_path):
    todo = diffusion.jobs(BANK, 2, PAIR)
    path = diffusion.generate(pipeline, todo[:5], tmp_path, batch_size=4, **SETTINGS)
    pd.read_csv(path, keep_default_na=False).drop(columns=["drawn", "dtype"]).to_csv(path, index=False)
    assert len(diffusion.missing(todo, tmp_path)) == 3 and "drawn" not in diffusion.read_manifest(tmp_path)
    diffusion.generate(pipeline, todo, tmp_path, batch_size=4, **SETTINGS)
    rows = diffusion.read_manifest(tmp_path)
    assert tuple(rows.columns) == diffusion.COLUMNS
    assert list(rows["drawn"]) == [""] * 5 + ["32"] * 3


@pytest.mark.parametrize("content", [b"", b"path,target", b"path,target,protected\n"])
def test_a_manifest_without_a_row_is_an_empty_pool(tmp_path, content):
    (tmp_path / "manifest.csv").write_bytes(content)
    assert len(diffusion.read_manifest(tmp_path)) == 0


@pytest.mark.parametrize(
    "content",
    [b"file,label\na.png,1\n", b'path,prompt\na.png,"half a quote\n', "path,prompt\na.png,h\xe9\n".encode("latin-1")],
    ids=["of another tool", "a quote that does not end", "another encoding"],
)
def test_a_damaged_manifest_is_named(tmp_path, content):
    (tmp_path / "manifest.csv").write_bytes(content)
    with pytest.raises(AimfairError, match=r"manifest.csv is damaged, or not a manifest of aimfair .*mend it"):
        diffusion.read_manifest(tmp_path)


def full_above(limit: int, how: str):
    """A hook for the U-Net, which gets two latents per image, that runs out of memory above ``limit`` images."""

    def hook(module, inputs):
        if len(inputs[0]) > 2 * limit:
            if how == "GPU":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            torch.empty(2**55)

    return hook


@pytest.mark.parametrize("how", ["GPU", "processor"])
def test_a_batch_that_does_not_fit_is_halved(pipeline, tmp_path, how):
    todo = diffusion.jobs(BANK, 3, PAIR)
    diffusion.generate(pipeline, todo, tmp_path / "one", batch_size=12, **SETTINGS)
    hook = pipeline.unet.register_forward_pre_hook(full_above(3, how))
    try:
        with pytest.warns(UserWarning, match="do not fit the memory") as warned:
            diffusion.generate(pipeline, todo, tmp_path / "other", batch_size=12, **SETTINGS)
    finally:
        hook.remove()
    said = [str(w.message) for w in warned if "fit the memory" in str(w.message)]
    assert [text.split(":")[0].split()[0] for text in said] == ["12", "6"]
    assert alike(tmp_path / "one", tmp_path / "other")


def test_a_memory_too_small_for_one_image_and_other_errors_stop(pipeline, tmp_path):
    todo = diffusion.jobs(BANK, 1, PAIR)
    diffusion.generate(pipeline, todo[:2], tmp_path, batch_size=2, **SETTINGS)
    hook = pipeline.unet.register_forward_pre_hook(full_above(0, "GPU"))
    try:
        with pytest.warns(UserWarning), pytest.raises(AimfairError, match="too small for one image.*start again"):
            diffusion.generate(pipeline, todo, tmp_path, batch_size=2, **SETTINGS)
    finally:
        hook.remove()
    assert len(diffusion.read_manifest(tmp_path)) == 2
    wrong = pipeline.unet.register_forward_pre_hook(lambda module, inputs: torch.zeros(2) @ torch.zeros(3))
    try:
        with pytest.raises(RuntimeError, match="size"):
            diffusion.generate(pipeline, todo, tmp_path, batch_size=2, **SETTINGS)
    finally:
        wrong.remove()


def test_black_images_are_reported_and_left_out(folder, tmp_path):
    black = diffusion.load_pipeline(folder)
    with torch.no_grad():
        black.vae.decoder.conv_out.weight.zero_()
        black.vae.decoder.conv_out.bias.fill_(-2)
    with pytest.raises(AimfairError, match="4 of 4 images came out black"):
        diffusion.generate(black, diffusion.jobs(BANK, 1, PAIR), tmp_path, **SETTINGS)
    assert not pictures(tmp_path) and len(diffusion.read_manifest(tmp_path)) == 0


def test_another_scheduler(folder):
    options = {"timestep_spacing": "leading"}
    pipeline = diffusion.load_pipeline(folder, scheduler="DDIMScheduler", scheduler_options=options)
    assert type(pipeline.scheduler).__name__ == "DDIMScheduler"
    assert pipeline.scheduler.config.timestep_spacing == "leading"
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert pipeline.scheduler_name == "DDIMScheduler(timestep_spacing=leading)"  # what the manifest says
    with pytest.raises(AimfairError, match="no scheduler 'Fast'"):
        diffusion.load_pipeline(folder, scheduler="Fast")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/nowhere/at/all", "no folder /nowhere/at/all"),
        ("not a model", "no folder not a model"),
        ("nobody-at-all/no-such-model", "cannot load the text-to-image model nobody-at-all/no-such-model"),
    ],
)
def test_a_model_that_is_not_there(name, message):
    with pytest.raises(AimfairError, match=message) as caught:
        diffusion.load_pipeline(name, local_files_only=True)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(AimfairError, match="model_index.json is missing"):
        diffusion.load_pipeline(tmp_path)


def test_weights_that_would_be_unpickled_are_refused(folder, tmp_path):
    import shutil

    shutil.copytree(folder, tmp_path / "copy")
    weights = tmp_path / "copy" / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save({}, weights.with_name("diffusion_pytorch_model.bin"))
    weights.unlink()
    with pytest.raises(AimfairError, match="cannot load"):
        diffusion.load_pipeline(tmp_path / "copy")
