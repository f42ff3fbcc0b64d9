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
from test_judges import NAMES, clip, empty_home, judge  # noqa: F401
from toys import toy_faces

from aimfair import cli, methods, models, plots, prompts, study
from aimfair.audit import datasheet, judges, measures, nuisances
from aimfair.audit.report import examine
from aimfair.datasets import faceworld
from aimfair.environment import AimfairError, home
from aimfair.faces import FaceSet
from aimfair.metrics import published_report
from aimfair.study import profiles
from aimfair.study.audit import mentions


@pytest.fixture(scope="module")
def faces():
    """Forty faces of each group, group after group: a quarter of (1, 0) has no bar, one comes twice."""
    toys = toy_faces((40, 40, 50, 40), 1)
    toys = toys.subset(toys.groups.argsort(stable=True))  # groups begin at 0, 40, 80, 130
    images = toys.images.clone()
    images[80:90] = images[:10]  # drawn without a bar
    images[45] = images[44]
    return FaceSet(images, toys.target, toys.protected, toys.names).subset(np.r_[0:120, 130:170])


REAL, DETECTOR = toy_faces((60,) * 4, 5), measures.detector


@pytest.fixture(autouse=True)
def no_detector(monkeypatch):
    """Looking for a face takes longer than all the rest."""
    monkeypatch.setattr(measures, "detector", lambda: None)


def examined(faces, judge, real=REAL, train=REAL.images[:0], **more):  # noqa: F811
    return examine(faces, judge, NAMES, real, train, **more)


def rows(found, what="synthetic"):
    return found.table[found.table["set"] == what].set_index("group")


def told(found):
    return " ".join(datasheet.caveats(found))


