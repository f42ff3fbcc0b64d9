"""The whole way from notebooks to pages, in a small checkout and with the real book."""

import shutil
import signal
import subprocess
import sys

import pages
import pytest
import yaml
from nbformat.v4 import new_code_cell
from small_book import ALT, CAPTION, built, chapter, executed, full_chapter, write

from aimfair.book import build as builder
from aimfair.book import chapters
from aimfair.book.execution import stamp_of
from aimfair.book.notebook import code_cells, read
from aimfair.book.publishing import publish
from aimfair.environment import AimfairError, home

PUBLISHED = home() / "data" / "published"


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout of its own, with the real profiles and no notebook yet."""
    shutil.copytree(home() / "notebooks" / "profiles", tmp_path / "notebooks" / "profiles")
    monkeypatch.setenv("AIMFAIR_HOME", str(tmp_path))
    return tmp_path


def notebook(checkout, name, *sources, **made_for):
    made = chapter(*(new_code_cell(source) for source in sources))
    if made_for:
        made.metadata["aimfair"] = made_for
    return write(made, checkout / "notebooks" / name)


def test_a_profile_has_the_chapters_that_are_for_it(checkout):
    notebook(checkout, "01_a.ipynb")
    notebook(checkout, "02_b.ipynb", profiles=["demo", "smoke"])
    notebook(checkout, "03_c.ipynb", datasets=["celeba"])
    notebook(checkout, "04_d.ipynb", datasets=["faceworld"], profiles=["smoke"])
    assert [path.stem for path in chapters.chapters("demo")] == ["01_a", "02_b"]
    assert [path.stem for path in chapters.chapters("smoke")] == ["01_a", "02_b", "04_d"]
    assert [path.stem for path in chapters.chapters("celeba-smiling-male")] == ["01_a", "03_c"]
    assert [path.stem for path in chapters.chapters("demo", only=["02"])] == ["02_b"]
    assert [path.stem for path in chapters.chapters("demo", only=["02", "a"])] == ["01_a", "02_b"]
    with pytest.raises(AimfairError, match="no chapter of profile 'demo' has '09' in its name"):
        chapters.chapters("demo", only=["02", "09"])


def test_parameters_go_to_the_chapters_that_declare_them(checkout):
    first = notebook(checkout, "01_a.ipynb")
    other = chapter()
    other.cells[1].source += "\nfaces_shown: int = 3  # how many"
    second = write(other, checkout / "notebooks" / "02_b.ipynb")
    planned = chapters.plan([first, second], {"profile": "smoke", "faces_shown": 4, "train_images": 80})
    assert planned[first] == {"profile": "smoke", "train_images": 80}
    assert planned[second] == {"profile": "smoke", "train_images": 80, "faces_shown": 4}
    for wrong, says in (
        ({"face_shown": 4}, "unknown parameter 'face_shown'"),
        ({"faces_shown": "many"}, "02_b.ipynb: parameter faces_shown must be int"),
        ({"minority": 1.5}, "minority must be less than or equal to 1"),
        ({"profile": "domo"}, "no profile 'domo'"),
    ):
        with pytest.raises(AimfairError, match=says):
            chapters.plan([first, second], {"profile": "smoke"} | wrong)


def test_a_long_chapter_shows_the_published_runs_of_the_study_unless_everything_is_computed(checkout):
    short, long = notebook(checkout, "01_a.ipynb"), notebook(checkout, "02_b.ipynb", long=True)
    (checkout / "data").mkdir()
    (checkout / "data" / "published").symlink_to(PUBLISHED)

    def reuses(everything=False, **parameters):
        planned = chapters.plan([short, long], {"profile": "demo", "reuse": False} | parameters, everything)
        return planned[short]["reuse"], planned[long]["reuse"]

    assert reuses() == (False, True)
    assert reuses(everything=True) == (False, False)
    assert reuses(train_images=1234) == (False, False), "nobody published this study"
    assert reuses(reuse=True) == (True, True)


def test_a_run_of_the_chapters_that_is_killed_goes_on_with_the_one_that_was_running(checkout, capfd):
    notebook(checkout, "01_a.ipynb", "print(seed)")
    once = (
        f"import psutil\nfrom pathlib import Path\n\nmark = Path({str(checkout / 'mark')!r})\nkernel = psutil.Process()"
    )
    dies = "if not mark.exists():\n    mark.touch()\n    for process in [*kernel.parents()[1::-1], kernel]:\n        process.kill()"
    notebook(checkout, "02_b.ipynb", once, dies, "print(shift)")
    command = [sys.executable, "-c", "from aimfair.book import chapters; chapters.run('demo', {'shift': 0.25})"]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    finished = chapters.executed_folder("demo")
    first = (finished / "01_a.ipynb").read_bytes()
    assert stamp_of(finished / "02_b.ipynb") is None
    capfd.readouterr()
    assert subprocess.run(command).returncode == 0
    said = capfd.readouterr().out
    assert "01_a: already run" in said and "02_b: done" in said
    assert (finished / "01_a.ipynb").read_bytes() == first
    assert code_cells(read(finished / "02_b.ipynb"))[-1].outputs[0].text == "0.25\n"


def test_what_was_run_is_not_run_again_and_a_failure_keeps_it(checkout, capsys):
    notebook(checkout, "01_a.ipynb", "print(seed)")
    bad = notebook(checkout, "02_b.ipynb", "1 / 0")
    with pytest.raises(AimfairError, match=r"02_b\.ipynb stopped in code cell 3 of 3 .*ZeroDivisionError"):
        chapters.run("smoke", {"seed": 7})
    notebook(checkout, "02_b.ipynb", "print('well')")
    capsys.readouterr()
    first, second = chapters.run("smoke", {"seed": 7})
    said = capsys.readouterr().out
    assert "[1/2] 01_a: already run" in said and "[2/2] 02_b: done in" in said
    assert code_cells(read(first))[-1].outputs[0].text == "7\n"
    assert second.name == bad.name and not second.with_name("02_b.failed.ipynb").exists()


def test_chapters_that_the_contents_do_not_list_come_before_the_appendix(tmp_path):
    shutil.copy(home() / "book" / "_toc.yml", tmp_path)
    for name in ("99_new", "utkface/99_new", ".ipynb_checkpoints/99_new-checkpoint"):
        write(chapter(), tmp_path / "notebooks" / f"{name}.ipynb")
    parts = builder.table_of_contents(tmp_path)["parts"]
    shipped = yaml.safe_load((tmp_path / "_toc.yml").read_text())["parts"]
    assert parts[0] == shipped[0] and parts[-1] == shipped[-1]
    assert parts[len(shipped) - 1 : -1] == [
        {"caption": "More chapters", "numbered": True, "chapters": [{"file": "notebooks/99_new"}]},
        {"caption": "Profile utkface", "numbered": True, "chapters": [{"file": "notebooks/utkface/99_new"}]},
    ]


def test_the_contents_list_only_pages_that_exist():
    contents = yaml.safe_load((home() / "book" / "_toc.yml").read_text())
    listed = [contents["root"], *(entry["file"] for part in contents["parts"] for entry in part["chapters"])]
    found = [any((home() / "book" / f"{name}{end}").exists() for end in (".md", ".ipynb")) for name in listed]
    assert all(found), [name for name, there in zip(listed, found, strict=True) if not there]


def test_a_chapter_reaches_its_page_whole():
    page = (built() / "notebooks" / "00_small.html").read_text()
    assert f'alt="{ALT}"' in page and CAPTION in page
    assert "The mean is 1.250; see" in page.replace('<span class="pasted-text">', "").replace("</span>", "")
    assert "Parameters of this run" in page and "Zhao" in page
    assert "name of a profile, or the path of a YAML file" not in page  # the hidden defaults
    assert "boldsymbol" in page


def test_the_pages_of_the_real_book_are_good_and_a_bad_one_is_seen(tmp_path):
    assert pages.check(built()) == []
    html = shutil.copytree(built(), tmp_path / "html")
    page = html / "intro.html"
    page.write_text(page.read_text().replace("</body>", '<script src="https://cdn.example.org/x.js"></script></body>'))
    assert pages.check(html) == ["intro.html: fetches https://cdn.example.org/x.js from elsewhere"]


def test_a_warning_is_an_error_that_names_it(tmp_path):
    shutil.copy(home() / "book" / "_config.yml", tmp_path)
    shutil.copy(home() / "book" / "references.bib", tmp_path)
    shutil.copytree(home() / "book" / "_static", tmp_path / "_static")
    (tmp_path / "vendor").mkdir()
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: intro\nparts:\n- chapters:\n  - file: more\n")
    (tmp_path / "intro.md").write_text("# Intro\n\nSee {numref}`fig-nowhere` and {doc}`gone`.\n")
    (tmp_path / "more.md").write_text("# More\n")
    with pytest.raises(AimfairError, match="fig-nowhere") as refused:
        builder.build(tmp_path)
    assert "unknown document" in str(refused.value)


def test_the_small_chapter_is_published_as_it_was_run(tmp_path):
    path = executed(full_chapter(), tmp_path / "00_small.ipynb", profile="demo")
    assert [cell.source for cell in read(publish(path, tmp_path / "book")).cells][-1].startswith("## Table")
