"""Presets: what each asks of diffusers exists there; how a pipeline computes is chosen for the device."""

import inspect
import re
import shutil

import diffusers
import huggingface_hub
import pytest
import torch
from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING
from tiny_pipelines import BANK, PAIR, SETTINGS, pictures, stable_diffusion

from aimfair import diffusion, presets
from aimfair.drawing import pipelines
from aimfair.drawing.pipelines import Compute, choose
from aimfair.errors import AimfairError

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


def test_a_new_file_is_a_new_model_with_its_own_settings(folder, tmp_path, monkeypatch):
    (tmp_path / "my_model.py").write_text(
        "from aimfair.presets import Preset\n"
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


def test_another_family_of_models(tmp_path):
    """A tiny Stable Diffusion XL: two text encoders, prompts that the pipeline itself encodes."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    words = stable_diffusion(tmp_path) / "tokenizer"
    tokenizer = CLIPTokenizer.from_pretrained(words)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=32,
        eos_token_id=tokenizer.eos_token_id,
    )
    unet = diffusers.UNet2DConditionModel(
        sample_size=4,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=64,
        attention_head_dim=(1, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 32,
    )
    blocks = {"block_out_channels": (32, 32), "down_block_types": ("DownEncoderBlock2D",) * 2}
    vae = diffusers.AutoencoderKL(**blocks, up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4)
    diffusers.StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(config),
        text_encoder_2=CLIPTextModelWithProjection(config),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=diffusers.EulerDiscreteScheduler(),
    ).save_pretrained(tmp_path / "xl")
    pipeline = diffusion.load_pipeline(tmp_path / "xl")
    todo = diffusion.jobs(BANK, 2, PAIR)
    for size in (1, 8):
        diffusion.generate(pipeline, todo, tmp_path / f"out{size}", batch_size=size, **SETTINGS)
    one, eight = (pictures(tmp_path / f"out{size}") for size in (1, 8))
    assert all(abs(one[name] - eight[name]).max() <= 1 for name in one)
    row = diffusion.read_manifest(tmp_path / "out8").iloc[0]
    assert (row["model"], row["scheduler"], row["drawn"]) == ("xl", "EulerDiscreteScheduler", "8")


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