def test_what_was_planted_is_found(judge, faces):  # noqa: F811
    real = toy_faces((60, 60, 60, 30), 5)
    train = torch.cat([toy_faces((5,) * 4, 6).images, faces.images[150:152]])
    said = [{"a hat"} if i < 20 else {"a hat", "glasses"} if i < 40 else set() for i in range(160)]
    trained = published_report([90, 80, 70, 60])
    found = examined(faces, judge, real, train, said=said, trained=trained)
    drawn, others = rows(found), rows(found, "real")
    assert list(drawn.index) == list(others.index) == ["0_0", "0_1", "1_0", "1_1", "all"]
    assert drawn["faces"].tolist() == [40] * 4 + [160]
    assert drawn.at["1_0", "Bar"] == pytest.approx(75, abs=6)
    assert drawn.at["0_1", "Bar"] > 90 and others.at["all", "both"] > 90
    assert found.wrong[80:90, 0].all() and not found.wrong[90:120].any(1).mean() > 0.1
    # The ten without a bar are copies of ten of group (0, 0), one of (0, 1) is there twice.
    assert drawn["duplicates"].tolist() == [10, 2, 10, 0, 22] and drawn["copies"].tolist() == [0, 0, 0, 2, 2]
    assert set(found.duplicates["of"]) == {"each other", "real"} and len(found.duplicates) == 13
    assert drawn["said gap"].tolist() == [100, 0, 100, 0, 100]  # a hat: 40 of 40 of (0, 0), none of (1, 0)
    assert drawn.at["1_1", "compared"] == 15 and others.at["all", "compared"] == 60
    assert drawn["trained"].tolist() == [90, 80, 70, 60, 75]
    like_real = ["0_0", "0_1", "1_1"]  # as far as two real halves, give or take
    assert (drawn["frechet"] < 4 * others["frechet"])[like_real].all()
    dark = FaceSet(faces.images // 2, faces.target, faces.protected, faces.names)
    found = examined(dark, judge, real)
    far = rows(found)
    assert far.at["all", "frechet"] > 4 * drawn.at["all", "frechet"]
    assert not {"trained", "said gap", "face"} & set(far.dropna(axis=1))
    assert "there is no detector here" in told(found) and "face low" not in datasheet.page(found)


@pytest.mark.skipif(measures.detector() is None, reason="OpenCV 4 is not installed")
def test_a_set_without_faces_stands_out_beside_real_ones(judge, monkeypatch):  # noqa: F811
    monkeypatch.setattr(measures, "detector", DETECTOR)
    world = faceworld.catalogue(style="real", train=120, validation=0, test=0, corpus=0)
    real = world.faces(np.arange(120), "Smiling", "Male", 64)
    found = examined(toy_faces((20,) * 4, 3, size=64), judge, real)
    assert rows(found).at["all", "face"] < 20 and rows(found, "real").at["all", "face"] > 60
    assert "detector of photographed faces" in told(found) and "face low" in datasheet.page(found)
    assert "detector of photographed faces" not in told(examined(real, judge, real))
    for dataset in ("faceworld", "celeba"):  # a judge of drawn faces did not learn the look of photographs
        found.about["dataset"] = dataset
        assert ("whose look it did not learn" in told(found)) == (dataset == "faceworld")


def test_the_datasheet_says_what_was_found_and_the_sheet_marks_it(judge, faces, tmp_path):  # noqa: F811
    found = examined(faces, judge, train=faces.images[:1])
    found.about.update(made={"model": "toy", "steps": "8"}, skipped=["x.gif: why"])
    images, titles = datasheet.tiles(found, faces, columns=2)
    assert images.shape == (16, 3, 32, 32) and titles[:2] == ["0_0", "0_0 ?"]
    sheet = plots.contact_sheet(images, titles, columns=2)
    written = datasheet.write(found, sheet, tmp_path / "out")
    assert sorted(p.name for p in written) == sorted(p.name for p in (tmp_path / "out").iterdir())
    page = (tmp_path / "out" / "datasheet.md").read_text()
    for part in (
        "- model: toy", "In group 1_0 the judge sees Bar as asked for in 7", "have a near-duplicate", "x.gif: why",
        "all but the same as a face of the real training set", "| real ", "read the distance only beside",
    ):  # fmt: skip
        assert part in page, part
    assert len(pd.read_csv(tmp_path / "out" / "audit.csv")) == 10
    clean = faces.subset(np.flatnonzero(~found.wrong.any(1)))
    assert "In group" not in told(examined(clean, judge))
    with pytest.raises(AimfairError, match="cannot write .* name another folder with --out"):
        datasheet.write(found, sheet, tmp_path / "out" / "audit.csv")


def test_agreement_comes_with_an_interval(judge, faces):  # noqa: F811
    found = examined(faces, judge)
    table = datasheet.with_intervals(found.table[:5]).set_index("group")
    assert list(table.columns[:5]) == ["set", "faces", "Bar", "Bar low", "Bar high"]
    row = table.loc["1_0"]
    assert row["both low"] < row["both"] < row["both high"] and row["Bar high"] - row["Bar low"] > 20
    assert table.loc["all", "Bar high"] - table.loc["all", "Bar low"] < 15
    assert f"% only (95 % interval {row['Bar low']:.1f} to {row['Bar high']:.1f})" in told(found)
    few = faces.subset([*range(68, 80), *range(88, 100), *range(120, 124)])
    assert ", of 12 faces: too few to be sure)" in told(examined(few, judge))


def test_frames_show_which_label_is_doubted():
    images = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
    marked = datasheet.framed(images, torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]], dtype=torch.bool))
    corners = [(marked[i, :, 0, 0].tolist(), marked[i, :, -1, -1].tolist()) for i in range(4)]
    orange, blue = list(datasheet.FRAMES["target"]), list(datasheet.FRAMES["protected"])
    assert corners == [([0] * 3, [0] * 3), (orange, [0] * 3), ([0] * 3, blue), (orange, blue)]
    assert not marked[:, :, 16, 16].any() and not images.any()


# Nuisances


