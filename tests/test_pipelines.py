"""Presets and pipelines: what each asks of diffusers exists there; how a pipeline is loaded, placed, set up and called."""

import inspect
import json
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
import transformers
from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING
from safetensors.torch import load_file, save_file
from tiny_pipelines import BANK, PAIR, SETTINGS, alike, pictures, stable_diffusion

from aimfair.environment import AimfairError
from aimfair.generate import draw, pipelines, presets, tiny_sd
from aimfair.generate.draw import generate
from aimfair.generate.manifest import jobs, read_settings
from aimfair.generate.pipelines import Compute, choose, known_settings, load_pipeline, settings_of
from aimfair.generate.presets import Preset
from aimfair.study import profiles

NAMES = presets.available()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return stable_diffusion(tmp_path_factory.mktemp("model"))


# Presets


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_says_what_a_user_must_know_and_diffusers_takes_what_it_asks_for(name):
    preset = presets.find(name)
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", preset.model) and re.fullmatch(r"([0-9a-f]{40})?", preset.revision)
    assert preset.licence and preset.steps > 0 and preset.guidance >= 0 and preset.dtype in pipelines.DTYPES
    assert preset.size % 16 == 0 and preset.gigabytes > 0
    pipeline = getattr(diffusers, preset.pipeline)
    assert pipeline in AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values()
    asked = draw.call_arguments(preset, preset.steps, preset.guidance)
    assert {"num_inference_steps", "height", "width", preset.guidance_argument} <= set(asked)
    asked |= {"prompt": [], "generator": [], "output_type": "pil"}
    asked |= {"negative_prompt": []} if preset.negative_prompt else {}
    assert pipelines.unknown_arguments(pipeline, asked) == []
    if preset.scheduler:
        known = inspect.signature(getattr(diffusers, preset.scheduler).__init__).parameters
        assert set(preset.scheduler_options) <= set(known)


def test_the_official_settings_are_the_papers_and_the_fast_ones_have_another_solver():
    official, fast = presets.find("sd21-base"), presets.find("sd21-base-fast")
    scheduler = diffusers.DDIMScheduler(**official.scheduler_options)
    scheduler.set_timesteps(official.steps)
    assert scheduler.timesteps[[0, 1, -1]].tolist() == [981, 961, 1]
    assert (official.guidance, official.batch_size, official.dtype, official.size) == (9.0, 15, "float16", 512)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    assert torch.allclose(scheduler.alphas_cumprod, (1 - betas).cumprod(0))
    assert scheduler.final_alpha_cumprod == scheduler.alphas_cumprod[0]
    assert not scheduler.config.clip_sample and scheduler.config.prediction_type == "epsilon"
    assert official.model.endswith("/stable-diffusion-2-1-base")  # 512 px: the one without -base draws at 768
    assert (fast.model, fast.revision, fast.guidance) == (official.model, official.revision, official.guidance)
    solver = getattr(diffusers, fast.scheduler).from_config(dict(scheduler.config) | fast.scheduler_options)
    solver.set_timesteps(fast.steps)
    assert type(solver).__name__ == "DPMSolverMultistepScheduler" and len(solver.timesteps) == 20
    assert solver.config.algorithm_type == "dpmsolver++" and solver.config.use_karras_sigmas


def test_a_preset_of_ones_own_brings_its_settings(folder, tmp_path, monkeypatch):
    file = tmp_path / "presets.yaml"
    file.write_text(
        f"my-model:\n  model: {folder}\n  size: 16\n  dtype: bfloat16\n  batch_size: 3\n  scheduler: DDIMScheduler\n"
        "  scheduler_options: {steps_offset: 1}\n  negative_prompt: blurred\n  arguments: {guidance_rescale: 0.5}\n"
    )
    monkeypatch.setattr(presets, "FILE", file)
    assert presets.available() == ["my-model"] and presets.find("owner/name") == Preset("owner/name")
    pipeline = load_pipeline("my-model")
    assert (pipeline.dtype, pipeline.compute.batch_size) == (torch.float32, 32)  # the rest is meant for a GPU
    assert pipeline.scheduler.config.prediction_type == "v_prediction"  # the model's own
    generate(pipeline, jobs(BANK, 1, PAIR), tmp_path / "out", **(SETTINGS | {"size": 8}))
    told = read_settings(tmp_path / "out")
    assert (told["drawn"], told["size"], told["negative_prompt"], told["model"]) == ("16", 8, "blurred", "model")
    assert told["scheduler"] == "DDIMScheduler(steps_offset=1)" and told["arguments"] == "guidance_rescale=0.5"
    with pytest.raises(AimfairError, match=r"made with scheduler .*choose another folder"):
        generate(load_pipeline(folder), jobs(BANK, 1, PAIR), tmp_path / "out", **(SETTINGS | {"size": 8}))
    with pytest.raises(AimfairError, match="no scheduler 'Fast'"):
        load_pipeline(replace(presets.find("my-model"), scheduler="Fast"))


