"""What is published, what is refused, and what a published copy no longer holds."""

import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from small_book import chapter, executed

from aimfair.book.notebook import absolute_paths, code_cells, read
from aimfair.book.publishing import for_profile, publish
from aimfair.environment import AimfairError, home

PICTURE = {"image/png": "iVBORw0KGgo="}


def ran(source, *outputs, **metadata):
    return new_code_cell(source, outputs=list(outputs), metadata=metadata)


def printed(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def shown(**data):
    return new_output("display_data", data={key.replace("__", "/"): value for key, value in data.items()})


def published(folder, *cells, **parameters):
    path = executed(chapter(*cells), folder / "runs" / "00_small.ipynb", **parameters)
    return read(publish(path, folder / "book"))


def refused(folder, *cells, **parameters):
    with pytest.raises(AimfairError) as error:
        published(folder, *cells, **parameters)
    assert not (folder / "book").exists()
    return str(error.value)


def test_a_notebook_without_a_stamp_is_refused(tmp_path):
    path = executed(chapter(), tmp_path / "00_small.ipynb")
    path.with_suffix(".json").unlink()
    with pytest.raises(AimfairError, match="no stamp of a finished run"):
        publish(path, tmp_path / "book")


def test_errors_and_cells_that_were_not_run_in_order_are_refused(tmp_path):
    error = new_output("error", ename="ValueError", evalue="no", traceback=[])
    assert "code cell 2 holds an error" in refused(tmp_path, ran("int('a')", error))
    skipped = ran("1 + 1")
    skipped.execution_count = 7
    assert "not run once each in order: counts [1, 7]" in refused(tmp_path, skipped)


def test_an_expected_error_is_published(tmp_path):
    error = new_output(
        "error", ename="AimfairError", evalue="the group is too small", traceback=["the group is too small"]
    )
    copy = published(tmp_path, ran("int('a')", error, tags=["raises-exception"]))
    assert copy.cells[-1].outputs[0].ename == "AimfairError"


@pytest.mark.parametrize("text", ["read /home/ada/faces/000001.jpg", "C:\\\\Users\\\\ada", "see /mnt/data/celeba"])
def test_paths_of_a_machine_are_refused(tmp_path, text):
    assert "a path of this machine" in refused(tmp_path, ran("show()", printed(text)))


@pytest.mark.parametrize(
    "text", ["and/or", "https://arxiv.org/abs/2503.05665", "a path/to/celeba", "1/9 of 4/5", "</td></tr>"]
)
def test_what_only_looks_like_a_path_is_published(tmp_path, text):
    published(tmp_path, ran("show()", printed(text)))


def test_places_of_this_run_are_written_as_a_reader_would(tmp_path):
    inside, outside = str(home() / "data" / "runs"), str(tmp_path / "disk" / "celeba")
    injected = ran(f'# Parameters\nruns_root = "{inside}"\ndata_root = "{outside}"', tags=["injected-parameters"])
    said = ran("show()", printed(f"{inside}/ab12 and {outside}/000001.jpg"))
    copy = published(tmp_path, injected, said, runs_root=inside, data_root=outside)
    assert 'runs_root = "data/runs"\ndata_root = "path/to/celeba"' in copy.cells[-2].source
    assert copy.cells[-1].outputs[0].text == "data/runs/ab12 and path/to/celeba/000001.jpg"
    assert not absolute_paths(copy)


def test_pictures_on_photographs_need_the_tag_that_says_there_is_no_face(tmp_path):
    photographs = {"profile": "celeba-smiling-male"}
    figure = lambda **metadata: ran("plot()", shown(image__png=PICTURE["image/png"]), **metadata)  # noqa: E731
    assert "without the tag figure-without-faces" in refused(tmp_path, figure(), **photographs)
    assert "tag figure-without-faces" in refused(
        tmp_path, ran("show()", shown(text__html="<img src='data:,'>")), **photographs
    )
    assert "cell 3" in refused(
        tmp_path, new_markdown_cell("![face](data:image/png;base64,iVBORw0KGgo=)"), **photographs
    )
    assert "on celeba" in refused(tmp_path, figure(), profile="demo", dataset="celeba")
    published(tmp_path, figure(tags=["figure-without-faces"]), **photographs)
    published(tmp_path, figure(), profile="demo")


def test_defaults_are_hidden_and_the_parameters_of_the_run_are_explained(tmp_path):
    injected = ran('# Parameters\nprofile = "demo"\nreuse = False', tags=["injected-parameters"])
    copy = published(tmp_path, injected, profile="demo", reuse=False)
    assert [cell.metadata.get("tags") for cell in copy.cells] == [
        None,
        ["parameters", "remove-input"],
        ["parameters-note"],
        ["injected-parameters"],
    ]
    note = copy.cells[2].source
    assert "Profile `demo`, run on 2026-01-02 in 12 s on 2 CPU cores" in note
    assert copy.metadata.aimfair.seconds == 12.3 and copy.metadata.aimfair.reuse is False


def test_a_run_with_defaults_keeps_its_parameters_visible(tmp_path):
    assert published(tmp_path).cells[1].metadata.tags == ["parameters"]


def test_traces_of_the_run_are_dropped(tmp_path):
    widget = shown(**{"text__plain": "0%", "application__vnd.jupyter.widget-view+json": {"model_id": "ab"}})
    cell = ran("train()", printed("loss 1"), printed(" and 2\n"), printed("a warning", "stderr"), widget)
    cell.metadata |= {"papermill": {"duration": 1.5}, "execution": {"iopub.execute_input": "2026"}}
    notebook = chapter(cell)
    notebook.metadata |= {"papermill": {"duration": 3}, "widgets": {"state": {}}}
    path = executed(notebook, tmp_path / "runs" / "00_small.ipynb")
    copy = read(publish(path, tmp_path / "book"))
    text = nbformat.writes(copy)
    for trace in ("papermill", "widget", "iopub", "a warning"):
        assert trace not in text
    assert [output.get("text") for output in code_cells(copy)[-1].outputs] == ["loss 1 and 2\n", None]


def test_a_copy_beyond_the_budget_is_refused(tmp_path):
    assert "more than 1 MB" in refused(tmp_path, ran("print(text)", printed("x" * 1_000_001)))


def test_publishing_twice_gives_the_same_bytes(tmp_path):
    path = executed(chapter(ran("1", printed("1"))), tmp_path / "runs" / "00_small.ipynb", profile="demo")
    first = publish(path, tmp_path / "book").read_bytes()
    assert publish(path, tmp_path / "book").read_bytes() == first
    assert json.loads(first)["metadata"]["aimfair"]["date"] == "2026-01-02"


def test_a_chapter_of_another_profile_has_labels_of_its_own_and_links_that_exist():
    text = "# A title\n\n```{math}\n:label: eq-a\nx\n```\nSee {eq}`eq-a`, {numref}`fig-b`, {eq}`eq-abc`, {doc}`05_here` and {doc}`01_there`."
    figure = {"mystnb": {"figure": {"name": "fig-b", "caption": "c"}, "image": {"alt": "a"}}}
    notebook = new_notebook(cells=[new_markdown_cell(text), new_code_cell("plot()", metadata=figure)])
    changed = for_profile(notebook, "utkface", {"05_here"})
    said = changed.cells[0].source
    assert said.startswith("# A title: utkface\n")
    assert ":label: utkface-eq-a\n" in said and "{eq}`utkface-eq-a`" in said and "{numref}`utkface-fig-b`" in said
    assert "{eq}`eq-abc`" in said  # defined by another chapter: a link into the main study
    assert "{doc}`05_here`" in said and "{doc}`../01_there`" in said
    assert changed.cells[1].metadata["mystnb"]["figure"]["name"] == "utkface-fig-b"


def test_a_run_with_a_profile_of_ones_own_is_published_under_the_name_of_its_file(tmp_path):
    mine = tmp_path / "my-faces.yaml"
    mine.write_text((home() / "notebooks" / "profiles" / "smoke.yaml").read_text())
    injected = ran(f'# Parameters\nprofile = "{mine}"', tags=["injected-parameters"])
    notebook = published(tmp_path, injected, profile=str(mine))
    assert notebook.cells[0].source == "# A small chapter: my-faces"
    assert "Profile `path/to/my-faces.yaml`" in json.dumps(notebook) and str(tmp_path) not in json.dumps(notebook)
