"""Presets: what each asks of diffusers exists there; how a pipeline computes is chosen for the device."""

import inspect
import re
import shutil
from contextlib import nullcontext
from dataclasses import replace
from functools import wraps

import diffusers
import huggingface_hub
import pytest
import tiny_pipelines
import torch
from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING
from tiny_pipelines import BANK, PAIR, SETTINGS, pictures, stable_diffusion

from aimfair.environment import AimfairError
from aimfair.generate import diffusion, presets
from aimfair.generate.drawing import pipelines
from aimfair.generate.drawing.pipelines import Compute, choose

NAMES = presets.available()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return stable_diffusion(tmp_path_factory.mktemp("model"))


def test_the_models_of_the_paper_and_of_today_are_there():
    assert {"sd21-base", "sd21-base-fast", "sdxl", "flux2-klein", "z-image", "prx-512", "qwen-image"} <= set(NAMES)
    assert presets.find("owner/name") == presets.Preset("owner/name")


@pytest.mark.parametrize("name", NAMES)
def test_diffusers_takes_what_a_preset_asks_for(name):
    preset = presets.find(name)
    pipeline = getattr(diffusers, preset.pipeline)
    assert pipeline in AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values()
    asked = diffusion.call_arguments(preset, preset.steps, preset.guidance)
    asked |= {"prompt": [], "generator": [], "output_type": "pil"}
    asked |= {"negative_prompt": []} if preset.negative_prompt else {}
    assert {"num_inference_steps", "height", "width", preset.guidance_argument} <= set(asked)
    assert pipelines.refused(pipeline, asked) == []
    if preset.scheduler:
        known = inspect.signature(getattr(diffusers, preset.scheduler).__init__).parameters
        assert set(preset.scheduler_options) <= set(known)


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_says_what_a_user_must_know(name):
    preset = presets.find(name)
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", preset.model) and re.fullmatch(r"([0-9a-f]{40})?", preset.revision)
    assert preset.licence and preset.steps > 0 and preset.guidance >= 0 and preset.dtype in pipelines.DTYPES
    assert preset.size % 16 == 0 and preset.gigabytes > preset.billions and preset.work() > 0.5


def test_the_official_settings_take_the_papers_steps():
    official = presets.find("sd21-base")
    scheduler = diffusers.DDIMScheduler(**official.scheduler_options)
    scheduler.set_timesteps(official.steps)
    assert scheduler.timesteps[[0, 1, -1]].tolist() == [981, 961, 1]
    assert (official.guidance, official.batch_size, official.dtype, official.size) == (9.0, 15, "float16", 512)
    assert official.calls(50, 9.0) == 100 and official.calls(4, 1.0) == 4
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    assert torch.allclose(scheduler.alphas_cumprod, (1 - betas).cumprod(0))
    assert scheduler.final_alpha_cumprod == scheduler.alphas_cumprod[0]
    assert not scheduler.config.clip_sample and scheduler.config.prediction_type == "epsilon"
    assert official.model.endswith("/stable-diffusion-2-1-base")  # 512 px: the one without -base draws at 768


def test_the_fast_preset_is_the_papers_model_with_a_solver_of_fewer_steps():
    official, fast = presets.find("sd21-base"), presets.find("sd21-base-fast")
    assert (fast.model, fast.revision, fast.guidance) == (official.model, official.revision, official.guidance)
    trained = diffusers.DDIMScheduler(**official.scheduler_options).config
    scheduler = getattr(diffusers, fast.scheduler).from_config(dict(trained) | fast.scheduler_options)
    scheduler.set_timesteps(fast.steps)
    assert type(scheduler).__name__ == "DPMSolverMultistepScheduler" and len(scheduler.timesteps) == 20
    assert scheduler.config.algorithm_type == "dpmsolver++" and scheduler.config.use_karras_sigmas


