"""The chapters that explain read easily: no sentence over 35 words and no paragraph over 110, but for stated reasons."""

import re

import pytest

from aimfair.book.notebook import read
from aimfair.environment import home

CHAPTERS = ["01", "02", "03", "04", "05", "06", "07"]
PAGES = [
    "book/how-to-run.md",
    "book/your-own-method.md",
    "book/glossary.md",
    "book/solutions.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
]
SENTENCE, PARAGRAPH = 35, 110
EXCEPTIONS: dict[str, str] = {}  # first words of a long sentence or paragraph: why it may be long


def texts(path):
    """The Markdown of a chapter's cells, and the captions of its figures; or the text of a page."""
    if path.suffix == ".md":
        return [path.read_text()]
    cells = read(path).cells
    captions = [cell.metadata.get("mystnb", {}).get("figure", {}).get("caption", "") for cell in cells]
    return [cell.source for cell in cells if cell.cell_type == "markdown"] + captions


def paragraphs(text):
    """Paragraphs and list items of prose: no code, mathematics, tables, headings or options; a role is a word."""
    text = re.sub(r"^(`{3,}|:{3,})\{?(math|code|python|bash|text|console|json)\b.*?^\1", "", text, flags=re.M | re.S)
    text = re.sub(r"^(`{3,}|:{3,}|:[\w-]+:|#|\||\$\$).*$", "", text, flags=re.M)
    text = re.sub(r"\{[\w:]+\}`[^`]*`|`[^`]*`|\$[^$]+\$", "word", text)
    text = re.sub(r"^\s*([-*]|\d+\.|\(\w\))\s+", "\n\n", text, flags=re.M)
    return [" ".join(p.split()) for p in re.split(r"\n\s*\n", text) if p.strip()]


def sentences(paragraph):
    return re.split(r"(?<=[.!?])[*_)\"]*\s+(?=[\W_]*[A-Z\d]|word)", paragraph)


def words(text):
    return sum(any(c.isalnum() for c in word) for word in text.split())


def too_long(path):
    found = [p for text in texts(path) for p in paragraphs(text)]
    long = [p for p in found if words(p) > PARAGRAPH] + [s for p in found for s in sentences(p) if words(s) > SENTENCE]
    return [(words(s), s) for s in long if not any(s.startswith(start) for start in EXCEPTIONS)]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_no_long_sentence_or_paragraph(name):
    assert too_long(home() / name) == []


@pytest.mark.parametrize("number", CHAPTERS)
def test_a_chapter_has_no_long_sentence_or_paragraph(number):
    (path,) = (home() / "notebooks").glob(f"{number}_*.ipynb")
    assert too_long(path) == []


def test_a_long_sentence_is_seen_and_what_is_no_prose_is_not(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# " + "a " * 40 + "\n\n```{math}\n" + "a " * 40 + "\n```\n\n" + "a " * 34 + "{doc}`b c d`. B b.\n")
    assert too_long(page) == []
    page.write_text("- " + "a " * 35 + "$a + b$\n")
    assert [count for count, _ in too_long(page)] == [36]
    page.write_text("```{admonition} A\n" + "A b c d e f g h i j. " * 12 + "\n```\n")
    assert [count for count, _ in too_long(page)] == [120]


def test_the_code_of_the_solutions_runs():
    blocks = re.findall(r"^```python\n(.*?)^```", (home() / "book" / "solutions.md").read_text(), re.M | re.S)
    assert len(blocks) >= 10
    exec("\n".join(blocks), {"__name__": "solutions"})
