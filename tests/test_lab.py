"""Chapters in a running JupyterLab, in a real browser: what the book shows is shown there, before and after a run."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request

import pytest
from test_browser import browser, chromium  # noqa: F401

from aimfair.book import lab
from aimfair.book.notebook import read
from aimfair.environment import home

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine: apt-get install chromium")
RAW = ["{glue", "{cite", "{doc}", "{numref", "{eq}", "```", "$$", ":label:", "\\\\begin{"]
"""What a reader of a rendered cell must not meet."""
IDLE = "document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status === 'idle'"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Where JupyterLab serves a folder with two chapters; its own settings are not read nor changed."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "chapters").mkdir()
    for name in ("01_fairness_metrics", "03_prompts"):
        shutil.copy(home() / "notebooks" / f"{name}.ipynb", folder / "chapters")
    (folder / "data").mkdir()
    (folder / "data" / "prompts").symlink_to(home() / "data" / "prompts")  # a chapter looks for a script there
    lab.write_extension(folder)
    places = {f"JUPYTER_{kind}_DIR": str(folder / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    places |= {f"JUPYTERLAB_{kind}_DIR": str(folder / kind.lower()) for kind in ("SETTINGS", "WORKSPACES")}
    paths = os.pathsep.join([str(home()), str(home() / "notebooks"), os.environ.get("PYTHONPATH", "")])
    every_cell = folder / "settings" / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings"
    every_cell.parent.mkdir(parents=True)
    every_cell.write_text('{"windowingMode": "none"}')  # else cells off the screen are not there
    command = [sys.executable, "-m", "jupyterlab", str(folder / "chapters"), "--no-browser", "--allow-root", "--port=0"]
    command += ["--IdentityProvider.token=", "--LabApp.news_url="]
    environment = os.environ | places | {"JUPYTER_PATH": str(folder), "PYTHONPATH": paths}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield wait_for(folder / "runtime", server)
    finally:
        server.terminate()
        server.wait(60)


def wait_for(folder, server):
    """The address that the server has written down, once it answers."""
    for _ in range(600):
        for path in folder.glob("jpserver-*.json"):
            url = json.loads(path.read_text())["url"]
            urllib.request.urlopen(url + "api").close()
            return url
        assert server.poll() is None, "JupyterLab stopped"
        time.sleep(0.2)
    raise AssertionError("JupyterLab does not start")


def opened(browser, address, name):  # noqa: F811
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.set_default_timeout(180_000)  # a busy machine is no fault of the book
    page.goto(f"{address}lab/tree/{name}.ipynb?reset")
    texts = sum(cell.cell_type == "markdown" for cell in read(home() / "notebooks" / f"{name}.ipynb").cells)
    page.wait_for_function(f"document.querySelectorAll('.jp-MarkdownCell .myst').length >= {texts}")
    page.wait_for_function(IDLE)
    return page


def rendered(page):
    page.wait_for_timeout(2_000)
    return "\n".join(page.locator(".jp-MarkdownCell .myst").all_inner_texts())


@pytest.mark.parametrize("name", ["01_fairness_metrics", "03_prompts"])
def test_a_chapter_shows_no_markup_before_and_after_it_ran(browser, address, name):  # noqa: F811
    page = opened(browser, address, name)
    before = rendered(page)
    assert [mark for mark in RAW if mark in before] == []
    assert page.locator(".myst [title$='Not Found']").count() == 0
    assert page.locator(".myst .katex-display").count() > 0
    assert page.locator(".jp-OutputArea details.claim, .jp-OutputArea div.claim").count() > 2
    page.locator("[data-command='notebook:restart-run-all']").first.click()
    page.locator(".jp-Dialog .jp-mod-accept").click()
    page.wait_for_function("!document.querySelector('.jp-InputPrompt')?.innerText.includes('*')")
    page.wait_for_timeout(2_000)
    page.wait_for_function(IDLE)
    assert page.locator("[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    assert rendered(page) == before
    page.close()


def test_numbers_have_the_format_that_the_text_asks_for(browser, address):  # noqa: F811
    page = opened(browser, address, "01_fairness_metrics")
    assert "It is right 89 times in 100" in rendered(page)
    assert "[Zhao et al., 2025]" in rendered(page)
    assert page.locator(".jp-Notebook figcaption").first.inner_text().startswith("Figure 1: Group accuracies")
    page.close()
