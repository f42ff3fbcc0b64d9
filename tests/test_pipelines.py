"""How a pipeline is placed, called and told: offloading, attention backends, what the manifest says of it."""

import shutil

import diffusers
import pytest
import tiny_pipelines
import torch
from tiny_pipelines import BANK, PAIR, SETTINGS, alike, stable_diffusion

from aimfair.environment import AimfairError
from aimfair.generate import diffusion, presets
from aimfair.generate.drawing import memory, pipelines
from aimfair.generate.drawing.pipelines import Compute


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return stable_diffusion(tmp_path_factory.mktemp("model"))


def test_a_network_that_takes_no_attention_backend_is_told_so(folder):
    with pytest.raises(AimfairError, match="attention 'flash' cannot be used here: the UNet2DConditionModel .* sliced"):
        diffusion.load_pipeline(folder, compute=Compute(attention="flash"))  # which diffusers would take and not use


def test_a_transformer_takes_a_backend_that_there_is_and_no_other(folder):
    pipeline = diffusion.load_pipeline(folder)
    pipeline.unet = None
    pipeline.transformer = diffusers.FluxTransformer2DModel(
        num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2, axes_dims_rope=(2, 2, 4)
    )
    try:
        pipelines.set_up(pipeline, Compute(attention="_native_math"))
        chosen = {m.processor._attention_backend for m in pipeline.transformer.modules() if hasattr(m, "processor")}
        assert {backend.value for backend in chosen} == {"_native_math"}
        with pytest.raises(AimfairError, match="attention 'no-such-thing' cannot be used here: .*must be one of"):
            pipelines.set_up(pipeline, Compute(attention="no-such-thing"))
    finally:
        pipeline.transformer.reset_attention_backend()  # diffusers keeps it for the whole process


def test_parts_that_wait_for_their_turn_draw_the_same_images(folder, tmp_path):
    todo = diffusion.jobs(BANK, 2, PAIR)
    with pytest.raises(AimfairError, match="--offload has the parts .* the device is cpu: leave it out"):
        diffusion.load_pipeline(folder, compute=Compute(offload=True))
    offloaded = pipelines.place(diffusion.load_pipeline(folder), "cpu", offload=True)  # as a GPU would be told
    assert offloaded._all_hooks and hasattr(offloaded.unet, "_hf_hook")
    for name, pipeline in (("usual", diffusion.load_pipeline(folder)), ("offloaded", offloaded)):
        diffusion.generate(pipeline, todo, tmp_path / name, **SETTINGS)
    assert alike(tmp_path / "usual", tmp_path / "offloaded")
    offloaded.model_cpu_offload_seq = None
    with pytest.raises(AimfairError, match="model cannot be used with --offload: .*model_cpu_offload_seq"):
        pipelines.place(offloaded, "cpu", offload=True)


def weights(part):
    return sum(w.numel() * w.element_size() for w in part.parameters())