def test_only_models_that_were_distilled_to_few_steps_draw_without_guidance():
    known = {name: presets.find(name) for name in NAMES}
    alone = {name for name, preset in known.items() if preset.calls(preset.steps, preset.guidance) == preset.steps}
    assert alone == {"flux1-schnell", "flux2-klein", "z-image-turbo"}
    assert alone == {name for name, preset in known.items() if preset.steps < 10}


def test_a_new_file_is_a_new_model_with_its_own_settings(folder, tmp_path, monkeypatch):
    (tmp_path / "my_model.py").write_text(
        "from aimfair.generate.presets import Preset\n"
        f"PRESET = Preset({str(folder)!r}, size=16, dtype='bfloat16', batch_size=3, scheduler='DDIMScheduler',\n"
        "    scheduler_options={'steps_offset': 1}, negative_prompt='blurred')\n"
    )
    monkeypatch.setattr(presets, "__path__", [*presets.__path__, str(tmp_path)])
    assert "my-model" in presets.available()
    pipeline = diffusion.load_pipeline("my-model")
    assert (pipeline.dtype, pipeline.compute.batch_size) == (torch.float32, 32)  # the rest is meant for a GPU
    diffusion.generate(pipeline, diffusion.jobs(BANK, 1, PAIR), tmp_path / "out", **(SETTINGS | {"size": 8}))
    row = diffusion.read_manifest(tmp_path / "out").iloc[0]
    assert (row["drawn"], row["size"], row["negative_prompt"]) == ("16", 8, "blurred")
    assert row["scheduler"] == "DDIMScheduler(steps_offset=1)" and row["model"] == "model"
    monkeypatch.undo()
    with pytest.raises(AimfairError, match=r"made with .*choose another folder"):
        again = diffusion.load_pipeline(folder)
        diffusion.generate(again, diffusion.jobs(BANK, 1, PAIR), tmp_path / "out", **(SETTINGS | {"size": 8}))


def test_a_pipeline_that_does_not_take_an_argument_is_refused_in_words(folder, tmp_path, monkeypatch):
    pipeline = diffusion.load_pipeline(folder)
    pipeline.preset = presets.Preset(str(folder), guidance_argument="true_cfg_scale")
    with pytest.raises(AimfairError, match="StableDiffusionPipeline takes no true_cfg_scale"):
        diffusion.generate(pipeline, diffusion.jobs(BANK, 1, PAIR), tmp_path, **SETTINGS)


