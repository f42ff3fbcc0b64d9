"""The audit of a synthetic set: what was planted in it is found, in numbers, pictures and words; for folders made anywhere."""

import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from small_grid import SMALL, draw_pool
from test_tiny_sd import CAPTIONS
from toys import toy_faces

from aimfair import cli, prompts, study
from aimfair.audit import clip_judge, datasheet, judges, nuisances, pool_audit
from aimfair.audit import judge as audit
from aimfair.commands import audit as audit_command
from aimfair.environment import AimfairError, home
from aimfair.faces import FaceSet
from aimfair.generate import tiny_sd
from aimfair.metrics import published_report
from aimfair.prompts import grammar
from aimfair.study import profiles

NAMES = {"target": "Bar", "protected": "Red"}


@pytest.fixture(scope="module")
def judge():
    faces = toy_faces((150,) * 4, 9)
    labels = torch.stack([faces.target, faces.protected], 1)
    return audit.train_judge(faces.images, labels, ("Bar", "Red"), epochs=5, batch_size=32, seed=1)


@pytest.fixture(scope="module")
def faces():
    """Forty faces of each group, group after group: a quarter of (1, 0) has no bar, one comes twice."""
    toys = toy_faces((40, 40, 50, 40), 1)
    order = np.concatenate([np.flatnonzero(toys.groups.numpy() == g) for g in (0, 1, 2, 3)])
    toys = toys.subset(order)  # groups begin at 0, 40, 80, 130
    images = toys.images.clone()
    images[80:90] = images[:10]  # drawn without a bar
    images[45] = images[44]
    kept = np.r_[0:80, 80:120, 130:170]
    return FaceSet(images, toys.target, toys.protected, toys.names).subset(kept)


def only(found, what, group):
    table = found.table
    return table[(table["set"] == what) & (table["group"] == group)].iloc[0]