def test_nuisances_are_compared_within_a_protected_value():
    toys = toy_faces((20,) * 4, 2)
    seen = {"Hat": toys.groups == 3, "Red": toys.protected == 1}
    table = nuisances.balance(toys, seen=seen).set_index("nuisance")
    assert table.loc["Hat", ["gap 0", "gap 1", "gap"]].tolist() == [0, 100, 100]
    assert table.loc["Red", "gap"] == 0  # follows the protected attribute, says nothing of the target
    assert table.loc["brightness", "gap"] > 0.5 and table.loc["brightness", "kind"] == "measured"  # the bar is bright
    black, grey = torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.full((1, 3, 8, 8), 90, dtype=torch.uint8)
    red = grey.clone()
    red[:, 1:] = 0
    looks = nuisances.looks(torch.cat([black, grey, red]))
    assert looks["brightness"].tolist() == pytest.approx([0, 90, 30]) and looks["saturation"].tolist() == [0, 0, 90]
    assert looks["sharpness"].tolist() == [0, 0, 0]


def test_a_few_faces_raise_no_alarm_where_nothing_differs(judge):  # noqa: F811
    """Twelve faces per group whose looks have nothing to do with their labels: gaps are wide, and no more than chance."""
    hats = [{"a hat"} if i % 5 == 0 else set() for i in range(48)]
    for seed in range(20, 24):
        toys = toy_faces((12,) * 4, seed)
        other = toys.subset(np.random.default_rng(seed).permutation(48))
        mixed = FaceSet(toys.images, other.target, other.protected, toys.names)
        said = told(examined(mixed, judge, said=hats))
        assert "Unevenly spread" not in said and "could be chance, with so few faces" in said
    hats = [{"a hat"} if group > 1 else set() for group in toys.groups.tolist()]
    assert "Unevenly spread over the target (said): a hat." in told(examined(toys, judge, said=hats))


def test_what_chance_may_do_shrinks_with_the_number_of_faces():
    few, many = toy_faces((12,) * 4, 3), toy_faces((300,) * 4, 3)
    rng = np.random.default_rng(0)
    for faces, bound in ((few, 60), (many, 12)):
        draws = [{"Hat": torch.from_numpy(rng.random(len(faces)) < 0.3)} for _ in range(20)]
        tables = [nuisances.balance(faces, seen=seen).set_index("nuisance").loc["Hat"] for seen in draws]
        assert sum(t["gap 0"] > t["chance 0"] or t["gap 1"] > t["chance 1"] for t in tables) <= 2
        assert all(bound / 2 < t["chance 1"] < bound for t in tables)
    lone = nuisances.balance(few.subset([0]))
    assert not (lone["gap"] > 0).any() and np.isinf(lone["chance 0"]).all()


def test_a_label_is_no_nuisance_under_its_other_name():
    names = ("Female", "Smiling", "Hat")
    sees = {"logits": lambda images: torch.tensor([[1.0, 1.0, -1.0]]), "column": names.index}
    for task, others in ((("Smiling", "Male"), ["Hat"]), (("Smiling", "Young"), ["Female", "Hat"])):
        assert (
            list(nuisances.look_for([SimpleNamespace(attributes=names, **sees)], toy_faces((1, 0, 0, 0)).images, task))
            == others
        )


def test_prompts_are_read():
    smoke = profiles.load("smoke")
    text = "Portrait face photo of a smiling young male with short brown hair and eyeglasses."
    first, second = mentions(pd.DataFrame({"prompt": [text, text.replace("eyeglasses", "a hat")]}), smoke)
    assert "young" in first and "smiling" not in first and "male" not in first
    assert first - second == {"anything about glasses"} and second - first == {"anything about headwear"}
    assert mentions(pd.DataFrame({"prompt_id": ["none"]}), smoke) == []


def test_what_a_written_bank_declares_is_said(tmp_path, monkeypatch):
    recorded = prompts.read("faceworld/Smiling_Male")
    monkeypatch.setenv("AIMFAIR_HOME", str(tmp_path))
    (tmp_path / "notebooks" / "profiles").mkdir(parents=True)
    (tmp_path / "notebooks" / "profiles" / "own.yaml").write_text("profile: own\n")
    prompts.write(recorded, prompts.path_of("faceworld/Smiling_Male"))
    for group in recorded["groups"].values():
        first = group["prompts"][0]
        first["attributes"] = [*first["attributes"], "a blue scarf"]
        for key in ("text", "without_pose"):
            first[key] = first[key].replace("male", "male with a blue scarf")
    prompts.write(recorded, prompts.path_of("faceworld/Smiling_Male@mine"))
    manifest = pd.DataFrame({"prompt_id": ["1_0/00"], "prompt": [recorded["groups"]["1_0"]["prompts"][0]["text"]]})
    mine = profiles.load("own", prompts="contextual@mine")
    assert "a blue scarf" in mentions(manifest, mine)[0]
    assert "a blue scarf" not in mentions(manifest, profiles.load("own"))[0]


