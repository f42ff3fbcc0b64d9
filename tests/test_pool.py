"""Pools: where they lie, what is refused to be mixed, when a generator is trained, what tells one from another, the command."""

import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image
from tiny_pipelines import pictures, stable_diffusion

from aimfair import cli, study
from aimfair.environment import AimfairError, home
from aimfair.generate import corpora, presets, tiny_sd
from aimfair.generate.manifest import jobs, read_manifest
from aimfair.generate.pipelines import fingerprint
from aimfair.study import pool, profiles

FEW = {"images_per_group": 2, "image_size": 16}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return stable_diffusion(tmp_path_factory.mktemp("model"))


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout without pools and without generators."""
    for part in ("notebooks", "data/prompts"):
        (tmp_path / "home" / part).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "home" / part).symlink_to(home() / part)
    monkeypatch.setenv("AIMFAIR_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def smoke(generator, **changes):
    return profiles.load("smoke", generator=str(generator), **FEW | changes)


def test_a_folder_that_lacks_a_group_is_no_pool(tmp_path):
    for group in ("0_0", "0_1", "1_0"):
        (tmp_path / group).mkdir()
        Image.new("RGB", (16, 16), "white").save(tmp_path / group / "0.png")
    with pytest.raises(AimfairError, match=r"has no image of some group: \[1, 1, 1, 0\] of \(0,0\) \(0,1\)"):
        pool.synthetic_faces(smoke(f"folder:{tmp_path}"))


def test_a_pool_of_other_settings_is_refused_though_every_image_is_there(model, tmp_path, capsys):
    command = ["generate", "--profile", "smoke", "--out", str(tmp_path / "pool"), "--device", "cpu"]
    command += [part for name, value in FEW.items() for part in ("-p", f"{name}={value}")]
    assert cli.main([*command, "--model", str(model)]) == 0
    before = pictures(tmp_path / "pool")
    capsys.readouterr()
    for more, says in (
        (["--model", str(model), "-p", "steps=3"], "made with steps 2, not 3"),
        (["--model", str(model), "-p", "guidance=5"], "made with guidance 4.0, not 5.0"),
        (["--model", str(model), "-p", "image_size=32"], "made with size 16, not 32"),
        (["--model", str(model), "-p", "prompts=plain"], "made with prompt"),
        (["--model", str(model), "--draw", "1"], "made with seed"),
        (["--model", "sdxl", "-p", "steps=2", "-p", "guidance=4"], "made with model 'model', not 'stabilityai/"),
        ([], "made with model 'model', not 'faceworld'"),
    ):
        for dry in ([], ["--dry-run"]):
            assert cli.main([*command, *more, *dry]) == 2
            said = capsys.readouterr().err
            assert says in said and "choose another folder, or remove it" in said
    assert pictures(tmp_path / "pool").keys() == before.keys()
    assert cli.main([*command, "--model", str(model), "-p", "images_per_group=1"]) == 0  # a part of what is there


def test_a_model_that_was_trained_again_does_not_go_on_with_the_old_ones_images(model, checkout):
    profile = smoke("data/mine", images_per_group=1)
    (checkout / "data" / "mine").symlink_to(model)
    pool.synthetic_faces(profile)
    weights = next((model / "unet").glob("*.safetensors"))
    kept = weights.read_bytes()
    try:
        weights.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
        with pytest.raises(AimfairError, match="made with revision"):
            pool.synthetic_faces(profile)
    finally:
        weights.write_bytes(kept)
    pool.synthetic_faces(profile)
    (checkout / "data" / "mine").unlink()  # what was drawn stays of use
    assert len(pool.synthetic_faces(profile)) == 4


def test_the_folder_tells_apart_what_must_not_be_mixed_and_is_shared_by_tasks():
    demo = profiles.load("demo")
    assert pool.pool_folder(demo).name == "faceworld-tiny-sd-faceworld-contextual-64-8-4"
    same = replace(demo, target="Young", images_per_group=9, train_images=80)
    assert pool.pool_folder(same) == pool.pool_folder(demo)
    changes = {"image_size": 32, "steps": 9, "guidance": 5.0, "prompts": "plain", "generator": "sdxl", "draw": 1}
    others = [replace(demo, **{name: value}) for name, value in (*changes.items(), ("dataset", "celeba"))]
    assert len({pool.pool_folder(p) for p in (demo, *others)}) == 8
    assert pool.pool_folder(replace(demo, draw=3)).name.endswith("-8-4-draw3")


def test_another_draw_has_other_seeds_in_a_folder_of_its_own_and_the_first_is_what_it_was(model, checkout):
    profile = smoke(model)
    first, second = pool.pool_jobs(profile), pool.pool_jobs(replace(profile, draw=1))
    assert first == jobs(pool.prompts.bank("faceworld/Smiling_Male"), 2, "Smiling_Male")
    assert [job.path for job in first] == [job.path for job in second]
    assert len({job.seed for job in first + second}) == 16
    ours, theirs = (pool.synthetic_faces(p).images for p in (profile, replace(profile, draw=1)))
    assert (ours != theirs).any()
    assert len(list((checkout / "data" / "synthetic").glob("*/manifest.csv"))) == 2


def test_a_draw_makes_another_run_of_what_is_given_synthetic_faces_only():
    demo, other = (study.Study(profiles.load("demo", draw=n), device="cpu") for n in (0, 1))
    assert "draw" not in demo.config("aim-fair", {}, 100)["study"]
    assert demo.config("aim-fair", {}, 100) != other.config("aim-fair", {}, 100)
    assert demo.config("erm", {}, 100) == other.config("erm", {}, 100)


# The generator


def test_only_a_generator_below_data_is_trained(checkout, model, monkeypatch, tmp_path):
    trained = []
    monkeypatch.setattr(tiny_sd, "train", lambda images, captions, out, **given: trained.append(out) or out)
    monkeypatch.setitem(corpora.CORPORA, "faceworld", lambda root, size: corpora.faceworld(root, 8, 4))
    assert pool.generator(smoke("data/cache/mine"), "cpu", "") == str(checkout / "data" / "cache" / "mine")
    assert trained == [checkout / "data" / "cache" / "mine"]
    for name in ("sdxl", "owner/name", "somewhere", "../data-of-mine", str(tmp_path / "nowhere")):
        assert pool.generator(smoke(name), "cpu", "") == name and not pool.will_be_trained(smoke(name))
    assert pool.generator(smoke(model), "cpu", "") == str(model)
    monkeypatch.chdir(model.parent)
    assert pool.generator(smoke("model"), "cpu", "") == "model"
    with pytest.raises(AimfairError, match="the images of folder:x were made elsewhere"):
        pool.generator(smoke("folder:x"), "cpu", "")
    assert len(trained) == 1 and not list(checkout.glob("somewhere*"))


def test_a_preset_brings_its_steps_and_guidance_wherever_it_is_named(tmp_path):
    options = cli.parser().parse_args(["run", "erm", "--model", "sdxl"])
    assert cli.read_parameters(options) == {"generator": "sdxl"}
    changed = profiles.load("demo", generator="sdxl")
    assert (changed.steps, changed.guidance, changed.corpus) == (30, 5.0, "faceworld")
    assert profiles.load("demo", generator="flux2-klein", steps=6).steps == 6
    (tmp_path / "mine.yaml").write_text("generator: sd21-base\nguidance: 7\n")
    mine = profiles.load(str(tmp_path / "mine.yaml"))
    assert (mine.steps, mine.guidance) == (50, 7.0)
    assert profiles.load(str(tmp_path / "mine.yaml"), generator="sdxl").guidance == 5.0  # 7 was for the other
    varied = study.Study(profiles.load("demo"), device="cpu").varied(generator="sdxl").profile
    assert varied == changed
    other = profiles.load("demo", generator="owner/name")
    assert (other.steps, other.guidance) == (8, 4.0)  # nobody knows better


def test_a_model_in_the_working_directory_is_named_in_full(model, monkeypatch):
    def named(given):
        return cli.read_parameters(cli.parser().parse_args(["run", "erm", "--model", given]))["generator"]

    monkeypatch.chdir(model.parent)
    assert named("model") == named(str(model)) == str(model) and named("sdxl") == "sdxl"
    assert named("data/tiny-sd/faceworld") == "data/tiny-sd/faceworld"  # as the profiles say it


# Identities


def test_shipped_generators_and_the_one_of_celeba_keep_the_identity_of_their_published_runs():
    known = {
        "demo": "data/tiny-sd/faceworld@55f4d613",
        "utkface": "data/tiny-sd/fairface@df7ac191",
        "celeba-smiling-male": "data/cache/tiny-sd-celeba@celeba-60",
    }
    assert {name: pool.generator_identity(profiles.load(name)) for name in known} == known


def test_other_images_are_other_runs(model, tmp_path):
    assert pool.generator_identity(smoke("sdxl")) == "sdxl@462165984030"
    assert pool.generator_identity(smoke("owner/name")) == "owner/name"
    assert pool.generator_identity(smoke("folder:nowhere")) == "folder:nowhere"
    assert pool.generator_identity(smoke(model)) == f"{model}@{fingerprint(model)}"
    made = tmp_path / "made"
    pool.draw_pool(smoke(model), made, "cpu", "")
    first = pool.generator_identity(smoke(f"folder:{made}"))
    assert first.startswith(f"folder:{made}@") and first == pool.generator_identity(smoke(f"folder:{made}"))
    (made / "Young_Male" / "0_0").mkdir(parents=True)
    (made / "Young_Male" / "0_0" / "0.png").write_bytes(b"of another task")
    assert pool.generator_identity(smoke(f"folder:{made}")) == first
    image = made / "Smiling_Male" / "1_1" / "00000.png"
    image.write_bytes(image.read_bytes() + b" ")
    assert pool.generator_identity(smoke(f"folder:{made}")) != first


# The command


@pytest.mark.parametrize(
    ("generator", "corpus", "says"),
    [
        ("sdxxl", "faceworld", "no folder sdxxl, and a model on the Hugging Face hub is called owner/name"),
        ("data/prompts", "faceworld", "holds no diffusers pipeline"),
        ("data/cache/none", "fairface", "set corpus_root to the folder that holds fairface"),
        ("data/cache/none", "celeba", "set corpus_root to the folder that holds celeba"),
        ("folder:some/where", "faceworld", "were made elsewhere, and no more can be drawn: name a text-to-image model"),
    ],
)
def test_what_drawing_would_refuse_a_dry_run_refuses_in_the_same_words(generator, corpus, says, tmp_path, capsys):
    profile = "celeba-smiling-male" if corpus == "celeba" else "smoke"
    few = ["-p", "images_per_group=1", "-p", f"generator={generator}", "-p", f"corpus={corpus}", "--device", "cpu"]
    said = []
    for more in ([], ["--dry-run"]):
        assert cli.main(["generate", "--profile", profile, "--out", str(tmp_path / "pool"), *few, *more]) == 2
        said.append(capsys.readouterr().err)
    assert said[0] == said[1] and says in said[0] and said[0].count("\n") == 1
    assert not (tmp_path / "pool").exists()


def test_the_command_tells_what_is_missing_draws_and_lists_models(model, tmp_path, monkeypatch, capsys):
    few = ["-p", "images_per_group=2", "-p", "image_size=16", "-p", "steps=2", "--device", "cpu"]
    generate = ["generate", "--profile", "smoke", "--model", str(model), "--out", str(tmp_path / "pool"), *few]
    assert cli.main([*generate, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "8 images by" in said and "0 are there, 8 to draw: 2 steps each" in said and "fetched" not in said
    assert "prompts contextual, kept at 16 px" in said and "The images take about 3.3e-06 GB of" in said
    assert not (tmp_path / "pool").exists()
    assert cli.main([*generate, "--batch-size", "3", "--processes", "1"]) == 0
    assert "8 images in" in capsys.readouterr().out and len(read_manifest(tmp_path / "pool")) == 8
    found = pool.pool_catalogue(smoke(f"folder:{tmp_path / 'pool'}")).attributes  # with its settings, for an audit
    assert {"prompt", "model", "steps", "guidance"} <= set(found) and set(found["model"]) == {"model"}
    assert cli.main([*generate, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "8 are there, 0 to draw" in said and "GB" not in said
    assert cli.main([*generate, "--dtype", "float8"]) == 2 and "dtype is one of" in capsys.readouterr().err
    assert cli.main(["generate", "--list-models"]) == 0
    said = capsys.readouterr().out
    assert all(f"{name} " in said and presets.find(name).licence in said for name in presets.available())


def test_a_dry_run_tells_of_a_training_a_download_and_a_small_disk(tmp_path, monkeypatch, capsys):
    given = ["-p", "corpus=faceworld", "-p", "generator_minutes=0.1", "--device", "cpu"]
    for generator, free, says in (
        ("sdxl", 100, "30 steps each, guidance 5, prompts contextual, drawn at 1024 px, kept at 64 px"),
        ("sdxl", 10, "The weights are fetched first: about 13.9 GB"),
        ("some/model", 100, "The weights are fetched first: their size is not known"),
        ("data/cache/none", 100, "The generator is trained on faceworld first, for 0.1 minutes"),
    ):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: shutil._ntuple_diskusage(0, 0, free * 10**9))
        command = ["generate", "--profile", "smoke", "--dry-run", "--out", str(tmp_path / "pool"), *given]
        assert cli.main([*command, "-p", f"generator={generator}"]) == 0
        said = capsys.readouterr().out
        assert says in said and ("The disk is too small" in said) is (free == 10)


def test_options_that_would_do_nothing_and_files_in_place_of_folders_are_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    for given, says in (
        (["--seed", "3"], "--seed: only with --audit; another set of images is --draw 1"),
        (["--runs", "x", "--no-training"], "--no-training and --runs: only with --audit"),
        (["--out", str(tmp_path / "file")], f"--out {tmp_path / 'file'} is a file: name a folder"),
        (["--draw", "-1"], "draw must be "),
        (["--offload", "--out", str(tmp_path / "pool")], "--offload has the parts of a model wait"),
    ):
        assert cli.main(["generate", "--profile", "smoke", "--device", "cpu", *given]) == 2
        assert says in capsys.readouterr().err


def test_the_faces_that_taught_the_generator_are_a_control(monkeypatch):
    """In their natural shares within a class, where the control does not know their groups."""
    world = corpora.faceworld("", 16, n=600)
    monkeypatch.setattr(pool, "load_corpus", lambda profile, data_root: world)
    p = profiles.load("smoke", generator="corpus", images_per_group=40, image_size=16)
    faces = pool.synthetic_faces(p)
    assert faces.counts() == (40, 40, 40, 40) and pool.generator_identity(p) == "corpus@faceworld"
    male = dict(zip(world.names, world.labels.T, strict=True))["Male"]
    places = [int(name.rpartition("-")[2]) for name in faces.names]
    assert torch.equal(faces.protected, male[places])
    blind = pool.synthetic_faces(replace(p, generator="corpus-without-groups"))
    places = [int(name.rpartition("-")[2]) for name in blind.names]
    assert blind.counts() == (40, 40, 40, 40) and not torch.equal(blind.protected, male[places])
    with pytest.raises(AimfairError, match=r"the corpus faceworld does not know White"):
        pool.synthetic_faces(replace(p, protected="White"))


def test_what_a_manifest_leaves_out_is_told_before_a_training(model, tmp_path):
    pool.draw_pool(smoke(model), tmp_path / "made", "cpu", "")
    manifest = tmp_path / "made" / "manifest.csv"
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(line for line in lines if not line.startswith("Smiling_Male/0_1/00000")))
    with pytest.warns(UserWarning, match=r"1 left out: not in manifest\.csv \(1\); the first is 0_1/00000\.png"):
        pool.synthetic_faces(smoke(f"folder:{tmp_path / 'made'}"))