def test_what_was_planted_is_found(judge, faces):
    real = toy_faces((60, 60, 60, 30), 5)
    train = torch.cat([toy_faces((5,) * 4, 6).images, faces.images[150:152]])
    said = [{"a hat"} if i < 20 else {"a hat", "glasses"} if i < 40 else set() for i in range(160)]
    found = pool_audit.examine(
        faces, judge, NAMES, real, train=train, said=said, trained=published_report([90, 80, 70, 60])
    )
    assert found.table["set"].tolist() == ["synthetic"] * 5 + ["real"] * 5
    assert [only(found, "synthetic", g)["faces"] for g in ("0_0", "0_1", "1_0", "1_1", "all")] == [40] * 4 + [160]
    assert only(found, "synthetic", "1_0")["Bar"] == pytest.approx(75, abs=6)
    assert only(found, "synthetic", "0_1")["Bar"] > 90 and only(found, "real", "all")["both"] > 90
    assert found.wrong[80:90, 0].all() and not found.wrong[90:120].any(1).mean() > 0.1
    # The ten without a bar are copies of ten of group (0, 0), one of (0, 1) is there twice.
    assert [only(found, "synthetic", g)["duplicates"] for g in ("0_0", "0_1", "1_0", "1_1", "all")] == [
        10,
        2,
        10,
        0,
        22,
    ]
    assert only(found, "synthetic", "1_1")["copies"] == 2 == only(found, "synthetic", "all")["copies"]
    assert set(found.duplicates["of"]) == {"each other", "real"} and len(found.duplicates) == 13
    assert only(found, "synthetic", "0_0")["said gap"] == 100  # a hat: 40 of 40 against none
    assert only(found, "synthetic", "0_1")["said gap"] == 0
    assert only(found, "synthetic", "1_1")["compared"] == 15 and only(found, "real", "all")["compared"] == 60
    assert only(found, "synthetic", "all")["trained"] == 75 and only(found, "synthetic", "1_1")["trained"] == 60
    for group in ("0_0", "0_1", "1_1"):  # drawn as the real ones are: as far as two real halves, give or take
        assert only(found, "synthetic", group)["frechet"] < 4 * only(found, "real", group)["frechet"]
    dark = FaceSet((faces.images // 2), faces.target, faces.protected, faces.names)
    far = pool_audit.examine(dark, judge, NAMES, real)
    assert only(far, "synthetic", "all")["frechet"] > 4 * only(found, "synthetic", "all")["frechet"]
    assert "copies" not in far.table and "trained" not in far.table and "said gap" not in far.table


def test_without_real_faces_the_rest_is_told(judge, faces):
    found = pool_audit.examine(faces, judge, NAMES)
    assert found.table["set"].unique().tolist() == ["synthetic"] and "frechet" not in found.table
    assert only(found, "synthetic", "all")["compared"] == 160 and only(found, "synthetic", "0_0")["vendi"] >= 1
    assert any("no real faces" in line for line in datasheet.caveats(found))


def test_the_datasheet_says_what_was_found_and_the_sheet_marks_it(judge, faces, tmp_path):
    found = pool_audit.examine(faces, judge, NAMES, toy_faces((60,) * 4, 5), train=faces.images[:1])
    found.about.update(target="Bar", protected="Red", made={"model": ["toy"], "steps": ["8"]}, skipped=["x.gif: why"])
    written = datasheet.write(found, faces, tmp_path / "out")
    assert sorted(p.name for p in written) == sorted(p.name for p in (tmp_path / "out").iterdir())
    page = (tmp_path / "out" / "datasheet.md").read_text()
    for part in (
        "- model: toy", "In group 1_0 the judge sees Bar as asked for in 7", "have a near-duplicate", "x.gif: why",
        "all but the same as a face of the real training set", "| real | all |", "read the distance only beside",
    ):  # fmt: skip
        assert part in page, part
    assert len(pd.read_csv(tmp_path / "out" / "audit.csv")) == 10
    clean = faces.subset(np.flatnonzero(~found.wrong.any(1)))
    assert "In group" not in "".join(datasheet.caveats(pool_audit.examine(clean, judge, NAMES)))
    with pytest.raises(AimfairError, match="cannot write to .* name another folder with --out"):
        datasheet.write(found, faces, tmp_path / "out" / "audit.csv")


def test_a_few_faces_raise_no_alarm_where_nothing_differs(judge):
    """Twelve faces per group whose looks have nothing to do with their labels: gaps are wide, and no more than chance."""
    hats = [{"a hat"} if i % 5 == 0 else set() for i in range(48)]
    for seed in range(20, 27):
        toys = toy_faces((12,) * 4, seed)
        other = toys.subset(np.random.default_rng(seed).permutation(48))
        mixed = FaceSet(toys.images, other.target, other.protected, toys.names)
        told = "".join(datasheet.caveats(pool_audit.examine(mixed, judge, NAMES, said=hats)))
        assert "Unevenly spread" not in told and "could be chance, with so few faces" in told
    hats = [{"a hat"} if group > 1 else set() for group in toys.groups.tolist()]
    told = "".join(datasheet.caveats(pool_audit.examine(toys, judge, NAMES, said=hats)))
    assert "Unevenly spread over the target (said): a hat. A classifier can learn these instead." in told


def test_what_chance_may_do_shrinks_with_the_number_of_faces():
    few, many = toy_faces((12,) * 4, 3), toy_faces((300,) * 4, 3)
    rng = np.random.default_rng(0)
    for faces, bound in ((few, 60), (many, 12)):
        draws = [{"Hat": torch.from_numpy(rng.random(len(faces)) < 0.3)} for _ in range(20)]
        tables = [nuisances.balance(faces, seen=seen).set_index("nuisance").loc["Hat"] for seen in draws]
        assert sum(t["gap 0"] > t["chance 0"] or t["gap 1"] > t["chance 1"] for t in tables) <= 2
        assert all(bound / 2 < t["chance 1"] < bound for t in tables)
    lone = nuisances.balance(FaceSet(few.images[:1], few.target[:1], few.protected[:1], few.names[:1]))
    assert not (lone["gap"] > 0).any() and np.isinf(lone["chance 0"]).all()


def test_agreement_comes_with_an_interval(judge, faces):
    found = pool_audit.examine(faces, judge, NAMES)
    table = datasheet.with_intervals(found.table).set_index("group")
    assert list(table.columns[:5]) == ["set", "faces", "Bar", "Bar low", "Bar high"]
    row = table.loc["1_0"]
    assert row["both low"] < row["both"] < row["both high"] and row["Bar high"] - row["Bar low"] > 20
    assert table.loc["all", "Bar high"] - table.loc["all", "Bar low"] < 15
    found.about.update(target="Bar")
    (warned,) = (line for line in datasheet.caveats(found) if "In group" in line)
    assert f"% only (95 % interval {row['Bar low']:.1f} to {row['Bar high']:.1f})" in warned
    few = pool_audit.examine(faces.subset([*range(68, 80), *range(88, 100), *range(120, 124)]), judge, NAMES)
    few.about.update(target="Bar")
    assert ", of 12 faces: too few to be sure)" in "".join(datasheet.caveats(few))


def test_frames_tell_which_label_is_doubted():
    images = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
    marked = datasheet.framed(images, torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]], dtype=torch.bool))
    corners = [(marked[i, :, 0, 0].tolist(), marked[i, :, -1, -1].tolist()) for i in range(4)]
    orange, blue = list(datasheet.FRAMES["target"]), list(datasheet.FRAMES["protected"])
    assert corners == [([0] * 3, [0] * 3), (orange, [0] * 3), ([0] * 3, blue), (orange, blue)]
    assert not marked[:, :, 16, 16].any() and not images.any()


