"""A tiny Stable Diffusion: what comes out of the training is a pipeline that diffusers loads."""

import json
from pathlib import Path

import pytest
import torch

from aimfair import cli
from aimfair.environment import AimfairError
from aimfair.generate import tiny_sd
from aimfair.generate.corpora import Corpus
from aimfair.generate.tiny_sd import autoencoder, stage
from aimfair.generate.tiny_sd.stage import train_stage

CAPTIONS = [f"Portrait face photo of a {'smiling' if i % 2 else 'serious'} young female." for i in range(24)]
LABELS, EVEN = torch.arange(24).view(-1, 1) % 2, torch.ones(1, 1, 32, 32)


def corpus(n: int = 24, size: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, size, size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def trained(out: Path) -> Path:
    options = {"focus": EVEN, "labels": LABELS, "steps": (3, 3), "batch_size": 8}
    return tiny_sd.train(corpus(), CAPTIONS, out, about="random colours", **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return trained(tmp_path_factory.mktemp("tiny") / "pipeline")


def test_the_folder_is_a_stable_diffusion_pipeline_in_half_precision_and_says_how_it_was_trained(folder):
    from diffusers import StableDiffusionPipeline
    from safetensors.torch import load_file

    weights = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    assert {pipeline.unet.dtype, pipeline.vae.dtype, pipeline.text_encoder.dtype} == {torch.float32}
    assert pipeline.unet.config.cross_attention_dim == 128
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(CAPTIONS[:2], num_inference_steps=2, guidance_scale=3.0, output_type="np").images
    assert images.shape == (2, 32, 32, 3) and images.std() > 0
    assert sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) < 20e6
    assert not list(folder.rglob("*.bin")) and not list(folder.rglob("*.pt"))
    record = json.loads((folder / "training.json").read_text())
    assert record["about"] == "random colours" and record["images"] == 24 and record["seed"] == 0
    assert record["autoencoder"]["step"] == 3 and record["unet"]["step"] == 3
    assert not folder.with_name("pipeline.partial").exists()


def test_steps_give_the_same_weights_again(folder, tmp_path):
    again = trained(tmp_path / "again")
    for file in folder.rglob("*.safetensors"):
        assert file.read_bytes() == (again / file.relative_to(folder)).read_bytes()


def test_one_command_takes_as_many_steps_as_a_training_record_says(tmp_path, monkeypatch, capsys):
    few = Corpus(corpus(), CAPTIONS, EVEN, LABELS, ("Smiling",))
    monkeypatch.setattr("aimfair.study.pool.load_corpus", lambda profile, data_root="": few)
    command = ["train-sd", "--profile", "smoke", "--out", str(tmp_path / "made")]
    for wrong in (["--steps", "0", "2"], ["--steps", "2", "2", "--minutes", "1"]):
        assert cli.main(command + wrong) == 2 and "--steps takes two numbers" in capsys.readouterr().err
    assert cli.main([*command, "--steps", "2", "1"]) == 0
    record = json.loads((tmp_path / "made" / "training.json").read_text())
    assert (record["autoencoder"]["step"], record["unet"]["step"]) == (2, 1) and record["minutes"] is None


def test_the_tokenizer_reads_any_text(tmp_path):
    tokenizer = tiny_sd.train_tokenizer(CAPTIONS, tmp_path)
    ids = tokenizer(CAPTIONS[0])["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True).replace(" .", ".") == CAPTIONS[0].lower()
    assert len(ids) < 15  # each word of the corpus is about one token
    stranger = tokenizer("A zebra's naïve 7-headed 猫")["input_ids"]
    assert tokenizer.eos_token_id not in stranger[1:-1] and stranger[-1] == tokenizer.eos_token_id
    long = tokenizer(" ".join(CAPTIONS), truncation=True, max_length=tiny_sd.CONTEXT)["input_ids"]
    assert tokenizer.model_max_length == len(long) == tiny_sd.CONTEXT and long[-1] == tokenizer.eos_token_id


def test_latents_are_standardised_and_the_image_is_not_changed_by_it():
    images, vae = corpus(16), autoencoder.build(32)
    before = autoencoder.reconstruct(vae, images)
    autoencoder.standardise(vae, images)
    mean, std = autoencoder.encode(vae, images)
    drawn = torch.cat([mean + std * torch.randn(mean.shape) for _ in range(8)]).float()
    assert drawn.mean((0, 2, 3)).abs().max() < 0.1 and (drawn.std((0, 2, 3)) - 1).abs().max() < 0.1
    after = autoencoder.reconstruct(vae, images, batch_size=3)
    assert after.shape == images.shape and (before.int() - after.int()).abs().max() <= 1


def test_the_autoencoder_learns_best_where_the_focus_is(tmp_path):
    images, focus = corpus(8), EVEN.clone()
    focus[..., 16:] = 50.0
    wrong = []
    for name, weights in (("plain", None), ("focused", focus)):
        vae, _ = autoencoder.train(images, weights, folder=tmp_path / name, steps=20, batch_size=8)
        wrong.append((autoencoder.reconstruct(vae, images)[..., 16:].float() - images[..., 16:]).abs().mean())
    assert wrong[1] < wrong[0]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"captions": CAPTIONS[:3]}, "24 images but 3 captions"),
        ({"images": corpus(size=36)}, "squares of 8n"),
        ({"out": Path(__file__)}, "exists"),
    ],
)
def test_what_cannot_be_trained_is_said_at_once(changes, says, tmp_path):
    with pytest.raises(AimfairError, match=says):
        tiny_sd.train(**{"images": corpus(), "captions": CAPTIONS, "out": tmp_path / "x"} | changes)


class Killed(BaseException):
    """As a signal ends a process: nothing but the operating system handles it."""


def line(folder: Path, dies_at: int = 999) -> tuple[torch.nn.Linear, dict]:
    """A stage that is quick to train: one linear layer, 80 steps."""
    torch.manual_seed(0)
    model, data, steps = torch.nn.Linear(3, 1), torch.randn(50, 3), []

    def loss(index, generator):
        steps.append(index)
        if len(steps) > dies_at:
            raise Killed
        error = model(data[index]) - data[index].sum(1, keepdim=True)
        return (error**2).mean() + torch.rand((), generator=generator)

    return model, train_stage("line", model, loss, n=50, folder=folder, batch_size=8, lr=0.01, steps=80)


def test_a_killed_stage_goes_on_from_the_last_state_that_it_kept_and_ends_the_same(tmp_path, monkeypatch):
    whole, record = line(tmp_path / "whole")
    monkeypatch.setattr(stage, "SECONDS_BETWEEN", 0.0)
    with pytest.raises(Killed):
        line(tmp_path / "killed", dies_at=60)
    assert torch.load(tmp_path / "killed" / "line.pt", weights_only=True)["record"]["step"] == 60
    resumed, again = line(tmp_path / "killed")
    assert torch.equal(whole.weight, resumed.weight) and again["step"] == 80 and again["losses"] == record["losses"]


def test_a_loss_that_is_not_finite_ends_the_stage(tmp_path):
    model = torch.nn.Linear(1, 1)
    with pytest.raises(AimfairError, match="loss is nan at step 0"):
        train_stage(
            "bad", model, lambda *_: model.weight.sum() * torch.nan, n=8, folder=tmp_path, batch_size=4, steps=2
        )
