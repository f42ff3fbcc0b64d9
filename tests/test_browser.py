"""The built book in a real browser, at the width of a desktop and of a phone."""

import functools
import http.server
import shutil
import threading
from importlib.resources import files

import pytest
from small_book import ALT, built

WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}


def chromium():
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((path for name in names if (path := shutil.which(name))), None)


pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine: apt-get install chromium")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address():
    """Where the built pages are served, as a web server would."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=built()))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(params=WIDTHS)
def page(request, browser, address):
    """A page that notes everything a reader would miss: failed and foreign requests, errors of scripts."""
    width, height = WIDTHS[request.param]
    opened = browser.new_page(viewport={"width": width, "height": height}, color_scheme="light", base_url=address)
    opened.set_default_timeout(120_000)  # a busy machine is no fault of the book
    opened.complaints = []
    opened.on("console", lambda message: opened.complaints.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: opened.complaints.append(str(error)))
    opened.on("response", lambda response: opened.complaints.append(response.url) if response.status >= 400 else None)
    opened.on(
        "request",
        lambda sent: None if sent.url.startswith((address, "data:", "blob:")) else opened.complaints.append(sent.url),
    )
    yield opened
    assert opened.complaints == []
    opened.close()


def names():
    return sorted(
        path.relative_to(built()).as_posix() for path in built().rglob("*.html") if "_static" not in path.parts
    )


def test_no_page_is_wider_than_the_screen_and_every_picture_is_there(page):
    for name in names():
        page.goto(f"/{name}")
        page.wait_for_function("document.readyState == 'complete'")
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), name
        broken = (
            "[...document.images].filter(i => i.loading != 'lazy' && !i.naturalWidth && i.checkVisibility()).length"
        )
        assert page.evaluate(broken) == 0, name


def test_the_first_page_is_the_introduction(page):
    page.goto("/index.html")
    page.wait_for_url("**/intro.html")
    assert page.locator("h1").first.inner_text().startswith("AIM-Fair")


def test_maths_is_set(page):
    page.goto("/notebooks/00_small.html")
    page.wait_for_selector("mjx-container")
    assert page.locator("mjx-container").count() >= 2
    assert page.locator("mjx-merror, [data-mjx-error]").count() == 0
    assert page.locator("mjx-container[display='true']").first.bounding_box()["height"] > 20


def test_figures_are_numbered_described_and_referred_to(page):
    page.goto("/notebooks/00_small.html")
    figure = page.locator("figure#fig-small")
    assert figure.locator("img").get_attribute("alt") == ALT
    assert figure.locator(".caption-number").inner_text().startswith("Figure")
    assert page.locator("a[href='#fig-small'] .std-numref").inner_text().startswith("Figure")


AXE = """axe.run(document, {preload: false, resultTypes: ['violations']})
    .then(found => found.violations.map(each => [each.id, each.impact]))"""
READ = ["404", "intro", "references", "your-own-method", "notebooks/00_small", "notebooks/03_prompts"]


def serious(page):
    """Rules of accessibility that the page breaks, those that keep a reader out."""
    page.add_script_tag(path=files("axe_playwright_python") / "axe.min.js")
    return [rule for rule, impact in page.evaluate(AXE) if impact in ("serious", "critical")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", READ)
def test_a_page_keeps_nobody_out(page, name, scheme):
    page.emulate_media(color_scheme=scheme)
    page.goto(f"/{name}.html")
    page.wait_for_load_state()
    for _ in range(20):  # colours may still be on their way from one scheme to the other
        if not serious(page):
            break
        page.wait_for_timeout(250)
    assert serious(page) == []
    assert page.locator(".theme-switch-button").count() <= 1


def test_what_scrolls_sideways_takes_the_keyboard(page):
    page.goto("/notebooks/00_small.html")
    reachable = "[...document.querySelectorAll('article pre')].some(box => box.tabIndex === 0)"
    page.set_viewport_size({"width": 320, "height": 600})
    page.wait_for_function(reachable)
    page.set_viewport_size({"width": 1600, "height": 600})
    page.wait_for_function(f"!{reachable}")


def test_an_equation_and_its_number_do_not_meet(page):
    page.goto("/notebooks/00_small.html")
    page.wait_for_selector("div.math mjx-container")
    formula, number = (page.locator(f"div.math {part}").first.bounding_box() for part in ("mjx-container", ".eqno"))
    beside = formula["x"] + formula["width"] <= number["x"] + 1
    below = formula["y"] + formula["height"] <= number["y"] + 1
    assert beside or below


def test_a_verdict_is_a_box_that_opens(page):
    page.goto("/notebooks/00_small.html")
    box = page.locator("details.claim")
    assert box.locator("summary").inner_text().startswith("✓ Holds here: shift is positive")
    closed = box.bounding_box()["height"]
    box.locator("summary").click()
    assert box.bounding_box()["height"] > closed + 10 and "it is 0.5" in box.inner_text()


def test_search_finds_a_word(page):
    page.goto("/intro.html")
    page.locator(".search-button__button:visible, .search-button-field:visible").first.click()
    box = page.locator("input[type=search]:visible")
    box.fill("papermill")
    box.press("Enter")
    page.wait_for_url("**/search.html?q=papermill**")
    page.wait_for_selector("#search-results ul.search li")
    assert "How to run" in page.locator("#search-results").inner_text()


def test_dark_mode_can_be_switched_and_stays_readable(page):
    page.goto("/notebooks/00_small.html")
    brightness = """() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)
        .reduce((a, b) => a + b) / 3"""
    assert page.evaluate(brightness) > 200
    for _ in range(3):  # auto, light, dark
        if page.evaluate("document.documentElement.dataset.theme") == "dark":
            break
        page.locator(".theme-switch-button:visible").first.click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate(brightness) < 60
    ink = "getComputedStyle(document.querySelector('article p')).color.match(/\\d+/g).slice(0, 3).map(Number)"
    assert sum(page.evaluate(ink)) / 3 > 150


def test_the_chapters_can_be_reached(page):
    page.goto("/intro.html")
    if page.viewport_size["width"] < 500:
        page.locator("button.primary-toggle:visible").first.click()
    page.locator(".bd-sidebar-primary a:visible", has_text="How to run this book").click()
    page.wait_for_url("**/how-to-run.html")
