"""The cost of a pool before it is drawn, and the measurement of Stable Diffusion in full size."""

from dataclasses import replace

import pytest
import torch
from tiny_pipelines import stable_diffusion

from aimfair import cli, environment
from aimfair.environment import AimfairError
from aimfair.generate import diffusion, presets
from aimfair.generate.drawing import architecture, bench_generation, forecast
from aimfair.generate.drawing.pipelines import Compute
from aimfair.study import profiles, synthetic
from aimfair.study.grid import costs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return stable_diffusion(tmp_path_factory.mktemp("model"))


def test_a_model_at_hand_is_timed_and_what_is_there_is_counted(folder, tmp_path):
    profile = profiles.load("smoke", generator=str(folder), images_per_group=5, image_size=16, steps=6)
    pool = tmp_path / "not" / "there"
    empty = forecast.forecast(profile, pool, "cpu")
    assert (empty.images, empty.there, empty.missing, empty.processes) == (20, 0, 20, 1)
    assert empty.basis.startswith("measured here: ") and "2 and 4 of 6 steps" in empty.basis
    assert 0 < empty.seconds < 3600 and empty.training == 0 and empty.where == environment.device_name("cpu")
    assert empty.fetch == 0 and empty.free > 0 and not (tmp_path / "not").exists()
    assert empty.gigabytes == pytest.approx(20 * 1.6 * 16**2 / 1e9)
    synthetic.generate(replace(profile, images_per_group=2), pool, "cpu", "")
    some = forecast.forecast(profile, pool, "cpu")
    sizes = [path.stat().st_size for path in pool.rglob("*.png")]
    assert (some.there, some.missing) == (8, 12)
    assert some.gigabytes == pytest.approx(12 * sum(sizes) / len(sizes) / 1e9)
    synthetic.generate(profile, pool, "cpu", "")
    done = forecast.forecast(profile, pool, "cpu")
    assert (done.missing, done.seconds, done.gigabytes, done.basis) == (0, 0, 0, "nothing is missing")
    short = forecast.forecast(replace(profile, steps=2), tmp_path / "other", "cpu")
    assert short.basis.endswith("all 2 steps")
    with pytest.raises(AimfairError, match=r"00000\.png was made with steps 6, not 2: choose another folder"):
        forecast.forecast(replace(profile, steps=2), pool, "cpu")


@pytest.mark.parametrize(("patience", "said"), [(0.0, "1 image at"), (1e6, "5 images at")])
def test_on_a_processor_as_many_images_are_timed_as_can_be_waited_for(folder, tmp_path, monkeypatch, patience, said):
    monkeypatch.setattr(forecast, "PATIENCE", patience)
    profile = profiles.load("smoke", generator=str(folder), images_per_group=5, image_size=16, steps=6)
    told = forecast.forecast(profile, tmp_path / "pool", "cpu", Compute(batch_size=5))
    assert said in told.basis and told.missing == 20


def test_a_model_that_is_not_here_is_reckoned(tmp_path, monkeypatch):
    monkeypatch.setattr(forecast, "matrix_rate", lambda device, dtype: 0.1)
    profile = profiles.load("smoke", generator="sd21-base", corpus="", images_per_group=5, steps=50, guidance=9.0)
    known = forecast.forecast(profile, tmp_path / "pool", "cpu", processes=3)
    assert known.seconds == pytest.approx(20 * 100 * 0.8 / 0.03) and known.fetch == 5.2 and known.processes == 3
    assert known.basis.startswith("a rule") and "80 teraflops per image" in known.basis
    monkeypatch.setattr(forecast, "gpus", lambda device: 2)
    assert forecast.forecast(profile, tmp_path / "pool", "cpu", processes=3).seconds == known.seconds / 2
    guess = forecast.forecast(replace(profile, generator="some/model"), tmp_path / "pool", "cpu")
    assert guess.basis.startswith("a guess, 4 seconds per image") and guess.where == "a GPU" and guess.seconds == 80
    assert guess.fetch is None and not (tmp_path / "pool").exists()
    untrained = replace(profile, generator="data/cache/none", corpus="faceworld", generator_minutes=30.0)
    first = forecast.forecast(untrained, tmp_path / "pool", "cpu")
    assert first.training == 1800 < first.seconds < 1810 and "not trained yet" in first.basis
    assert first.where == "two processor cores"


@pytest.mark.parametrize(
    ("generator", "corpus", "says"),
    [
        ("sdxxl", "faceworld", "no folder sdxxl, and a model on the Hugging Face hub is called owner/name"),
        ("/no/such/folder", "faceworld", "no folder /no/such/folder"),
        ("data/prompts", "faceworld", "holds no diffusers pipeline"),
        ("data/cache/none", "fairface", "set corpus_root to the folder that holds fairface"),
        ("data/cache/none", "celeba", "give the folder that holds celeba, with --data"),
        ("folder:some/where", "faceworld", "were made elsewhere, and no more can be drawn: name a text-to-image model"),
    ],
)
def test_what_drawing_would_refuse_its_forecast_refuses_in_the_same_words(generator, corpus, says, tmp_path, capsys):
    profile = "celeba-smiling-male" if corpus == "celeba" else "smoke"
    few = ["-p", "images_per_group=1", "-p", f"generator={generator}", "-p", f"corpus={corpus}", "--device", "cpu"]
    said = []
    for more in ([], ["--dry-run"]):
        assert cli.main(["generate", "--profile", profile, "--out", str(tmp_path / "pool"), *few, *more]) == 2
        said.append(capsys.readouterr().err)
    assert said[0] == said[1] and says in said[0] and said[0].count("\n") == 1
    assert not (tmp_path / "pool").exists()


