"""Every stored notebook keeps the contract of the book; each rule is also seen to refuse what breaks it."""

import json
import re
from importlib.util import module_from_spec, spec_from_file_location

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_output
from small_book import ALT, CAPTION, chapter, full_chapter

from aimfair.book.chapters import chapters, published_folder
from aimfair.book.execution import notebook_parameters
from aimfair.book.notebook import absolute_paths, code_cells, faults, read, tidy
from aimfair.book.publishing import for_profile
from aimfair.environment import home
from aimfair.study.profiles import COMMON

SOURCES = sorted((home() / "notebooks").glob("*.ipynb"))
COPIES = sorted((home() / "book" / "notebooks").rglob("*.ipynb"))
BUDGET = {"notebooks": 300_000, "book": 1_000_000}
ADDED = {"injected-parameters", "parameters-note"}


def tags(cell):
    return set(cell.metadata.get("tags", []))


def undescribed_figures(notebook):
    """Code cells that show a picture without a caption, a name to refer to it by, or an alternative text."""
    found = []
    for number, cell in enumerate(code_cells(notebook), 1):
        given = cell.metadata.get("mystnb", {})
        figure, image = given.get("figure", {}), given.get("image", {})
        if pictures(cell) and not (figure.get("caption") and figure.get("name") and image.get("alt")):
            found.append(number)
    return found


def pictures(cell):
    return [mime for output in cell.outputs for mime in output.get("data", {}) if mime.startswith("image/")]


def missing_parameters(path):
    """Common parameters that are not declared, or not as annotated lines with a help text."""
    declared = notebook_parameters(path)
    (cell,) = [cell for cell in read(path).cells if "parameters" in tags(cell)] or [None]
    explained = re.findall(r"^(\w+): .*  # \S", cell.source, re.MULTILINE) if cell else []
    return [name for name, kind in COMMON.items() if declared.get(name) != kind.__name__ or name not in explained]


def without_added(notebook):
    """Sources of all cells but those that a run with parameters adds."""
    return [cell.source for cell in notebook.cells if not tags(cell) & ADDED]


def test_there_are_notebooks():
    assert SOURCES


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
class TestSource:
    def test_was_run_from_top_to_bottom_without_an_error(self, path):
        assert faults(read(path)) == []

    def test_names_no_path_of_a_machine(self, path):
        assert absolute_paths(read(path)) == []

    def test_is_in_stored_form(self, path):
        assert nbformat.writes(tidy(read(path))) + "\n" == path.read_text(), f"aimfair refresh notebooks/{path.name}"

    def test_prints_no_warnings(self, path):
        streams = [o for c in code_cells(read(path)) for o in c.outputs if o.output_type == "stream"]
        assert [o.text for o in streams if o.name == "stderr"] == []

    def test_is_small(self, path):
        assert path.stat().st_size <= BUDGET["notebooks"]

    def test_describes_every_figure(self, path):
        assert undescribed_figures(read(path)) == []

    def test_shows_only_pictures_that_nbval_and_browsers_agree_on(self, path):
        assert {mime for cell in code_cells(read(path)) for mime in pictures(cell)} <= {"image/png", "image/jpeg"}

    def test_declares_the_common_parameters(self, path):
        assert missing_parameters(path) == []

    def test_names_its_figures_and_numbers_once(self, path):
        cells = code_cells(read(path))
        names = [c.metadata["mystnb"]["figure"]["name"] for c in cells if c.metadata.get("mystnb", {}).get("figure")]
        names += [
            o.metadata["scrapbook"]["name"] for c in cells for o in c.outputs if "scrapbook" in o.get("metadata", {})
        ]
        assert len(names) == len(set(names))


@pytest.mark.parametrize("path", COPIES, ids=lambda path: path.relative_to(home() / "book" / "notebooks").as_posix())
class TestCopy:
    def test_is_a_good_run_that_names_no_machine(self, path):
        assert faults(read(path)) == [] and absolute_paths(read(path)) == []

    def test_is_small(self, path):
        assert path.stat().st_size <= BUDGET["book"]

    def test_says_when_and_on_what_it_was_run(self, path):
        assert {"date", "device", "seconds", "code_hash", "parameters_hash"} <= read(path).metadata["aimfair"].keys()

    def test_has_the_text_and_code_of_its_source(self, path):
        source, folder = read(home() / "notebooks" / path.name), path.parent.name
        if folder != "notebooks":
            source = for_profile(source, folder, {chapter.stem for chapter in chapters(folder)})
        assert without_added(read(path)) == without_added(source), f"publish it again: aimfair book --only {path.stem}"


@pytest.mark.parametrize("profile", ["demo", *sorted({p.parent.name for p in COPIES} - {"notebooks"})])
def test_what_the_book_command_runs_for_a_profile_is_what_is_published_of_it(profile):
    published = {path.stem for path in published_folder(profile).glob("*.ipynb")}
    assert {path.stem for path in chapters(profile)} == published


def stored(folder, notebook):
    path = folder / "00_small.ipynb"
    nbformat.write(notebook, path)
    return path


def test_a_chapter_that_keeps_the_contract_passes(tmp_path):
    notebook = full_chapter()
    notebook.cells[5].outputs = [new_output("display_data", data={"image/png": "iVBORw0KGgo="})]
    assert undescribed_figures(notebook) == [] and missing_parameters(stored(tmp_path, notebook)) == []


