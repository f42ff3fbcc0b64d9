"""The cost of a pool before it is drawn, and the measurement of Stable Diffusion in full size."""

from dataclasses import replace

import pytest
import torch
from tiny_pipelines import stable_diffusion

from aimfair import cli, diffusion, presets, profiles, synthetic
from aimfair.drawing import architecture, bench_generation, forecast
from aimfair.errors import AimfairError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return stable_diffusion(tmp_path_factory.mktemp("model"))


def test_a_model_at_hand_is_timed_and_what_is_there_is_counted(folder, tmp_path):
    profile = profiles.load("smoke", generator=str(folder), images_per_group=5, image_size=16, steps=6)
    pool = tmp_path / "not" / "there"
    empty = forecast.forecast(profile, pool, "cpu")
    assert (empty.images, empty.there, empty.missing, empty.processes) == (20, 0, 20, 1)
    assert empty.basis.startswith("measured here: ") and "2 and 4 of 6 steps" in empty.basis
    assert 0 < empty.hours < 1 and empty.fetch == 0 and empty.free > 0 and not (tmp_path / "not").exists()
    assert empty.gigabytes == pytest.approx(20 * 1.6 * 16**2 / 1e9)
    synthetic.generate(replace(profile, images_per_group=2), pool, "cpu", "")
    some = forecast.forecast(profile, pool, "cpu")
    sizes = [path.stat().st_size for path in pool.rglob("*.png")]
    assert (some.there, some.missing) == (8, 12)
    assert some.gigabytes == pytest.approx(12 * sum(sizes) / len(sizes) / 1e9)
    synthetic.generate(profile, pool, "cpu", "")
    done = forecast.forecast(profile, pool, "cpu")
    assert (done.missing, done.hours, done.gigabytes, done.basis) == (0, 0, 0, "nothing is missing")


def test_a_model_that_is_not_here_is_reckoned(tmp_path, monkeypatch):
    monkeypatch.setattr(forecast, "matrix_rate", lambda device, dtype: 0.1)
    profile = profiles.load("smoke", generator="sd21-base", corpus="", images_per_group=5, steps=50, guidance=9.0)
    known = forecast.forecast(profile, tmp_path / "pool", "cpu", processes=3)
    assert known.hours == pytest.approx(20 * 100 * 0.8 / 0.03 / 3600) and known.fetch == 2.6 and known.processes == 3
    assert known.basis.startswith("a rule") and "80 teraflops per image" in known.basis
    guess = forecast.forecast(replace(profile, generator="some/model"), tmp_path / "pool", "cpu")
    assert guess.basis.startswith("a guess") and guess.fetch is None and not (tmp_path / "pool").exists()
    trained = replace(profile, generator="data/cache/none", corpus="faceworld", generator_minutes=30.0)
    assert 0.5 < forecast.forecast(trained, tmp_path / "pool", "cpu").hours < 0.51


def test_the_command_tells_the_cost_draws_and_lists_models(folder, tmp_path, capsys):
    few = ["-p", "images_per_group=2", "-p", "image_size=16", "-p", "steps=2", "--device", "cpu"]
    generate = ["generate", "--profile", "smoke", "--model", str(folder), "--out", str(tmp_path / "pool"), *few]
    assert cli.main([*generate, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "8 images by" in said and "0 are there, 8 to draw: 2 steps each" in said and "measured here" in said
    assert cli.main([*generate, "--batch-size", "3", "--processes", "1"]) == 0
    assert "8 images in" in capsys.readouterr().out and len(diffusion.read_manifest(tmp_path / "pool")) == 8
    assert cli.main([*generate, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "8 are there, 0 to draw" in said and "hours" not in said
    assert cli.main(["generate", "--list-models"]) == 0
    said = capsys.readouterr().out
    assert all(f"{name} " in said and presets.find(name).licence in said for name in presets.available())
    assert cli.main([*generate, "--dtype", "float8"]) == 2 and "dtype is one of" in capsys.readouterr().err


def test_a_short_name_brings_its_own_steps_unless_they_are_given():
    options = cli.parser().parse_args(["generate", "--model", "flux2-klein", "-p", "steps=6"])
    from aimfair.commands.generate import changes

    assert changes(options) == {"generator": "flux2-klein", "corpus": "", "guidance": 1.0}
    options = cli.parser().parse_args(["generate", "--model", "owner/name"])
    assert changes(options) == {"generator": "owner/name", "corpus": ""}


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