def test_what_is_known_of_a_model_before_it_is_loaded(folder):
    assert known_settings(folder) == {"model": "model", "revision": pipelines.fingerprint(folder)}
    official = presets.find("sd21-base")
    assert known_settings("sd21-base") == {"model": official.model, "revision": official.revision}
    assert known_settings("prx-512") == {"model": "Photoroom/prx-512-t2i-sft"}


# Loading


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/nowhere/at/all", "no folder /nowhere/at/all"),
        ("not a model", "no folder not a model"),
        ("nobody-at-all/no-such-model", "cannot load the text-to-image model nobody-at-all/no-such-model"),
        ("empty", "model_index.json is missing"),
        ("newer", "cannot load the text-to-image model .*UNetOfTomorrow"),
        ("pickled", "cannot load"),
    ],
)
def test_what_cannot_be_loaded_is_refused_in_a_line(name, message, folder, tmp_path):
    if name in ("newer", "pickled"):
        shutil.copytree(folder, tmp_path / name)
    if name == "newer":
        index = tmp_path / name / "model_index.json"
        index.write_text(index.read_text().replace("UNet2DConditionModel", "UNetOfTomorrow"))
    if name == "pickled":
        weights = tmp_path / name / "unet" / "diffusion_pytorch_model.safetensors"
        torch.save({}, weights.with_name("diffusion_pytorch_model.bin"))
        weights.unlink()
    (tmp_path / "empty").mkdir()
    given = tmp_path / name if (tmp_path / name).is_dir() else name
    with pytest.raises(AimfairError, match=message) as caught:
        load_pipeline(given, local_files_only=True)
    assert "\n" not in str(caught.value)


def weights_of(copy, part):
    return next((copy / part).glob("*.safetensors"))


def rewrite(copy, part, change):
    file = weights_of(copy, part)
    save_file(change(load_file(file)), file, {"format": "pt"})


def without_files(copy, part, *names):
    for file in (copy / part).iterdir() if not names else [copy / part / name for name in names]:
        file.unlink()


WORDS = ("tokenizer.json", "vocab.json", "merges.txt")
NOT_WHOLE = {
    "tensors under other names": lambda c: rewrite(c, "text_encoder", lambda w: {f"model.{k}": w[k] for k in w}),
    "of the autoencoder too": lambda c: rewrite(c, "vae", lambda w: {k.replace("decoder", "decode"): w[k] for k in w}),
    "a tensor is missing": lambda c: rewrite(c, "unet", lambda w: dict(list(w.items())[1:])),
    "a tensor too many": lambda c: rewrite(c, "unet", lambda w: w | {"more": torch.zeros(3)}),
    "a tensor of another shape": lambda c: rewrite(c, "text_encoder", lambda w: w | {next(iter(w)): torch.zeros(3)}),
    "an empty file": lambda c: weights_of(c, "unet").write_bytes(b""),
    "half a file": lambda c: weights_of(c, "vae").write_bytes(weights_of(c, "vae").read_bytes()[:5000]),
    "a pointer": lambda c: weights_of(c, "unet").write_text("version https://git-lfs.github.com/spec/v1\n"),
    "a page": lambda c: weights_of(c, "text_encoder").write_text("<!DOCTYPE html><html>"),
    "no vocabulary": lambda c: without_files(c, "tokenizer", *WORDS),
    "no tokenizer": lambda c: shutil.rmtree(c / "tokenizer"),
    "no merges": lambda c: without_files(c, "tokenizer", "tokenizer.json", "merges.txt"),
    "no length": lambda c: without_files(c, "tokenizer", "tokenizer_config.json"),
    "another vocabulary": lambda c: (
        tiny_sd.train_tokenizer(["a few words"], c / "tokenizer") and (c / "tokenizer" / "tokenizer.json").unlink()
    ),
    "a configuration that is none": lambda c: (c / "unet" / "config.json").write_text("{"),
    "no configuration": lambda c: without_files(c, "text_encoder", "config.json"),
}