def test_estimates_are_told_in_the_unit_that_fits():
    seconds = (0.1, 1, 8, 89, 91, 3600, 3600 * 1.52, 3600 * 30, 86400 * 12, 17_000 * 3600, 1e9)
    told = ["less than a second", "1 second", "8 seconds", "89 seconds", "2 minutes", "60 minutes", "1.5 hours"]
    assert [costs.in_time(s) for s in seconds] == [*told, "30 hours", "12 days", "1.9 years", "32 years"]
    assert [costs.in_space(g) for g in (4e-6, 0.0032, 0.064, 6.4, 120)] == [
        "4.0 kB", "3.2 MB", "64 MB", "6.4 GB", "120 GB",
    ]  # fmt: skip


def test_the_command_tells_the_cost_draws_and_lists_models(folder, tmp_path, capsys):
    few = ["-p", "images_per_group=2", "-p", "image_size=16", "-p", "steps=2", "--device", "cpu"]
    generate = ["generate", "--profile", "smoke", "--model", str(folder), "--out", str(tmp_path / "pool"), *few]
    assert cli.main([*generate, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "8 images by" in said and "0 are there, 8 to draw: 2 steps each" in said and "measured here" in said
    assert "prompts contextual, kept at 16 px" in said and "About " in said and "e-0" not in said
    assert cli.main([*generate, "--batch-size", "3", "--processes", "1"]) == 0
    assert "8 images in" in capsys.readouterr().out and len(diffusion.read_manifest(tmp_path / "pool")) == 8
    assert cli.main([*generate, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "8 are there, 0 to draw" in said and "About" not in said
    assert cli.main(["generate", "--list-models"]) == 0
    said = capsys.readouterr().out
    assert all(f"{name} " in said and presets.find(name).licence in said for name in presets.available())
    assert cli.main([*generate, "--dtype", "float8"]) == 2 and "dtype is one of" in capsys.readouterr().err


def test_the_cost_tells_of_a_training_of_a_download_and_of_a_disk_that_is_too_small(tmp_path, monkeypatch, capsys):
    known = forecast.Forecast(8, 2, 2, 7200.0, 1800.0, "a GPU", 3.0, "a guess", 2.6, 5.0)
    always = (
        "2 are there, 6 to draw",
        "About 2 hours on a GPU (2 processes) and 3.0 GB of 5 GB free",
        "30 minutes of it train the generator on faceworld first",
    )
    for found, more, fits in (
        (known, "are fetched first: about 2.6 GB", False),
        (replace(known, fetch=None), "are fetched first: their size is not known", True),
    ):
        monkeypatch.setattr(forecast, "forecast", lambda *_, found=found: found)
        assert cli.main(["generate", "--profile", "smoke", "--dry-run", "--out", str(tmp_path), "--device", "cpu"]) == 0
        said = capsys.readouterr().out
        assert all(line in said for line in (*always, more)) and ("The disk is too small" in said) is not fits


def test_a_large_model_says_at_what_size_it_draws_and_what_is_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(forecast, "matrix_rate", lambda device, dtype: 0.1)
    assert (
        cli.main(["generate", "--model", "sdxl", "--dry-run", "--out", str(tmp_path / "pool"), "--device", "cpu"]) == 0
    )
    said = capsys.readouterr().out
    assert "by sdxl" in said and "30 steps each, guidance 5," in said and "drawn at 1024 px, kept at 64 px" in said
    assert "About 3 years on CPU" in said and "The time is a rule" in said


def test_options_that_would_do_nothing_and_files_in_place_of_folders_are_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    for given, says in (
        (["--seed", "3"], "--seed: only with --audit; another set of images is --draw 1"),
        (["--runs", "x", "--no-training"], "--no-training and --runs: only with --audit"),
        (["--out", str(tmp_path / "file")], f"--out {tmp_path / 'file'} is a file: name a folder"),
        (["--draw", "-1"], "draw must be 0 or more, got -1"),
        (["--offload", "--out", str(tmp_path / "pool")], "--offload has the parts of a model wait"),
    ):
        assert cli.main(["generate", "--profile", "smoke", "--device", "cpu", *given]) == 2
        assert says in capsys.readouterr().err


def test_the_architecture_is_that_of_stable_diffusion_2_1_base():
    from diffusers import AutoencoderKL

    with torch.device("meta"):
        unet, vae = architecture.unet(architecture.SD21_BASE), AutoencoderKL(**architecture.SD21_BASE.vae)
    assert sum(p.numel() for p in unet.parameters()) == 865_910_724
    assert sum(p.numel() for p in vae.parameters()) == 83_653_863
    counted = architecture.teraflops(architecture.SD21_BASE)
    assert presets.find("sd21-base").work() == pytest.approx(counted, rel=0.02)


def test_the_measurement_runs_in_small_and_refuses_to_pretend():
    rows = list(bench_generation.measure("cpu", tiny=True, compiled=False, rounds=1))
    assert [unit for _, _, unit in rows] == ["images/s", "x"] * len(bench_generation.SMALL) + ["TFLOP/s", "%"]
    assert rows[1][1] == 1.0 and all(value > 0 for _, value, _ in rows)
    assert rows[0][0] == "the same in tiny, DDIM 5 steps, 2 at a time" and "DPM-Solver++ 2 steps" in rows[2][0]
    with pytest.raises(AimfairError, match="is measured on a GPU, and the device is cpu"):
        list(bench_generation.measure("cpu"))