def test_nuisances_are_compared_within_a_protected_value():
    toys = toy_faces((20,) * 4, 2)
    hats = toys.groups == 3  # only in (1, 1)
    table = nuisances.balance(toys, seen={"Hat": hats, "Red": toys.protected == 1}).set_index("nuisance")
    assert (table.loc["Hat", "gap 0"], table.loc["Hat", "gap 1"], table.loc["Hat", "gap"]) == (0, 100, 100)
    assert table.loc["Red", "gap"] == 0  # follows the protected attribute, says nothing of the target
    assert table.loc["brightness", "gap"] > 0.5 and table.loc["brightness", "kind"] == "measured"  # the bar is bright
    black, grey = torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.full((1, 3, 8, 8), 90, dtype=torch.uint8)
    red = grey.clone()
    red[:, 1:] = 0
    shown = nuisances.looks(torch.cat([black, grey, red]))
    assert shown["brightness"].tolist() == pytest.approx([0, 90, 30]) and shown["saturation"].tolist() == [0, 0, 90]
    assert shown["sharpness"].tolist() == [0, 0, 0]


def test_a_label_is_no_nuisance_under_its_other_name():
    names = ("Female", "Smiling", "Hat")
    judge = SimpleNamespace(
        attributes=names, logits=lambda images: torch.tensor([[1.0, 1.0, -1.0]]), column=names.index
    )
    for task, others in ((("Smiling", "Male"), ["Hat"]), (("Smiling", "Young"), ["Female", "Hat"])):
        assert list(nuisances.attributes([judge], toy_faces((1, 0, 0, 0)).images, task)) == others


def test_prompts_are_read_by_text_and_by_their_ids():
    smoke = profiles.load("smoke")
    text = "Portrait face photo of a smiling young male with short brown hair and eyeglasses."
    rows = pd.DataFrame({"prompt": [text, text.replace("eyeglasses", "a hat")]})
    first, second = nuisances.mentions(rows, smoke)
    assert "young" in first and "smiling" not in first and "male" not in first
    assert first - second == {"anything about glasses"} and second - first == {"anything about headwear"}
    known = nuisances.mentions(pd.DataFrame({"prompt_id": ["0_0/00", "0_0/00"]}), smoke)
    assert known[0] == known[1] and known[0] and "smiling" not in known[0]
    assert nuisances.mentions(pd.DataFrame({"prompt_id": ["none"]}), smoke) == []
    assert nuisances.mentions(pd.DataFrame(index=[0, 1]), smoke) == []


