"""Check built HTML pages: nothing fetched from elsewhere, nothing missing, every picture described."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

FETCHED_LINKS = {"stylesheet", "icon", "preload", "prefetch", "modulepreload", "preconnect", "dns-prefetch", "manifest"}
SOURCES = {"src", "srcset", "data", "poster", "data-src"}
ELSEWHERE = re.compile(r"^(?:[a-z]+:)?//", re.IGNORECASE)
IN_STYLE = re.compile(r"""(?:url\(|@import)\s*['"]?((?:https?:)?//[^'")\s;]+)""")
IN_SCRIPT = re.compile(r"""['"`]((?:https?:)?//[^'"`\s]+\.(?:m?js|css|wasm))\b""")


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.fetched: list[str] = []  # addresses that a browser asks for when it shows the page
        self.pictures: list[tuple[str, str]] = []  # (address, alternative text)
        self.dangling: list[str] = []  # cross-references that led nowhere
        self._inside = ""
        self._links = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self._inside = tag if tag in ("script", "style") else ""
        self._links += tag == "a"
        if tag == "link" and FETCHED_LINKS & set(given.get("rel", "").split()):
            self.fetched.append(given.get("href", ""))
        if tag != "a":
            for name in SOURCES & given.keys():
                parts = given[name].split(",") if name == "srcset" else [given[name]]
                self.fetched += [part.split()[0] for part in parts if part.strip()]
        self.fetched += IN_STYLE.findall(given.get("style", ""))
        if tag == "img":
            self.pictures.append((given.get("src", ""), given.get("alt", "").strip()))
        if "std-numref" in given.get("class", "").split() and not self._links:
            self.dangling.append("a numbered reference")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""
        self._links -= tag == "a"

    def handle_data(self, data: str) -> None:
        if self._inside == "style":
            self.fetched += IN_STYLE.findall(data)
        elif self._inside == "script":
            self.fetched += IN_SCRIPT.findall(data)


def looks_like_a_path(text: str) -> bool:
    """Whether an alternative text is only the name of a file, as Sphinx puts where an author gave none."""
    return bool(re.search(r"\.(png|jpe?g|svg|gif|webp)$|^[\w.-]*(/[\w.-]+)+$", text, re.IGNORECASE))


def check(folder: Path) -> list[str]:
    """Everything that is wrong with the pages below ``folder``, one line each; empty when they are good.

    What a script asks for while it runs cannot be read off a page: that is seen by opening it in a browser.
    """
    found = []
    for path in sorted(set(folder.rglob("*.html")) - set(folder.glob("_static/**/*.html"))):
        page = _Page()
        page.feed(path.read_text(encoding="utf-8"))
        name = path.relative_to(folder)
        for address in page.fetched:
            if ELSEWHERE.match(address):
                found.append(f"{name}: fetches {address} from elsewhere")
            elif not address.startswith(("data:", "#")) and not _exists(path, address):
                found.append(f"{name}: {address} is missing")
        for address, alt in page.pictures:
            shown = address if len(address) < 100 else f"{address[:60]}..."
            if not alt:
                found.append(f"{name}: picture {shown} has no alternative text")
            elif looks_like_a_path(alt):
                found.append(f"{name}: picture {shown} has the name of a file as alternative text: {alt}")
        found += [f"{name}: {what} leads nowhere" for what in page.dangling]
    for style in sorted(folder.rglob("*.css")):
        addresses = IN_STYLE.findall(style.read_text(encoding="utf-8", errors="replace"))
        found += [f"{style.relative_to(folder)}: fetches {address} from elsewhere" for address in addresses]
    return found


def _exists(page: Path, address: str) -> bool:
    local = unquote(urlsplit(address).path)
    return not local or (page.parent / local).exists()