# What can be said of a pool without showing a face


(inspection,) = (module for module in methods.modules() if module.__name__.endswith("inspection"))


def inspected(pool, **changes):
    validation = toy_faces((5,) * 4, 2)
    of_study = {"device": "cpu", "data_root": "", "split": {}, "faces": lambda split: validation, "pool": pool}
    of_study["biased_model"] = lambda seed: models.build("resnet18-slim", seed)
    profile = profiles.load("utkface", generator="folder:somewhere", **changes)
    return inspection.inspect_pool(SimpleNamespace(profile=profile, **of_study), 1)


def test_faces_from_elsewhere_are_judged_by_the_shipped_judge_alone():
    found = inspected(toy_faces((9, 8, 7, 6), 1))
    assert found["training"] == {} and found["unjudged"] == "" and found["corpus"] == 0
    assert set(found["judged"]) == {"validation faces", "synthetic faces"}
    assert [row["faces"] for row in found["groups"]] == [9, 8, 7, 6] and all("White" in row for row in found["groups"])
    assert found["sets"] == {n: (5,) * 4 for n in ("train", "validation", "test")} | {"synthetic pool": (9, 8, 7, 6)}


def test_without_a_judge_the_faces_are_counted_and_it_is_said_why():
    found = inspected(toy_faces((9, 8, 7, 6), 1), corpus="")
    assert found["judged"] == {} and "names no corpus on which a judge" in found["unjudged"]
    assert [tuple(row.values()) for row in found["groups"]] == [(0, 0, 9), (0, 1, 8), (1, 0, 7), (1, 1, 6)]