@pytest.mark.parametrize("what", NOT_WHOLE)
def test_a_folder_that_is_not_whole_draws_nothing(what, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "model")
    NOT_WHOLE[what](tmp_path / "model")
    with pytest.raises(AimfairError, match="cannot load the text-to-image model") as caught:
        load_pipeline(tmp_path / "model")
    assert "\n" not in str(caught.value)


def test_the_fingerprint_changes_with_all_that_is_drawn_from(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "model")
    copy, seen = tmp_path / "model", {pipelines.fingerprint(folder)}
    assert pipelines.fingerprint(copy) in seen
    (copy / "README.md").write_text("about it")
    assert pipelines.fingerprint(copy) in seen
    for name in ("tokenizer/vocab.json", "scheduler/scheduler_config.json", "unet/config.json", "model_index.json"):
        (copy / name).write_text((copy / name).read_text() + " ")
        assert pipelines.fingerprint(copy) not in seen
        seen.add(pipelines.fingerprint(copy))


@pytest.mark.parametrize("name", ["{}.fp16.safetensors", "{}.fp16-00001-of-00001.safetensors"])
def test_weights_under_a_variant_are_loaded(name, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "model")
    for part in ("unet", "text_encoder"):
        file = weights_of(tmp_path / "model", part)
        renamed = file.rename(file.with_name(name.format(file.stem)))
        if "-of-" in name:
            index = {"metadata": {}, "weight_map": dict.fromkeys(load_file(renamed), renamed.name)}
            renamed.with_name(f"{file.stem}.safetensors.index.fp16.json").write_text(json.dumps(index))
    ours, theirs = load_pipeline(tmp_path / "model"), load_pipeline(folder)
    for part in ("unet", "text_encoder", "vae"):
        both = (getattr(p, part).state_dict() for p in (ours, theirs))
        assert all(torch.equal(a, b) for a, b in zip(*(weights.values() for weights in both), strict=True))


def test_other_forms_of_a_model_are_told_how_to_be_converted(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"x")
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "pytorch_lora_weights.safetensors").write_bytes(b"x")
    for name, says in (("model.safetensors", "from_single_file"), ("lora", "fuse_lora")):
        with pytest.raises(AimfairError, match=says):
            load_pipeline(tmp_path / name)