def test_what_a_written_bank_declares_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("AIMFAIR_HOME", str(tmp_path))
    (tmp_path / "notebooks" / "profiles").mkdir(parents=True)
    (tmp_path / "notebooks" / "profiles" / "own.yaml").write_text("profile: own\n")
    record = grammar.make("faceworld/Smiling_Male")
    prompts.write(record, prompts.path_of("faceworld/Smiling_Male"))
    for group in record["groups"].values():
        first = group["prompts"][0]
        first["attributes"] = [*first["attributes"], "a blue scarf"]
        first["text"], first["without_pose"] = (
            first[key].replace("male", "male with a blue scarf") for key in ("text", "without_pose")
        )
    prompts.write(record, prompts.path_of("faceworld/Smiling_Male@mine"))
    rows = pd.DataFrame({"prompt_id": ["1_0/00"], "prompt": [record["groups"]["1_0"]["prompts"][0]["text"]]})
    mine = profiles.load("own", prompts="contextual@mine")
    for manifest in (rows, rows[["prompt_id"]]):
        assert "a blue scarf" in nuisances.mentions(manifest, mine)[0]
    assert "a blue scarf" not in nuisances.mentions(rows, profiles.load("own"))[0]


# CLIP


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory):
    """A CLIP of random weights with a tokenizer and a processor of its own, saved as a hub model is."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    folder = tmp_path_factory.mktemp("clip")
    tokenizer = tiny_sd.train_tokenizer(CAPTIONS, folder / "tokenizer", 600)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    marks = {"bos_token_id": len(tokenizer) - 2, "eos_token_id": len(tokenizer) - 1, "pad_token_id": len(tokenizer) - 1}
    text = {**small, "vocab_size": len(tokenizer), "max_position_embeddings": 40, **marks}
    vision = {**small, "image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).save_pretrained(folder)
    square = {"height": 32, "width": 32}
    CLIPProcessor(CLIPImageProcessor(size=square, crop_size=square), tokenizer).save_pretrained(folder)
    return folder


def test_clip_compares_pictures_with_sentences(tiny_clip):
    clip, images = clip_judge.load(tiny_clip), toy_faces((3,) * 4, 1, size=48).images
    logits, features = clip.see(images, batch_size=5)
    assert logits.shape == (12, 5) and features.norm(dim=1).tolist() == pytest.approx([1] * 12, abs=1e-4)
    assert torch.allclose(logits, clip.logits(images, batch_size=12), atol=1e-4)
    male, female = logits[:, clip.column("Male")], logits[:, clip.column("Female")]
    assert torch.allclose(male, -female, atol=1e-4) and male.std() > 0
    sentences = [f"a portrait photo of {s}" for side in clip_judge.SENTENCES["White"] for s in side]
    inputs = clip.processor(text=sentences, images=list(images), return_tensors="pt", padding=True)
    with torch.inference_mode():
        shares = clip.model(**inputs).logits_per_image.softmax(1)  # what transformers itself makes of it
    assert torch.allclose(logits[:, clip.column("White")].sigmoid(), shares[:, -1], atol=1e-4)
    with pytest.raises(AimfairError, match="CLIP is asked for Smiling, Male.* not for 'Happy'"):
        clip.column("Happy")
    for wrong, says in (
        ("no-such-folder", "no folder no-such-folder"),
        (str(tiny_clip / "tokenizer"), "cannot load the"),
    ):
        with pytest.raises(AimfairError, match=says):
            clip_judge.load(wrong)


# The command


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A checkout whose cache is empty, with a small judge of nuisances; and images made elsewhere."""
    for part in ("notebooks", "data/tiny-sd", "data/prompts"):
        (tmp_path / "home" / part).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "home" / part).symlink_to(home() / part)
    monkeypatch.setenv("AIMFAIR_HOME", str(tmp_path / "home"))
    few = partial(audit.train_faceworld_judge)
    monkeypatch.setattr(audit, "train_faceworld_judge", lambda **given: few(**given | {"images": 200, "epochs": 1}))
    return draw_pool(tmp_path / "made")


def command(folder, *more):
    small = [f"{k}={v}" for k, v in SMALL.items() if k != "images_per_group"]
    given = [word for text in small for word in ("-p", text)]
    runs = ["--runs", str(folder.parent / "runs"), "--device", "cpu"]
    return cli.main(["audit", "--profile", "smoke", "--images", str(folder), *runs, *given, *more])