def test_the_largest_part_and_other_processes_have_their_share_of_the_memory(folder, monkeypatch):
    pipeline = diffusion.load_pipeline(folder)
    largest = max(weights(part) for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder))
    gpu = torch.device("cuda:0")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (8e9, 9e9))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert memory.free_memory(pipeline, torch.device("cpu")) == 0
    assert memory.free_memory(pipeline, gpu) == 8
    assert memory.free_memory(pipeline, gpu, offload=True) == pytest.approx(8 - largest / 1e9)
    for processes, share in ((2, 8.0), (3, 4.0), (4, 4.0)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        assert memory.free_memory(pipeline, gpu) == share


def test_after_a_call_that_did_not_fit_the_autoencoder_is_as_before(tmp_path):
    """Stable Diffusion XL decodes in float32; a failure there left half of the pipeline in it, and the next call failed."""
    tiny_pipelines.stable_diffusion_xl(tmp_path).save_pretrained(tmp_path / "xl")
    pipeline = diffusion.load_pipeline(tmp_path / "xl", compute=Compute(dtype="float16"))
    todo = diffusion.jobs(BANK, 1, PAIR)
    diffusion.generate(pipeline, todo, tmp_path / "one", batch_size=2, **SETTINGS)
    full, decode = [True], pipeline.vae.decode

    def decode_once_too_much(*given, **more):
        if full.pop() if full else False:
            raise RuntimeError("CUDA error: out of memory")
        return decode(*given, **more)

    pipeline.vae.decode = decode_once_too_much
    with pytest.warns(UserWarning, match="4 images at a time do not fit"):
        diffusion.generate(pipeline, todo, tmp_path / "other", batch_size=4, **SETTINGS)
    assert pipeline.vae.dtype == torch.float16 and alike(tmp_path / "one", tmp_path / "other")


def test_after_a_call_that_did_not_fit_no_part_stays_on_the_gpu(folder, tmp_path, monkeypatch):
    pipeline = pipelines.place(diffusion.load_pipeline(folder), "cpu", offload=True)
    freed, free = [], pipeline.maybe_free_model_hooks
    monkeypatch.setattr(pipeline, "maybe_free_model_hooks", lambda: (freed.append(1), free())[1])
    assert memory.painted(pipeline, lambda batch: [torch.empty(2**55)], []) is None and freed == [1]
    assert pipeline._all_hooks


@pytest.mark.parametrize("text", ["CUDA error: out of memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"])
def test_a_full_gpu_has_many_words(text):
    assert memory.out_of_memory(RuntimeError(text)) and not memory.out_of_memory(RuntimeError("another"))


@pytest.mark.parametrize("lacking", ["unet", "vae"])
def test_a_pipeline_of_another_make_is_refused(folder, lacking):
    pipeline = diffusion.load_pipeline(folder)
    setattr(pipeline, lacking, None)
    with pytest.raises(
        AimfairError, match="StableDiffusionPipeline cannot be used here: a generator has one denoising"
    ):
        pipelines.set_up(pipeline, Compute())


def test_a_model_of_a_newer_diffusers_is_refused_in_a_line(folder, tmp_path):
    newer = shutil.copytree(folder, tmp_path / "newer")
    index = newer / "model_index.json"
    index.write_text(index.read_text().replace("UNet2DConditionModel", "UNetOfTomorrow"))
    with pytest.raises(AimfairError, match="cannot load the text-to-image model .*UNetOfTomorrow"):
        diffusion.load_pipeline(newer)


def test_the_manifest_has_what_else_the_pipeline_was_called_with(folder, tmp_path):
    pipeline = diffusion.load_pipeline(folder)
    pipeline.preset = presets.Preset(str(folder), arguments={"guidance_rescale": 0.5})
    manifest = diffusion.generate(pipeline, diffusion.jobs(BANK, 1, PAIR), tmp_path, **SETTINGS)
    assert set(diffusion.read_manifest(tmp_path)["arguments"]) == {"guidance_rescale=0.5"}
    with pytest.raises(AimfairError, match="made with arguments 'guidance_rescale=0.5', not ''"):
        diffusion.generate(diffusion.load_pipeline(folder), diffusion.jobs(BANK, 1, PAIR), tmp_path, **SETTINGS)
    older = diffusion.read_manifest(tmp_path).drop(columns="arguments")
    older.to_csv(manifest, index=False)  # which said nothing of it
    diffusion.generate(diffusion.load_pipeline(folder), diffusion.jobs(BANK, 1, PAIR), tmp_path, **SETTINGS)


def test_what_is_known_of_a_model_before_it_is_loaded_is_what_the_manifest_will_say(folder, tmp_path):
    diffusion.generate(diffusion.load_pipeline(folder), diffusion.jobs(BANK, 1, PAIR), tmp_path, **SETTINGS)
    row = diffusion.read_manifest(tmp_path).iloc[0]
    known = pipelines.expected(folder)
    assert set(known) == {"model", "revision", "negative_prompt", "arguments"}
    assert all(row[name] == value for name, value in known.items())
    assert pipelines.expected("flux1-schnell")["arguments"] == "max_sequence_length=256"
    known = pipelines.expected("sd21-base")
    assert known["scheduler"].startswith("DDIMScheduler(beta_start=0.00085, ") and known["drawn"] == "512"
    assert known["revision"] == presets.find("sd21-base").revision and "revision" not in pipelines.expected("prx-512")
