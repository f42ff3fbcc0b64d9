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
import pytest
import torch
from PIL import Image

from aimfair import diffusion, tiny_sd, tiny_vae
from aimfair.errors import AimfairError
from aimfair.faces import GROUPS
from aimfair.prompts import Prompt

BANK = [
    Prompt(f"{t}_{p}/{i:02d}", f"Photo of a {'smiling' if t else 'serious'} {'male' if p else 'female'}, {i}", t, p)
    for t, p in GROUPS
    for i in range(3)
]
PAIR = "Smiling_Male"
SETTINGS = {"steps": 2, "guidance": 3.0, "size": 16}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """An untrained Stable Diffusion of 32 x 32 pixels."""
    out = tmp_path_factory.mktemp("model")
    tokenizer = tiny_sd.train_tokenizer([p.text for p in BANK], out / "words")
    text_encoder, unet = tiny_sd.build(len(tokenizer), 4, channels=(32, 64))
    tiny_sd.save(out / "model", tiny_vae.build(32, channels=(16, 16, 16, 32)), text_encoder, tokenizer, unet)
    return out / "model"


@pytest.fixture(scope="module")
def pipeline(folder):
    return diffusion.load_pipeline(folder)


def pictures(folder: Path) -> dict[str, np.ndarray]:
    return {str(f.relative_to(folder)): np.asarray(Image.open(f)).astype(int) for f in sorted(folder.rglob("*.png"))}


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
    assert len({im.tobytes() for im in images.values()}) == 8  # a seed of its own each


def test_the_image_is_what_the_plain_pipeline_draws(pipeline, tmp_path):
    job = diffusion.jobs(BANK, 1, PAIR)[2]
    diffusion.generate(pipeline, [job], tmp_path, **(SETTINGS | {"size": 32}), batch_size=1)
    (ours,) = pictures(tmp_path).values()
    noise = torch.Generator().manual_seed(job.seed)
    theirs = pipeline(job.prompt, num_inference_steps=2, guidance_scale=3.0, generator=noise).images[0]
    assert np.abs(ours - np.asarray(theirs).astype(int)).max() <= 1


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
        "import sys; sys.path.insert(0, 'tests')\nfrom aimfair import diffusion\nimport test_diffusion as t\n"
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
