"""Which studies of photographs a chapter looks at beside its own."""

from __future__ import annotations

from aimfair import study
from aimfair.analysis import contenders, photographs


def test_the_main_study_has_those_of_photographs_beside_it_with_its_runs_and_device(tmp_path):
    lab = study.open_study("demo", device="cpu", runs_root=str(tmp_path))
    found = photographs.beside(lab)
    assert [each.profile.profile for each in found] == ["demo", *photographs.STUDIES] and found[0] is lab
    assert all(each.runs_root == tmp_path and str(each.device) == "cpu" for each in found)
    assert [each.profile.profile for each in photographs.beside(lab, ["utkface"])] == ["demo", "utkface"]


def test_any_other_study_stands_alone():
    smoke = study.open_study("smoke", device="cpu")
    assert photographs.beside(smoke) == [smoke]


def test_what_differs_from_their_files_is_what_their_longer_runs_were_made_with(tmp_path):
    lab = study.open_study("demo", device="cpu", runs_root=str(tmp_path))
    for each in photographs.beside(lab)[1:]:
        found = contenders.combinations(each)
        longer = found[found["method"].str.contains("longer ERM")]
        assert len(longer) and longer.groupby("method")["seed"].nunique().min() >= 3, each.profile.profile