def test_a_folder_made_elsewhere_is_audited_with_and_without_a_manifest(
    elsewhere, tmp_path, capsys, tiny_clip, monkeypatch
):
    assert command(elsewhere, "--clip", str(tiny_clip)) == 0
    out = tmp_path / "home" / "data" / "synthetic" / "audit" / "made-Smiling_Male"
    table = pd.read_csv(out / "audit.csv")
    assert table["faces"][:5].tolist() == [20] * 4 + [80]
    assert {"Smiling", "Male", "both", "clip Smiling", "frechet", "seen gap", "trained", "copies"} <= set(table)
    assert {"seen", "measured"} == set(pd.read_csv(out / "nuisances.csv")["kind"])
    assert "Eyeglasses" in set(pd.read_csv(out / "nuisances.csv")["nuisance"])
    page = (out / "datasheet.md").read_text()
    assert "there is no manifest" in page and "The prompts are not known" in page
    said = capsys.readouterr().out
    assert "vendi" in said and str(out / "contact-sheet.png") in said
    (kept,) = (json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*/config.json"))
    assert kept["method"] == "synthetic-only" and kept["study"]["generator"].startswith(f"folder:{elsewhere}@")

    rows = [(f"{t}_{p}/{n:05d}.png", t, p) for t in (0, 1) for p in (0, 1) for n in range(20)]
    manifest = pd.DataFrame(rows[:-1], columns=["path", "target", "protected"])
    manifest["model"], manifest["prompt"] = "another model", "a face with glasses"
    manifest.to_csv(elsewhere / "Smiling_Male" / "manifest.csv", index=False)
    read, splits = study.Study.faces, []
    monkeypatch.setattr(study.Study, "faces", lambda self, split: splits.append(split) or read(self, split))
    assert (
        command(
            elsewhere,
            "--no-training",
            "--out",
            str(tmp_path / "mine"),
            "-p",
            "selection=realism",
            "-p",
            "selected_per_group=9",
        )
        == 0
    )
    assert set(splits) == {"train", "validation"}  # the test set is not looked at
    table = pd.read_csv(tmp_path / "mine" / "audit.csv")
    assert table["faces"][:5].tolist() == [9] * 4 + [36] and "trained" not in table and table["said gap"][4] == 0
    page = (tmp_path / "mine" / "datasheet.md").read_text()
    assert "- model: another model" in page and "by the rule: realism" in page and "1 files were left out" in page


def test_what_cannot_be_audited_is_said_in_one_line(elsewhere, tmp_path, capsys):
    (tmp_path / "flat").mkdir()
    for arguments, says in (
        ((tmp_path / "nowhere",), "there is no such folder"),
        ((tmp_path / "flat",), "no group folders 0_0"),
        ((elsewhere, "-p", "protected=Eyeglasses"), "no group folders"),
        ((elsewhere, "--clip", "no-such"), "no folder no-such"),
        ((elsewhere, "--model", "sdxl"), "--images and --model: one of the two"),
    ):
        assert command(*arguments) == 2
        said = capsys.readouterr().err
        assert says in said and said.count("\n") == 1, said


def test_a_judge_on_photographs_is_trained_on_the_corpus_once(elsewhere, tmp_path, monkeypatch):
    with pytest.raises(AimfairError, match=r"names no corpus .* or have CLIP judge an audit \(--clip FOLDER\)"):
        judges.judge_of(profiles.load("utkface", corpus=""))
    with pytest.raises(
        AimfairError, match=r"learns from celeba, which is not here: give -p corpus_root=FOLDER, or have CLIP"
    ):
        judges.judge_of(profiles.load("celeba-smiling-male"))
    trained = []

    def train():
        trained.append(1)
        return audit.train_judge(
            toy_faces((4,) * 4, 1).images, toy_faces((4,) * 4, 1).target[:, None], ("T",), epochs=1
        )

    first, again = (judges.kept_judge("test", train) for _ in range(2))
    assert trained == [1] and first.size == again.size == 32 and again.attributes == ("T",)
    assert torch.equal(first.logits(toy_faces().images), again.logits(toy_faces().images))


def test_the_judge_of_fairface_is_shipped_and_looks_at_pictures_of_any_size(elsewhere):
    utkface = profiles.load("utkface")
    judge = judges.judge_of(utkface)
    assert {"Female", "White"} <= set(judge.attributes) and judge.size == 64
    assert judge.logits(toy_faces((1,) * 4, 1, size=112).images).shape == (4, len(judge.attributes))
    assert judges.judge_identity(utkface).startswith("fairface@") and not list((home() / "data").glob("cache/judge*"))


def test_clip_judges_alone_where_the_corpus_is_not_here(elsewhere, tiny_clip):
    celeba = study.open_study("celeba-smiling-male", device="cpu")
    first, second = pool_audit.judges_for(celeba, str(tiny_clip))
    assert isinstance(first, clip_judge.ClipJudge) and second is None
    first, second = pool_audit.judges_for(study.open_study("smoke", device="cpu"), str(tiny_clip))
    assert isinstance(first, audit.Judge) and isinstance(second, clip_judge.ClipJudge)
    with pytest.raises(judges.NoJudge):
        pool_audit.judges_for(celeba)


def test_a_broken_image_is_named_and_left_out_if_that_is_wanted(elsewhere, tmp_path, capsys):
    groups = elsewhere / "Smiling_Male"
    (groups / "0_1" / "00003.png").write_bytes(b"half a picture")
    Image.open(groups / "1_1" / "00000.png").save(groups / "1_1" / "00000.webp")
    (groups / "1_1" / "00000.png").unlink()
    assert command(elsewhere, "--no-training") == 2
    said = capsys.readouterr().err
    assert "0_1/00003.png is not a JPEG, PNG, BMP or WebP image; replace or remove it, or leave it out with" in said
    assert "--skip-broken" in said and said.count("\n") == 1
    assert command(elsewhere, "--no-training", "--skip-broken", "--out", str(tmp_path / "mine")) == 0
    assert "1 files were left out, the first: 0_1/00003.png: is not a" in capsys.readouterr().out
    assert pd.read_csv(tmp_path / "mine" / "audit.csv")["faces"][:5].tolist() == [20, 19, 20, 20, 79]
    assert "1 files were left out" in (tmp_path / "mine" / "datasheet.md").read_text()


def test_a_manifest_stands_for_its_folder(elsewhere, tmp_path):
    options = cli.parser().parse_args(["audit", "--images", str(elsewhere / "manifest.csv")])
    assert audit_command.changes(options)["generator"] == f"folder:{elsewhere.resolve()}"


def test_one_command_draws_a_set_and_audits_it(elsewhere, tmp_path, capsys, tiny_clip):
    few = {**SMALL, "images_per_group": 8, "train_images": 40, "steps": 1}
    model = ["--model", str(home() / "data" / "tiny-sd" / "faceworld"), "--device", "cpu"]
    given = [*model, *(word for name, value in few.items() for word in ("-p", f"{name}={value}"))]
    audited = tmp_path / "home" / "data" / "synthetic" / "audit"
    quick = ["--audit", "--no-training", *given]
    out = ["--out", str(tmp_path / "set"), "--clip", str(tiny_clip)]
    assert cli.main(["generate", "--profile", "smoke", *out, *quick]) == 0
    said = capsys.readouterr().out
    assert "32 images in" in said and "vendi" in said
    table = pd.read_csv(audited / "set-Smiling_Male" / "audit.csv")
    assert table["faces"][:5].tolist() == [8] * 4 + [32] and "clip Smiling" in table
    page = (audited / "set-Smiling_Male" / "datasheet.md").read_text()
    assert "- model: faceworld" in page and "negative_prompt" not in page
    assert cli.main(["generate", "--profile", "smoke", *quick, "--draw", "2"]) == 0  # a pool in its usual place
    assert "32 images in" in capsys.readouterr().out and len(list(audited.glob("*-draw2-Smiling_Male/audit.csv"))) == 1
    assert cli.main(["audit", "--profile", "smoke", "--no-training", *given, "--draw", "2"]) == 0  # the same pool
    assert len(list(tmp_path.glob("home/data/synthetic/faceworld-*/manifest.csv"))) == 1
    assert cli.main(["generate", "--profile", "utkface", "-p", "corpus=", *quick]) == 2  # before anything is drawn
    assert "names no corpus" in capsys.readouterr().err and not list(tmp_path.glob("home/data/synthetic/utkface*"))
