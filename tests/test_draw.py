"""Generation: every image a job of its own, whatever interrupts it and however many processes draw it."""

from __future__ import annotations

import json
import os
import signal
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import distributed
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_pipelines import BANK, PAIR, SETTINGS, alike, pictures, stable_diffusion, stable_diffusion_xl

from aimfair.environment import AimfairError
from aimfair.generate import draw, manifest
from aimfair.generate.draw import generate, generate_in_processes
from aimfair.generate.manifest import jobs, missing, read_manifest, read_settings
from aimfair.generate.pipelines import Compute, fingerprint, load_pipeline, place

SEED = 7880784200241985815


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """An untrained Stable Diffusion of 32 x 32 pixels."""
    return stable_diffusion(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def pipeline(folder):
    return load_pipeline(folder)


def test_jobs_are_spread_evenly_and_never_change():
    few, many = jobs(BANK, 4, PAIR), jobs(BANK, 10, PAIR)
    assert len(few) == 16 and len(many) == 40 and set(few) <= set(many)
    assert len({job.seed for job in many}) == len({job.path for job in many}) == 40
    assert {sum(job.prompt_id == prompt.id for job in many) for prompt in BANK} == {3, 4}
    first = few[0]
    assert (first.path, first.prompt_id, first.replicate) == ("Smiling_Male/0_0/00000.png", "0_0/00", 0)
    assert first.seed == SEED and all(0 <= job.seed < 2**63 for job in many)
    assert SEED not in (jobs(BANK, 1, "Young_Male")[0].seed, jobs(BANK, 1, PAIR, draw=1)[0].seed)
    with pytest.raises(AimfairError, match=r"no prompt for group \(1, 0\)"):
        jobs([p for p in BANK if (p.target, p.protected) != (1, 0)], 2, PAIR)


def test_images_rows_and_settings(pipeline, folder, tmp_path):
    todo = jobs(BANK, 2, PAIR)
    assert missing(todo, tmp_path) == todo
    assert generate(pipeline, todo, tmp_path, batch_size=3, **SETTINGS) == tmp_path / "manifest.csv"
    images, rows = pictures(tmp_path), read_manifest(tmp_path)
    assert missing(todo, tmp_path) == [] and {im.shape for im in images.values()} == {(16, 16, 3)}
    assert sorted(rows["path"]) == sorted(images) == sorted(job.path for job in todo)
    assert tuple(rows.columns) == manifest.COLUMNS and len({im.tobytes() for im in images.values()}) == 8
    told = rows.set_index("path")[["seed", "prompt", "target", "protected"]].to_dict("index")
    assert all(told[job.path].items() <= vars(job).items() for job in todo)
    settings = {"model": "model", "revision": fingerprint(folder), "scheduler": "DPMSolverMultistepScheduler"}
    settings |= {"steps": 2, "guidance": 3.0, "size": 16, "negative_prompt": "", "drawn": "32", "dtype": "float32"}
    assert read_settings(tmp_path) == settings | {"arguments": ""}


def test_the_image_is_what_the_plain_pipeline_draws_or_a_smaller_one_by_lanczos(pipeline, tmp_path):
    job = jobs(BANK, 1, PAIR)[2]
    generate(pipeline, [job], tmp_path / "own", **(SETTINGS | {"size": 32}), batch_size=1)
    (ours,) = pictures(tmp_path / "own").values()
    noise = torch.Generator().manual_seed(job.seed)
    theirs = pipeline(job.prompt, num_inference_steps=2, guidance_scale=3.0, generator=noise).images[0]
    assert np.abs(ours - np.asarray(theirs).astype(int)).max() <= 1
    generate(pipeline, [job], tmp_path / "half", **SETTINGS, painter=lambda *_: lambda batch: [theirs])
    (kept,) = pictures(tmp_path / "half").values()
    assert np.array_equal(kept, theirs.resize((16, 16), Image.Resampling.LANCZOS))


def test_neither_the_batch_size_nor_the_parts_in_which_a_pool_is_drawn_matter(pipeline, tmp_path):
    todo = jobs(BANK, 2, PAIR)
    for size in (1, 3, 8):
        generate(pipeline, todo, tmp_path / str(size), batch_size=size, **SETTINGS)
    generate(pipeline, jobs(BANK, 1, PAIR), tmp_path / "parts", batch_size=4, **SETTINGS)
    before = {path: (tmp_path / "parts" / path).stat().st_mtime_ns for path in pictures(tmp_path / "parts")}
    generate(pipeline, todo, tmp_path / "parts", batch_size=4, **SETTINGS)
    assert len(before) == 4 and len(read_manifest(tmp_path / "parts")) == 8
    assert all((tmp_path / "parts" / path).stat().st_mtime_ns == at for path, at in before.items())
    assert all(alike(tmp_path / "8", tmp_path / other) for other in ("1", "3", "parts"))


def test_what_is_lost_is_drawn_again(pipeline, tmp_path):
    todo = jobs(BANK, 2, PAIR)
    file = generate(pipeline, todo, tmp_path, batch_size=4, **SETTINGS)
    whole = pictures(tmp_path)
    (tmp_path / todo[0].path).unlink()  # a row without an image
    rows = file.read_text().splitlines(keepends=True)
    file.write_text("".join(rows[:-2]) + rows[-1][:20])  # an image without a row, and half a row
    assert len(missing(todo, tmp_path)) == 3
    generate(pipeline, todo, tmp_path, batch_size=4, **SETTINGS)
    again = pictures(tmp_path)
    assert again.keys() == whole.keys() and all(np.abs(again[name] - whole[name]).max() <= 1 for name in whole)
    assert sorted(read_manifest(tmp_path)["path"]) == sorted(whole)


def test_other_settings_in_the_same_folder_are_refused(pipeline, tmp_path):
    todo = jobs(BANK, 1, PAIR)
    generate(pipeline, todo[:2], tmp_path, **SETTINGS)
    with pytest.raises(AimfairError, match=r"made with guidance 3\.0, not 5\.0: choose another folder, or remove it"):
        generate(pipeline, todo, tmp_path, **(SETTINGS | {"guidance": 5.0}))
    with pytest.raises(AimfairError, match="made with prompt"):
        generate(pipeline, [replace(todo[0], prompt="Something else")], tmp_path, **SETTINGS)
    for path in pictures(tmp_path):
        (tmp_path / path).unlink()
    generate(pipeline, todo, tmp_path, **(SETTINGS | {"guidance": 5.0}))  # nothing is there any more
    assert read_settings(tmp_path)["guidance"] == 5.0
    for damage in ("[", "[]", "{}", '{"steps": 2}', json.dumps(read_settings(tmp_path) | {"steps": "two"})):
        (tmp_path / "settings.json").write_text(damage)
        with pytest.raises(AimfairError, match=r"settings\.json cannot be read"):
            generate(pipeline, todo, tmp_path, **SETTINGS)


def test_a_pool_may_be_finished_in_another_number_format_and_not_without_its_settings(folder, pipeline, tmp_path):
    todo = jobs(BANK, 2, PAIR)
    generate(pipeline, todo[:5], tmp_path, batch_size=4, **SETTINGS)
    generate(load_pipeline(folder, compute=Compute(dtype="bfloat16")), todo, tmp_path, batch_size=4, **SETTINGS)
    assert missing(todo, tmp_path) == [] and read_settings(tmp_path)["dtype"] == "float32, bfloat16"
    (tmp_path / "settings.json").unlink()
    with pytest.raises(AimfairError, match=r"nobody knows how the images in .* were made"):
        generate(pipeline, todo, tmp_path, **SETTINGS)


# A disk that is full, a manifest that is damaged


@pytest.mark.parametrize("obstacle", ["file", "full"])
def test_what_was_drawn_before_the_disk_was_full_is_kept(pipeline, tmp_path, obstacle):
    todo = jobs(BANK, 2, PAIR)
    target = tmp_path / PAIR / "1_0" if obstacle == "file" else (tmp_path / todo[3].path).with_suffix(".partial")
    target.parent.mkdir(parents=True)
    target.write_text("in the way") if obstacle == "file" else target.symlink_to("/dev/full")
    with pytest.raises(AimfairError, match="cannot write to .*are kept; make room and start again"):
        generate(pipeline, todo, tmp_path, batch_size=2, **SETTINGS)
    rows = read_manifest(tmp_path)
    assert 0 < len(rows) < len(todo) and sorted(rows["path"]) == sorted(pictures(tmp_path))
    target.unlink(missing_ok=True)
    generate(pipeline, todo, tmp_path, batch_size=2, **SETTINGS)
    assert missing(todo, tmp_path) == []


def test_no_room_for_a_row_leaves_the_manifest_whole(pipeline, tmp_path):
    resource = pytest.importorskip("resource")
    todo = jobs(BANK, 6, PAIR)
    path = generate(pipeline, todo[:20], tmp_path, batch_size=10, **SETTINGS)
    before, limits = path.read_text(), resource.getrlimit(resource.RLIMIT_FSIZE)
    assert len(before) > 1000  # more than an image: only the manifest grows beyond the limit
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, limits[1]))
    try:
        with pytest.raises(AimfairError, match="cannot write to .*File too large"):
            generate(pipeline, todo, tmp_path, batch_size=4, **SETTINGS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == before
    path.write_text(before + "Smiling_Male/1_0/000")  # another process was killed: its half row is cut off
    manifest.append(tmp_path, [read_manifest(tmp_path).iloc[-1].to_dict() | {"path": "b.png"}])
    assert path.read_text().startswith(before) and read_manifest(tmp_path)["path"].iloc[-1] == "b.png"


def test_a_manifest_without_a_row_is_an_empty_pool_and_a_damaged_one_is_named(tmp_path):
    file = tmp_path / "manifest.csv"
    for content in (b"", b"path,target", b"path,target,protected\n"):
        file.write_bytes(content)
        assert len(read_manifest(tmp_path)) == 0
    of_another_tool, open_quote = b"file,label\na.png,1\n", b'path,prompt\na.png,"half a quote\n'
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    page, latin = b"<!DOCTYPE html>\n<html>\n", "path,prompt\na.png,h\xe9\n".encode("latin-1")
    for content in (of_another_tool, open_quote, pointer, page, latin, None):
        file.write_bytes(content) if content else (file.unlink(), file.mkdir())
        with pytest.raises(AimfairError, match=r"manifest.csv .*mend it, or put it elsewhere"):
            read_manifest(tmp_path)


# A memory that is full, images that are black


@contextmanager
def hooked(pipeline, hook):
    """Within it, ``hook`` is called with the input of the U-Net."""
    handle = pipeline.unet.register_forward_pre_hook(lambda module, inputs: hook(inputs[0]))
    try:
        yield
    finally:
        handle.remove()


def full_above(limit: int, how: str):
    """A hook for the U-Net, which gets two latents per image, that runs out of memory above ``limit`` images."""

    def hook(latents):
        if len(latents) > 2 * limit:
            if how == "GPU":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            torch.empty(2**55)

    return hook


@pytest.mark.parametrize("how", ["GPU", "processor"])
def test_a_batch_that_does_not_fit_is_halved(pipeline, tmp_path, how):
    todo = jobs(BANK, 3, PAIR)
    generate(pipeline, todo, tmp_path / "one", batch_size=12, **SETTINGS)
    with hooked(pipeline, full_above(3, how)), pytest.warns(UserWarning, match="do not fit the memory") as warned:
        generate(pipeline, todo, tmp_path / "other", batch_size=12, **SETTINGS)
    assert [str(w.message).split()[0] for w in warned if "fit the memory" in str(w.message)] == ["12", "6"]
    assert alike(tmp_path / "one", tmp_path / "other")


def test_a_memory_too_small_for_one_image_and_other_errors_stop(pipeline, tmp_path):
    todo = jobs(BANK, 1, PAIR)
    generate(pipeline, todo[:2], tmp_path, batch_size=2, **SETTINGS)
    with hooked(pipeline, full_above(0, "GPU")), pytest.warns(UserWarning), pytest.raises(AimfairError) as caught:
        generate(pipeline, todo, tmp_path, batch_size=2, **SETTINGS)
    assert "too small for one image" in str(caught.value) and len(read_manifest(tmp_path)) == 2
    with hooked(pipeline, lambda latents: torch.zeros(2) @ torch.zeros(3)), pytest.raises(RuntimeError, match="size"):
        generate(pipeline, todo, tmp_path, batch_size=2, **SETTINGS)
    for text in ("CUDA error: out of memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"):
        assert draw.out_of_memory(RuntimeError(text)) and not draw.out_of_memory(RuntimeError("another"))


def test_after_a_call_that_did_not_fit_the_pipeline_is_as_before(folder, tmp_path, monkeypatch):
    """Stable Diffusion XL decodes in float32, and a failure there left half of the pipeline in it; offloaded parts stayed."""
    stable_diffusion_xl(tmp_path).save_pretrained(tmp_path / "xl")
    pipeline = load_pipeline(tmp_path / "xl", compute=Compute(dtype="float16"))
    todo = jobs(BANK, 1, PAIR)
    generate(pipeline, todo, tmp_path / "one", batch_size=2, **SETTINGS)
    full, decode = [True], pipeline.vae.decode

    def decode_once_too_much(*given, **more):
        if full.pop() if full else False:
            raise RuntimeError("CUDA error: out of memory")
        return decode(*given, **more)

    pipeline.vae.decode = decode_once_too_much
    with pytest.warns(UserWarning, match="4 images at a time do not fit"):
        generate(pipeline, todo, tmp_path / "other", batch_size=4, **SETTINGS)
    assert pipeline.vae.dtype == torch.float16 and alike(tmp_path / "one", tmp_path / "other")
    offloaded = place(load_pipeline(folder), "cpu", offload=True)
    freed, free = [], offloaded.maybe_free_model_hooks
    monkeypatch.setattr(offloaded, "maybe_free_model_hooks", lambda: (freed.append(1), free())[1])
    settings = SETTINGS | {"painter": lambda *_: lambda batch: [torch.empty(2**55)]}
    with pytest.raises(AimfairError, match="too small for one image"):
        generate(offloaded, todo, tmp_path / "third", batch_size=1, **settings)
    assert freed == [1] and offloaded._all_hooks


def test_black_images_are_left_out_remembered_and_judged_by_the_pool(folder, tmp_path):
    todo, pipeline = jobs(BANK, 5, PAIR), load_pipeline(folder)
    dark = {todo[n].path for n in (3, 8, 11, 16)}
    seen = []

    def painter(pipeline, settings):
        paint = draw.text_to_image(pipeline, settings)

        def partly_black(batch):
            seen.extend(job.path for job in batch)
            images = paint(batch)
            return [
                Image.new("RGB", (32, 32)) if job.path in dark else im for job, im in zip(batch, images, strict=True)
            ]

        return partly_black

    with pytest.warns(UserWarning, match="4 of 20 images came out black .* delete .*black.csv"):
        generate(pipeline, todo, tmp_path, batch_size=2, painter=painter, **SETTINGS)
    assert len(read_manifest(tmp_path)) == len(pictures(tmp_path)) == 16 and missing(todo, tmp_path) == []
    seen.clear()
    more = jobs(BANK, 6, PAIR)
    with pytest.warns(UserWarning, match="4 of 24 images came out black"):
        generate(pipeline, more, tmp_path, batch_size=2, painter=painter, **SETTINGS)
    assert set(seen) == {job.path for job in more} - {job.path for job in todo}  # the four are not drawn in vain
    assert missing([replace(todo[3], prompt="another", seed=1)], tmp_path)  # another image under the same name
    (tmp_path / "black.csv").unlink()
    dark.clear()
    generate(pipeline, more, tmp_path, batch_size=2, painter=painter, **SETTINGS)
    assert len(pictures(tmp_path)) == 24


def test_a_pool_that_is_all_black_is_the_fault_of_the_model(folder, tmp_path):
    model = load_pipeline(folder)
    with torch.no_grad():
        model.vae.decoder.conv_out.weight.zero_()
        model.vae.decoder.conv_out.bias.fill_(-2)
    for _ in range(2):  # and is tried again
        with pytest.raises(AimfairError, match="4 of 4 images came out black"):
            generate(model, jobs(BANK, 1, PAIR), tmp_path, **SETTINGS)
    assert not pictures(tmp_path) and len(read_manifest(tmp_path)) == 0
    generate(load_pipeline(folder), jobs(BANK, 1, PAIR), tmp_path, **SETTINGS)


# Several processes


def load_and_die_once(folder: str, marker: str, device: str):
    """A process that is killed when it has drawn a few images: the first one that asks."""
    pipeline = load_pipeline(folder, device)
    if not Path(marker).exists():
        Path(marker).touch()
        calls = []

        def die_at_the_third_batch(module, inputs):
            calls.append(1)
            if len(calls) > 2 * SETTINGS["steps"]:
                os.kill(os.getpid(), signal.SIGKILL)

        pipeline.unet.register_forward_pre_hook(die_at_the_third_batch)
    return pipeline


@pytest.mark.skipif(not hasattr(os, "fork"), reason="signals are those of POSIX")
def test_two_processes_of_which_one_is_killed_draw_what_one_draws(folder, pipeline, tmp_path):
    todo, pool = jobs(BANK, 5, PAIR), tmp_path / "two"
    load = partial(load_and_die_once, str(folder), str(tmp_path / "died"))
    done = generate_in_processes(load, todo, pool, processes=2, batch_size=2, **SETTINGS)
    assert done == pool / "manifest.csv" and (tmp_path / "died").exists()
    assert sorted(read_manifest(pool)["path"]) == sorted(job.path for job in todo)  # no gap, nothing twice
    generate(pipeline, todo, tmp_path / "one", batch_size=20, **SETTINGS)
    assert alike(pool, tmp_path / "one") and not list(pool.rglob("*.partial"))


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (distributed.KilledWorker("part", None, 2), "4 of 4 images are missing: .*memory enough for 2 processes"),
        (RuntimeError("of\nanother library"), "4 of 4 images are missing: .*RuntimeError.*another library"),
        (TimeoutError("no answer"), "4 of 4 images are missing: .*TimeoutError.*no answer"),
        (distributed.comm.CommClosedError("gone"), "4 of 4 images are missing: .*CommClosedError.*gone"),
        (AimfairError("cannot write to here"), "^cannot write to here"),
    ],
)
def test_what_goes_wrong_with_processes_is_no_full_disk(error, says, tmp_path, monkeypatch):
    class Part:
        def result(self):
            raise error

    @contextmanager
    def workers(number, device):
        yield SimpleNamespace(submit=lambda *given, **more: Part())

    monkeypatch.setattr(draw, "local_cluster", workers)
    monkeypatch.setattr(distributed, "wait", lambda parts, timeout: (parts, []))
    with pytest.raises(AimfairError, match=says):
        generate_in_processes(load_pipeline, jobs(BANK, 1, PAIR), tmp_path, processes=2, **SETTINGS)


def test_what_one_process_may_draw_is_drawn_in_place(pipeline, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(draw, "local_cluster", None)  # none is started
    for number, todo in ((None, jobs(BANK, 1, PAIR)), (5, jobs(BANK, 1, PAIR)[:1]), (2, [])):
        generate_in_processes(lambda device: pipeline, todo, tmp_path / str(number), processes=number, **SETTINGS)
        assert missing(todo, tmp_path / str(number)) == []


def test_one_process_per_gpu_unless_asked_for_more(monkeypatch):
    assert draw.process_count("cpu", None) == 1 and draw.process_count("cpu", 3) == 3
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert draw.process_count("cuda", None) == 4 and draw.process_count("cuda:1", None) == 1
    with pytest.raises(AimfairError, match="--processes 0: at least one is needed"):
        draw.process_count("cpu", 0)