def test_the_manifest_has_the_commit_of_a_hub_model_that_was_loaded(folder, tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    store = tmp_path / "models--some--model"
    shutil.copytree(folder, store / "snapshots" / commit)
    (store / "refs").mkdir()
    (store / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    pipeline = diffusion.load_pipeline("some/model", local_files_only=True)
    assert pipeline.source == ("some/model", commit)
    assert pipelines.at_hand("some/model") and not pipelines.at_hand("some/other") and not pipelines.at_hand("nowhere")
    (store / "refs" / "main").write_text("f" * 40)  # it has moved on, which a preset of the older commit does not mind
    (tmp_path / "pinned.py").write_text(
        f"from aimfair.generate.presets import Preset\nPRESET = Preset('some/model', revision={commit!r})\n"
    )
    monkeypatch.setattr(presets, "__path__", [*presets.__path__, str(tmp_path)])
    assert diffusion.load_pipeline("pinned", local_files_only=True).source == ("some/model", commit)


FAMILIES = {
    "sdxl": tiny_pipelines.stable_diffusion_xl,
    "z-image": tiny_pipelines.z_image,
    "flux2-klein": tiny_pipelines.flux2_klein,
    "cogview4": tiny_pipelines.cogview4,
    "prx-512": tiny_pipelines.prx,
}
"""Presets whose kind of pipeline is run here in small, untrained."""


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    """(preset, pipeline): a pipeline in small, loaded and asked as its preset says, but for 32 pixels."""
    out = tmp_path_factory.mktemp(request.param)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tiny_pipelines.saved(FAMILIES[request.param](out), out / "model")
    pipeline = diffusion.load_pipeline(out / "model")
    preset = presets.find(request.param)
    assert type(pipeline).__name__ == preset.pipeline
    own = {"use_resolution_binning": False} if preset.pipeline == "PRXPipeline" else preset.arguments  # 32 px is no bin
    pipeline.preset = replace(preset, model=str(out / "model"), size=32, arguments=own)
    return preset, pipeline


def uneven_jobs():
    """Prompts of very different lengths, next to each other."""
    more = "with wavy black hair, eyeglasses, and head turned slightly left"
    jobs = diffusion.jobs(BANK, 2, PAIR)
    return [replace(job, prompt=f"{job.prompt} {more}") if i % 2 else job for i, job in enumerate(jobs)]


def draw(pipeline, todo, out, batch_size):
    settings = {"steps": 2, "guidance": 3.0, "size": 32}
    diffusion.generate(pipeline, todo, out, batch_size=batch_size, **settings)
    return pictures(out)


def difference(one, other):
    """Grey levels by which the most different pixel differs."""
    return max(abs(one[name] - other[name]).max() for name in one)


def test_images_of_a_family_do_not_depend_on_the_batch(family, tmp_path):
    """But for one grey level: a batch of another size adds up in another order, and the last bit decides a rounding.

    CogView4's pipeline pads the prompts to the longest of the batch and lets the network read the padding, and PRX's
    knows but two time steps where it is guided, so their presets draw one image at a time. The day this test fails,
    they may draw more.
    """
    preset, pipeline = family
    if preset.pipeline == "PRXPipeline":
        assert preset.largest_batch == 1
        draw(pipeline, uneven_jobs(), tmp_path / "1", 1)
        pipeline.preset = replace(pipeline.preset, largest_batch=None)
        with pytest.raises(RuntimeError, match="size of tensor"):
            draw(pipeline, uneven_jobs(), tmp_path / "8", 8)
        pipeline.preset = replace(pipeline.preset, largest_batch=1)
        return
    one = draw(pipeline, uneven_jobs(), tmp_path / "1", 1)
    pipeline.preset = replace(pipeline.preset, largest_batch=None)
    eight = draw(pipeline, uneven_jobs(), tmp_path / "8", 8)
    other = draw(pipeline, [replace(job, prompt="Photo of a cat") for job in uneven_jobs()], tmp_path / "other", 8)
    assert len(one) == 8 and difference(one, other) > 10  # the prompts do show
    if preset.pipeline == "CogView4Pipeline":
        assert difference(one, eight) > 10 and preset.largest_batch == 1
    else:
        assert difference(one, eight) <= 1 and preset.largest_batch is None
    row = diffusion.read_manifest(tmp_path / "8").iloc[0]
    assert (row["model"], row["drawn"]) == ("model", "32") and row["scheduler"] == type(pipeline.scheduler).__name__


def test_what_a_preset_says_reaches_the_call(family, tmp_path, monkeypatch):
    preset, pipeline = family
    given, draws = [], type(pipeline).__call__

    @wraps(draws)  # with its signature, which is looked at before
    def noted(self, **asked):
        given.append(asked | {"prompt": [*asked["prompt"]]})  # Z-Image's writes into the list
        return draws(self, **asked)

    monkeypatch.setattr(type(pipeline), "__call__", noted)
    known = {"StableDiffusionXLPipeline": "guidance_rescale", "PRXPipeline": "tokenizer_max_length"}
    more = {known.get(preset.pipeline, "max_sequence_length"): 128}
    pipeline.preset = replace(pipeline.preset, size=16, arguments=pipeline.preset.arguments | more)
    pipeline.preset = replace(pipeline.preset, largest_batch=preset.largest_batch)
    todo = uneven_jobs()[:3]
    with nullcontext() if preset.largest_batch is None else pytest.warns(UserWarning, match="draws 1 at a time, not 3"):
        draw(pipeline, todo, tmp_path, 3)
    assert len(given) == (3 if preset.largest_batch else 1)
    for asked in given:
        assert {name: asked[name] for name in more} == more
        assert (asked["height"], asked["width"], asked["num_inference_steps"]) == (16, 16, 2)
        assert asked[preset.guidance_argument] == 3.0
    assert [prompt for asked in given for prompt in asked["prompt"]] == [job.prompt for job in todo]
    seeds = [noise.initial_seed() for asked in given for noise in asked["generator"]]
    assert seeds == [job.seed for job in todo]


def test_a_model_without_a_preset_is_asked_as_its_kin(family, tmp_path):
    """A fine-tuned Qwen-Image, for one, must not be asked for a guidance that its pipeline takes for something else."""
    preset, pipeline = family
    shutil.copytree(pipeline.preset.model, tmp_path / "own")
    own = diffusion.load_pipeline(tmp_path / "own").preset
    assert own.pipeline == preset.pipeline and own.model == str(tmp_path / "own") and own.licence == ""
    assert (own.largest_batch, own.size, own.arguments) == (preset.largest_batch, None, {})
    qwen = presets.completed(presets.Preset("someone/qwen"), "QwenImagePipeline")
    assert (qwen.guidance_argument, qwen.negative_prompt, qwen.gigabytes) == ("true_cfg_scale", " ", 0)
    assert presets.completed(presets.Preset("a/b"), "Else") == presets.Preset("a/b", pipeline="Else")
    assert presets.completed(preset, "QwenImagePipeline") == preset
    index = tmp_path / "own" / "model_index.json"
    index.write_text(index.read_text().replace(preset.pipeline, "QwenImagePipeline"))
    assert pipelines.expected(tmp_path / "own")["negative_prompt"] == " "
    assert "negative_prompt" not in pipelines.expected("someone/something")


def test_what_is_chosen_for_a_processor_and_a_gpu():
    cpu = choose(Compute(), "cpu", unet=True)
    assert cpu == Compute("float32", "", False, False, False, False, 32)
    small, large = (choose(Compute(), "cuda", unet=True, side=512, free=free) for free in (6.0, 70.0))
    assert small == Compute("float16", "", False, False, True, False, 8) and large.batch_size == 64
    flow = choose(Compute(), "cuda:1", unet=False, side=1024, free=20.0)
    assert flow == Compute("bfloat16", "", True, False, False, False, 4)
    assert choose(Compute(), "cuda", unet=False, side=1024, free=0.1).batch_size == 1
    own = Compute("float32", "sliced", True, True, False, True, 5)
    assert choose(own, "cuda", unet=True, side=512, free=70.0) == own


def test_what_is_asked_for_is_done(folder):
    wanted = Compute(dtype="bfloat16", attention="sliced", slicing=True, tiling=True, channels_last=True, batch_size=7)
    pipeline = diffusion.load_pipeline(folder, compute=wanted)
    assert pipeline.dtype == torch.bfloat16 and pipeline.compute.batch_size == 7
    assert pipeline.vae.use_slicing and pipeline.vae.use_tiling
    assert pipeline.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert any("Sliced" in type(p).__name__ for p in pipeline.unet.attn_processors.values())
    plain = diffusion.load_pipeline(folder)
    assert not plain.vae.use_slicing and plain.compute == choose(Compute(), "cpu", unet=True)
    with pytest.raises(AimfairError, match="attention 'no-such-thing' cannot be used here"):
        diffusion.load_pipeline(folder, compute=Compute(attention="no-such-thing"))
    for wrong in ({"dtype": "float8"}, {"batch_size": 0}):
        with pytest.raises(AimfairError, match=r"dtype is one of|at least one image"):
            Compute(**wrong)