@pytest.mark.parametrize("missing", ["caption", "name", "alt"])
def test_a_figure_without_description_is_seen(missing):
    given = {"figure": {"caption": CAPTION, "name": "fig-a"}, "image": {"alt": ALT}}
    for part in given.values():
        part.pop(missing, None)
    picture = new_output("display_data", data={"image/png": "iVBORw0KGgo="})
    assert undescribed_figures(chapter(new_code_cell("plot()", outputs=[picture], metadata={"mystnb": given}))) == [2]


@pytest.mark.parametrize(
    ("old", "new", "seen"),
    [
        ("seed: int = 100", "seed = 100", "seed"),
        ("  # take published runs", "", "reuse"),
        ("device: str", "gpu: str", "device"),
        ('data_root: str = ""', "data_root: int = 0", "data_root"),
    ],
)
def test_a_parameter_that_is_missing_or_not_explained_is_seen(tmp_path, old, new, seen):
    notebook = chapter()
    assert old in notebook.cells[1].source
    notebook.cells[1].source = notebook.cells[1].source.replace(old, new)
    assert missing_parameters(stored(tmp_path, notebook)) == [seen]


def test_ids_of_styled_tables_do_not_depend_on_the_run():
    def made(first, second):
        html = f'<table id="T_{first}"><td class="T_{first}_row0"></table><table id="T_{second}"></table>'
        text = f"<pandas.io.formats.style.Styler at 0x7f{first}>"
        shown = new_output("display_data", {"text/html": html, "text/plain": text})
        return tidy(chapter(new_code_cell("show()", outputs=[shown])))

    one, other = (made(*ids).cells[-1].outputs for ids in (("8c764", "b7501"), ("0fa31", "00001")))
    assert one == other and 'id="T_00001"' in one[0].data["text/html"]
    again = made("00000", "00001")
    assert tidy(again).cells[-1].outputs == one


def test_widget_state_and_time_stamps_are_not_stored_form(tmp_path):
    notebook = chapter(new_code_cell("1", metadata={"execution": {"iopub.status.busy": "2026"}}))
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {}}
    before = nbformat.writes(notebook)
    after = json.loads(nbformat.writes(tidy(nbformat.from_dict(json.loads(before)))))
    assert "widgets" not in after["metadata"] and after["cells"][-1]["metadata"] == {}
    assert nbformat.writes(tidy(nbformat.from_dict(after))) == nbformat.writes(nbformat.from_dict(after))


def sanitised(text):
    """As nbval does it: every pair of the file, in order."""
    pairs = re.findall(r"^regex: (.*)$\n^replace: (.*)$", (home() / "tests" / "nbval_sanitize.cfg").read_text(), re.M)
    for pattern, replacement in pairs:
        text = re.sub(pattern, replacement, text)
    return text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("<matplotlib.lines.Line2D at 0x7f3a12bc>", "<matplotlib.lines.Line2D at 0x55e0aa10>"),
        ("/tmp/ipykernel_81/41.py:3: UserWarning", "/tmp/ipykernel_9/7.py:3: UserWarning"),
        ("train: 40%|####  | 4/10 [00:01<00:02, 3.1it/s]", "train: 90%|######| 9/10 [00:07<00:01, 1.1it/s]"),
        ("done in 12.3 s", "done in 8 s"),
        ("took 3 min 12 s", "took 2 min 59 s"),
        ("drew 1,750 images/s", "drew 4000 images/s"),
        ("0.123456789", "0.123499999"),
        ("<style>#T_0a1b2 td", "<style>#T_ffe01 td"),
        ("{'image/png': 'iVBORw0KGgoAAAA='}", "{'image/png': 'iVBORw0KGgoBBBB='}"),
        ("run on 2026-11-20 on 2 CPU cores", "run on 2027-01-02 on NVIDIA H200"),
    ],
)
def test_what_differs_between_good_runs_is_not_compared(one, other):
    assert sanitised(one) == sanitised(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ACC 84.213", "ACC 84.214"),
        ("0.1234", "0.1235"),
        ("5 masks of 62 tensors", "6 masks of 62 tensors"),
        ("group (1, 0): 450 faces", "group (1, 0): 45 faces"),
        ("layer4.1.conv2.weight", "layer4.0.conv2.weight"),
        ("Smiling", "Male"),
    ],
)
def test_what_is_a_result_is_compared(one, other):
    assert sanitised(one) != sanitised(other)


@pytest.mark.parametrize(
    ("new", "stored", "same"),
    [
        ("mean 91.13, 400 faces", "mean 91.61, 400 faces", True),
        ("mean 91.13, 400 faces", "mean 97.13, 400 faces", False),
        ("3 near-duplicates", "2 near-duplicates", True),
        ("0.12", "0.16", True),
        ("0.12", "0.19", False),
        ("**Holds here:** more (1.2)", "**Contradicted:** more (1.2)", False),
        ("1.0, 2.0", "1.0", False),
        ({"text/plain": "a    150.0\nb  1.0"}, {"text/plain": "a  150.00\nb 1.00"}, True),
    ],
)
def test_what_is_computed_anew_is_compared_within_a_tolerance(new, stored, same):
    spec = spec_from_file_location("chapters_conftest", home() / "notebooks" / "conftest.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (module.near(new, stored) == stored) is same