def test_a_hub_model_is_named_with_the_commit_that_was_loaded(folder, tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    store = tmp_path / "models--some--model"
    shutil.copytree(folder, store / "snapshots" / commit)
    (store / "refs").mkdir()
    (store / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    for library in (transformers.utils.hub, diffusers.configuration_utils, diffusers.models.modeling_utils):
        for name in {"HF_HUB_CACHE", "TRANSFORMERS_CACHE"} & set(vars(library)):
            monkeypatch.setattr(library, name, str(tmp_path))
    assert load_pipeline("some/model", local_files_only=True).source == ("some/model", commit)
    assert [pipelines.at_hand(name) for name in ("some/model", "some/other", "nowhere", str(folder))] == [1, 0, 0, 1]
    (store / "refs" / "main").write_text("f" * 40)  # it has moved on, which a preset of the older commit does not mind
    pinned = Preset("some/model", revision=commit)
    assert load_pipeline(pinned, local_files_only=True).source == ("some/model", commit)


def test_a_pipeline_of_another_make_and_one_that_does_not_take_an_argument_are_refused(folder, tmp_path):
    for absent in ("unet", "vae"):
        pipeline = load_pipeline(folder)
        setattr(pipeline, absent, None)
        with pytest.raises(AimfairError, match="StableDiffusionPipeline cannot be used here: a generator has one"):
            pipelines.set_up(pipeline, Compute())
    pipeline = load_pipeline(folder)
    pipeline.preset = Preset(str(folder), guidance_argument="true_cfg_scale")
    with pytest.raises(AimfairError, match="StableDiffusionPipeline takes no true_cfg_scale"):
        generate(pipeline, jobs(BANK, 1, PAIR), tmp_path, **SETTINGS)


# What is in force


def test_a_setting_without_effect_is_told_and_not_recorded(folder, tmp_path):
    pipeline, todo = load_pipeline(folder), jobs(BANK, 1, PAIR)[:1]
    pipeline.preset = replace(pipeline.preset, negative_prompt="blurred")
    for guidance, recorded, negative in ((3.0, 3.0, "blurred"), (1.0, 1.0, ""), (0.0, 0.0, "")):
        generate(pipeline, todo, tmp_path / str(guidance), **(SETTINGS | {"guidance": guidance}))
        told = read_settings(tmp_path / str(guidance))
        assert (told["guidance"], told["negative_prompt"]) == (recorded, negative)
    tiny_pipelines.saved(tiny_pipelines.flux2_klein(tmp_path), tmp_path / "distilled")
    distilled = load_pipeline(tmp_path / "distilled")
    distilled.preset = replace(distilled.preset, size=32)
    with pytest.warns(UserWarning, match="reads no guidance: 3 has no effect"):
        generate(distilled, todo, tmp_path / "out", **SETTINGS)
    assert read_settings(tmp_path / "out")["guidance"] is None
    assert settings_of(distilled, 2, 1.0, 16)["guidance"] == 1.0


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"guidance": -1}, "guidance"),
        ({"guidance": float("nan")}, "guidance"),
        ({"steps": 0}, "steps"),
        ({"size": 0}, "size"),
    ],
)
def test_impossible_settings_are_refused(wrong, says, folder, tmp_path):
    with pytest.raises(AimfairError, match=f"{says} must be at least"):
        generate(load_pipeline(folder), jobs(BANK, 1, PAIR), tmp_path, **(SETTINGS | wrong))
    with pytest.raises(AimfairError, match="guidance|generator_minutes"):
        profiles.load("smoke", **({"guidance": -0.5} if says == "guidance" else {"generator_minutes": -1}))


# How a pipeline computes


def test_what_is_chosen_for_a_processor_and_a_gpu():
    assert choose(Compute(), "cpu", unet=True) == Compute("float32", batch_size=32)
    assert choose(Compute(), "cuda", unet=True, side=512) == Compute("float16", batch_size=64)
    assert choose(Compute(), "cuda:1", unet=False, side=1024) == Compute("bfloat16", batch_size=16)
    assert choose(Compute(), "cuda", unet=False, side=8192).batch_size == 1
    assert choose(Compute("float32", 5, True), "cuda", unet=True) == Compute("float32", 5, True)


def test_what_is_asked_for_is_done(folder):
    pipeline = load_pipeline(folder, compute=Compute(dtype="bfloat16", batch_size=7))
    assert pipeline.dtype == torch.bfloat16 and pipeline.compute.batch_size == 7
    assert load_pipeline(folder).compute == choose(Compute(), "cpu", unet=True)
    for wrong in ({"dtype": "float8"}, {"batch_size": 0}):
        with pytest.raises(AimfairError, match=r"dtype is one of|at least one image"):
            Compute(**wrong)


def test_parts_that_wait_for_their_turn_draw_the_same_images(folder, tmp_path):
    todo = jobs(BANK, 2, PAIR)
    with pytest.raises(AimfairError, match="--offload has the parts .* leave it out"):
        load_pipeline(folder, compute=Compute(offload=True))
    offloaded = pipelines.place(load_pipeline(folder), "cpu", offload=True)  # as on a GPU
    assert offloaded._all_hooks and hasattr(offloaded.unet, "_hf_hook")
    for name, pipeline in (("usual", load_pipeline(folder)), ("offloaded", offloaded)):
        generate(pipeline, todo, tmp_path / name, **SETTINGS)
    assert alike(tmp_path / "usual", tmp_path / "offloaded")
    offloaded.model_cpu_offload_seq = None
    with pytest.raises(AimfairError, match="model cannot be used with --offload: .*model_cpu_offload_seq"):
        pipelines.place(offloaded, "cpu", offload=True)


