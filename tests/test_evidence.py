"""What a figure shows of its runs: each row chosen by the book's rule, whatever is missing named with its command."""

import pytest
from small_grid import changes, draw_pool

from aimfair import evidence, study
from aimfair.claims import higher
from aimfair.experiments import Row

ROWS = [
    Row("Baseline", "erm"),
    Row("Head", "linear-probing"),
    Row("Blocks", "freeze-one-block", {"block": "fc"}),
    Row("Fewer", "synthetic-only", changes={"images_per_group": 10}),
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    pool = draw_pool(tmp_path_factory.mktemp("pool"))
    given = changes(pool) | {"seeds": 2}
    opened = study.open_study("smoke", changes=given, device="cpu", runs_root=str(tmp_path_factory.mktemp("runs")))
    fewer = opened.varied(images_per_group=10)
    opened.split["test"] = fewer.split["test"] = opened.split["test"][:120]  # a small test set for a quick test
    for seed in (100, 200):
        opened.run("erm", seed)
    opened.chosen("linear-probing", 100)
    opened.run("linear-probing", 200, lr=0.01)
    fewer.run("synthetic-only", 100)
    return opened


def test_a_row_has_the_seeds_that_have_all_its_configurations(lab):
    frame, lacking = evidence.gathered(lab, ROWS)
    assert frame.groupby("method", sort=False)["seed"].apply(list).to_dict() == {
        "Baseline": [100, 200],
        "Head": [100],
        "Fewer": [100],
    }
    assert lacking == {"Head": 1, "Blocks": 2, "Fewer": 1}


def test_of_searched_values_the_one_that_validation_chooses_is_shown(lab):
    frame, _ = evidence.gathered(lab, ROWS[1:2])
    best = lab.chosen("linear-probing", 100)
    assert frame["lr"].tolist() == [best.config["hyper"]["lr"]] and frame["wst"].tolist() == [best.report().wst]


def test_published_runs_come_first_and_those_of_this_machine_fill_up(lab, tmp_path, monkeypatch):
    published = [lab.run("erm", 100)]
    monkeypatch.setattr(lab, "published", lambda method: published if method == "erm" else [])
    assert [run.seed for run in evidence.there(lab, "erm")] == [100, 200]
    assert evidence.there(lab, "erm")[0] is published[0]


def test_no_runs_are_an_empty_frame_and_no_error(lab):
    frame, lacking = evidence.gathered(lab, ROWS[2:3])
    assert len(frame) == 0 and {"method", "seed"} <= set(frame.columns) and lacking == {"Blocks": 2}
    claim = evidence.compared(frame, higher, "it is better", "Blocks", "Baseline", "wst")
    assert claim.verdict == "undecided" and claim.evidence == "no runs of Blocks and Baseline"


def test_two_rows_are_compared_on_their_common_seeds(lab):
    frame, _ = evidence.gathered(lab, ROWS)
    assert "1 seed" in evidence.compared(frame, higher, "x", "Baseline", "Head", "acc").evidence
    only = frame[(frame["method"] != "Baseline") | (frame["seed"] == 200)]
    assert evidence.compared(only, higher, "x", "Baseline", "Head", "acc").evidence == "no common seed"


def test_what_is_missing_is_told_with_the_command(lab):
    said = evidence.missing(lab, 2, {"Blocks": 2}).data
    assert "Blocks (2)" in said and "`python -m aimfair grid run --figure 2 --profile smoke`" in said
    assert "All runs" in evidence.missing(lab, 2, {}).data
    faces = study.open_study("utkface", runs_root=str(lab.runs_root))
    assert evidence.command(faces, 8).endswith("--figure 8 --profile utkface --data path/to/images")
    assert evidence.command(study.open_study("demo"), 8) == "python -m aimfair grid run --figure 8"


def test_gaps_of_this_study_come_first_then_those_of_other_profiles(lab):
    lab.gradient_gaps(100)
    found = evidence.gaps_by_study(lab)
    labels = list(found)
    assert labels[0] == "Smiling / Male, drawn" and [run.seed for run in found[labels[0]]] == [100]
    assert {"Smiling / Male, CelebA", "Female / White, UTKFace"} <= set(labels[1:])
    assert {run.config["method"] for runs in found.values() for run in runs} == {"gradient-gaps"}