# The command


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A checkout whose cache is empty, with a small judge of nuisances; and images made elsewhere."""
    monkeypatch.setenv("AIMFAIR_HOME", str(empty_home(tmp_path)))
    monkeypatch.setattr(datasheet, "COLUMNS", 2)  # drawing the sheet takes longest
    few = partial(judges.train_faceworld_judge)
    monkeypatch.setattr(judges, "train_faceworld_judge", lambda **given: few(**given | {"images": 200, "epochs": 1}))
    return draw_pool(tmp_path / "made")


def command(folder, *more):
    small = [word for k, v in SMALL.items() if k != "images_per_group" for word in ("-p", f"{k}={v}")]
    runs = ["--runs", str((folder.parent if folder.suffix else folder).parent / "runs"), "--device", "cpu"]
    return cli.main(["audit", "--profile", "smoke", "--images", str(folder), *runs, *small, *map(str, more)])


def test_a_folder_made_elsewhere_is_audited(elsewhere, tmp_path, capsys, clip):  # noqa: F811
    assert command(elsewhere, "--clip", clip) == 0
    out = tmp_path / "home" / "data" / "synthetic" / "audit" / "made-Smiling_Male"
    table, uneven = pd.read_csv(out / "audit.csv"), pd.read_csv(out / "nuisances.csv")
    assert table["faces"][:5].tolist() == [20] * 4 + [80]
    assert {"Smiling", "Male", "both", "clip Smiling", "frechet", "seen gap", "trained", "copies"} <= set(table)
    assert {"seen", "measured"} == set(uneven["kind"]) and "Eyeglasses" in set(uneven["nuisance"])
    page = (out / "datasheet.md").read_text()
    assert "- manifest: none" in page and "The prompts are not known" in page
    said = capsys.readouterr().out
    assert "vendi" in said and str(out / "contact-sheet.png") in said
    (kept,) = (json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*/config.json"))
    assert kept["method"] == "synthetic-only" and kept["study"]["generator"].startswith(f"folder:{elsewhere}@")


def test_a_manifest_a_selection_and_broken_images_are_heeded(elsewhere, tmp_path, capsys, monkeypatch):
    groups, mine = elsewhere / "Smiling_Male", tmp_path / "mine"
    files = [(f"{t}_{p}/{n:05d}.png", t, p) for t in (0, 1) for p in (0, 1) for n in range(20)]
    manifest = pd.DataFrame(files[:-1], columns=["path", "target", "protected"])
    manifest.assign(model="another model", prompt="a face with glasses").to_csv(groups / "manifest.csv", index=False)
    read, splits = study.Study.faces, []
    monkeypatch.setattr(study.Study, "faces", lambda self, split: splits.append(split) or read(self, split))
    few = ("-p", "selection=realism", "-p", "selected_per_group=9")
    assert command(elsewhere / "manifest.csv", "--no-training", "--out", mine, *few) == 0  # stands for its folder
    assert set(splits) == {"train", "validation"}  # the test set is not looked at
    table, page = pd.read_csv(mine / "audit.csv"), (mine / "datasheet.md").read_text()
    assert table["faces"][:5].tolist() == [9] * 4 + [36] and "trained" not in table and table["said gap"][4] == 0
    assert "- model: another model" in page and "by the rule: realism" in page and "1 files were left out" in page

    (groups / "manifest.csv").unlink()
    (groups / "0_1" / "00003.png").write_bytes(b"half a picture")
    Image.open(groups / "1_1" / "00000.png").save(groups / "1_1" / "00000.webp")
    (groups / "1_1" / "00000.png").unlink()
    capsys.readouterr()
    assert command(elsewhere, "--no-training") == 2
    said = capsys.readouterr().err
    assert "0_1/00003.png is not a" in said and "--skip-broken" in said and said.count("\n") == 1
    assert command(elsewhere, "--no-training", "--skip-broken", "--out", mine) == 0
    assert "1 files were left out, the first: 0_1/00003.png: is not a" in capsys.readouterr().out
    assert pd.read_csv(mine / "audit.csv")["faces"][:5].tolist() == [20, 19, 20, 20, 79]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--images", "nowhere/manifest.csv"], "there is no such folder"),
        (["--images", "flat"], "no group folders 0_0"),
        (["-p", "protected=Eyeglasses"], "no group folders"),
        (["--clip", "no-such"], "no folder no-such"),
        (["--model", "sdxl"], "--images and --model: one of the two"),
    ],
)
def test_what_cannot_be_audited_is_said_in_one_line(more, says, elsewhere, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flat").mkdir()
    assert command(elsewhere, *more) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1, said


def test_one_command_draws_a_set_and_audits_it(elsewhere, tmp_path, capsys):
    few = {**SMALL, "images_per_group": 4, "train_images": 40, "steps": 1}
    model = ["--model", str(home() / "data" / "tiny-sd" / "faceworld"), "--device", "cpu"]
    quick = ["--no-training", *model, *(word for name, value in few.items() for word in ("-p", f"{name}={value}"))]
    audited = tmp_path / "home" / "data" / "synthetic" / "audit"
    out = ["--out", str(tmp_path / "set")]
    assert cli.main(["generate", "--profile", "smoke", "--audit", *out, *quick]) == 0
    said = capsys.readouterr().out
    assert "16 images in" in said and "vendi" in said
    table = pd.read_csv(audited / "set-Smiling_Male" / "audit.csv")
    assert table["faces"][:5].tolist() == [4] * 4 + [16]
    page = (audited / "set-Smiling_Male" / "datasheet.md").read_text()
    assert "- model: faceworld" in page and "negative_prompt" not in page
    usual = ["--profile", "smoke", *quick, "--draw", "2"]
    assert cli.main(["audit", *usual]) == 0  # draws a pool in its usual place first
    assert len(list(audited.glob("*-draw2-Smiling_Male/audit.csv"))) == 1
    assert len(list(tmp_path.glob("home/data/synthetic/faceworld-*/manifest.csv"))) == 1
    assert cli.main(["generate", "--audit", "--profile", "utkface", "-p", "corpus=", *quick]) == 2  # before drawing
    assert "names no corpus" in capsys.readouterr().err and not list(tmp_path.glob("home/data/synthetic/utkface*"))