# Families of pipelines, in small

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
    pipeline = load_pipeline(out / "model")
    preset = presets.find(request.param)
    assert type(pipeline).__name__ == preset.pipeline
    own = {"use_resolution_binning": False} if preset.pipeline == "PRXPipeline" else preset.arguments  # 32 px is no bin
    pipeline.preset = replace(preset, model=str(out / "model"), size=32, arguments=own)
    return preset, pipeline


def uneven_jobs():
    """Prompts of very different lengths, next to each other."""
    more = "with wavy black hair, eyeglasses, and head turned slightly left"
    todo = jobs(BANK, 2, PAIR)
    return [replace(job, prompt=f"{job.prompt} {more}") if i % 2 else job for i, job in enumerate(todo)]


def drawn(pipeline, todo, out, batch_size):
    generate(pipeline, todo, out, steps=2, guidance=3.0, size=32, batch_size=batch_size)
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
    limited = pipeline.preset
    one = drawn(pipeline, uneven_jobs(), tmp_path / "1", 1)
    pipeline.preset = replace(limited, largest_batch=None)
    try:
        if preset.pipeline == "PRXPipeline":
            assert preset.largest_batch == 1
            with pytest.raises(RuntimeError, match="size of tensor"):
                drawn(pipeline, uneven_jobs(), tmp_path / "8", 8)
            return
        eight = drawn(pipeline, uneven_jobs(), tmp_path / "8", 8)
        other = drawn(pipeline, [replace(job, prompt="Photo of a cat") for job in uneven_jobs()], tmp_path / "cat", 8)
    finally:
        pipeline.preset = limited
    assert len(one) == 8 and difference(one, other) > 10  # the prompts do show
    if preset.pipeline == "CogView4Pipeline":
        assert difference(one, eight) > 10 and preset.largest_batch == 1
    else:
        assert difference(one, eight) <= 1 and preset.largest_batch is None
    told = read_settings(tmp_path / "8")
    assert (told["drawn"], told["scheduler"]) == ("32", type(pipeline.scheduler).__name__)


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
    monkeypatch.setattr(
        pipeline, "preset", replace(pipeline.preset, size=16, arguments=pipeline.preset.arguments | more)
    )
    todo = uneven_jobs()[:3]
    with nullcontext() if preset.largest_batch is None else pytest.warns(UserWarning, match="draws 1 at a time, not 3"):
        drawn(pipeline, todo, tmp_path, 3)
    assert len(given) == (3 if preset.largest_batch else 1)
    for asked in given:
        assert {name: asked[name] for name in more} == more
        assert (asked["height"], asked["width"], asked["num_inference_steps"]) == (16, 16, 2)
        assert asked[preset.guidance_argument] == 3.0
    assert [prompt for asked in given for prompt in asked["prompt"]] == [job.prompt for job in todo]
    assert [noise.initial_seed() for asked in given for noise in asked["generator"]] == [job.seed for job in todo]


def test_a_model_without_a_preset_is_asked_as_its_kin(family, tmp_path):
    """A fine-tuned Qwen-Image, for one, must not be asked for a guidance that its pipeline takes for something else."""
    preset, pipeline = family
    shutil.copytree(pipeline.preset.model, tmp_path / "own")
    own = load_pipeline(tmp_path / "own").preset
    assert own.pipeline == preset.pipeline and own.model == str(tmp_path / "own") and own.licence == ""
    assert (own.largest_batch, own.size, own.arguments) == (preset.largest_batch, None, {})
    qwen = presets.completed(Preset("someone/qwen"), "QwenImagePipeline")
    assert (qwen.guidance_argument, qwen.negative_prompt, qwen.gigabytes) == ("true_cfg_scale", " ", 0)
    assert presets.completed(Preset("a/b"), "Else") == Preset("a/b", pipeline="Else")
    assert presets.completed(preset, "QwenImagePipeline") == preset
