"""The check of built pages: each thing that it looks for is put into a good page, and seen."""

import pages
import pytest

GOOD = """<!doctype html><html><head><link rel="stylesheet" href="style.css"><script src="book.js?v=1"></script></head>
<body><a href="https://arxiv.org">elsewhere</a> <a href="x.html"><span class="std std-numref">Figure 1</span></a>
<p>Read /home/ in prose.</p><img src="curve.png" alt="Curve: accuracy rises"><!--more--></body></html>"""


def written(folder, page=GOOD, style="body { background: url(curve.png) }"):
    folder.mkdir(exist_ok=True)
    for name, text in {"index.html": page, "style.css": style, "book.js": "", "curve.png": "", "x.html": ""}.items():
        (folder / name).write_text(text)
    return folder


def test_a_good_page_passes(tmp_path):
    assert pages.check(written(tmp_path)) == []


@pytest.mark.parametrize(
    ("put_in", "seen"),
    [
        ('<script src="https://cdn.example.org/a.js"></script>', "index.html: fetches https://cdn.example.org/a.js"),
        ('<script src="//cdn.example.org/a.js"></script>', "fetches //cdn.example.org/a.js"),
        ('<script>const u = "https://unpkg.com/thebe@0.8.2/lib/index.js"</script>', "fetches https://unpkg.com/thebe"),
        ('<link rel="stylesheet" href="https://fonts.example.org/css">', "fetches https://fonts.example.org/css"),
        ('<link rel="shortcut icon" href="https://example.org/i.ico">', "fetches https://example.org/i.ico"),
        ('<img src="https://img.example.org/badge.svg" alt="badge">', "fetches https://img.example.org/badge.svg"),
        ('<img srcset="curve.png 1x, https://example.org/2.png 2x" alt="c">', "fetches https://example.org/2.png"),
        ('<iframe src="https://example.org/player"></iframe>', "fetches https://example.org/player"),
        ('<style>@font-face { src: url("https://example.org/f.woff") }</style>', "fetches https://example.org/f.woff"),
        ('<div style="background: url(http://example.org/b.png)"></div>', "fetches http://example.org/b.png"),
        ('<img src="gone.png" alt="a curve">', "index.html: gone.png is missing"),
        ('<img src="curve.png">', "picture curve.png has no alternative text"),
        ('<img src="curve.png" alt=" ">', "picture curve.png has no alternative text"),
        ('<img src="curve.png" alt="_images/curve.png">', "has the name of a file as alternative text"),
        ('<img src="curve.png" alt="../build/abc123">', "has the name of a file as alternative text"),
        ('<span class="xref std std-numref">fig-gone</span>', "a numbered reference leads nowhere"),
    ],
)
def test_what_is_wrong_is_seen(tmp_path, put_in, seen):
    found = pages.check(written(tmp_path, GOOD.replace("<!--more-->", put_in)))
    assert len(found) == 1 and seen in found[0]


def test_a_style_sheet_that_fetches_from_elsewhere_is_seen(tmp_path):
    found = pages.check(written(tmp_path, style='@import "https://example.org/theme.css";'))
    assert found == ["style.css: fetches https://example.org/theme.css from elsewhere"]


def test_links_and_descriptions_are_left_alone(tmp_path):
    for harmless in (
        '<a href="https://example.org/a.js">a script</a>',
        '<link rel="canonical" href="https://example.org/">',
        '<img src="data:image/png;base64,AAAA" alt="TPR/FPR of both groups">',
    ):
        assert pages.check(written(tmp_path, GOOD.replace("<!--more-->", harmless))) == []
