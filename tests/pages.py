"""Check built HTML pages: nothing fetched from elsewhere, nothing missing, every picture described."""

import re
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup

FETCHED_LINKS = {"stylesheet", "icon", "preload", "prefetch", "modulepreload", "preconnect", "dns-prefetch", "manifest"}
SOURCES = ("src", "srcset", "data", "poster", "data-src")
ELSEWHERE = re.compile(r"^(?:[a-z]+:)?//", re.IGNORECASE)
IN_STYLE = re.compile(r"""(?:url\(|@import)\s*['"]?((?:https?:)?//[^'")\s;]+)""")
IN_SCRIPT = re.compile(r"""['"`]((?:https?:)?//[^'"`\s]+\.(?:m?js|css|wasm))\b""")
A_FILE = re.compile(r"\.(png|jpe?g|svg|gif|webp)$|^[\w.-]*(/[\w.-]+)+$", re.IGNORECASE)


def fetched(page):
    """Addresses that a browser asks for when it shows the page."""
    for tag in page.find_all("link"):
        if FETCHED_LINKS & set(tag.get("rel", [])):
            yield tag.get("href", "")
    for tag in page.find_all(lambda tag: tag.name != "a" and any(tag.has_attr(name) for name in SOURCES)):
        for name in SOURCES:
            parts = tag.get(name, "").split(",") if name == "srcset" else [tag.get(name, "")]
            yield from (part.split()[0] for part in parts if part.strip())
    for tag in page.find_all(style=True):
        yield from IN_STYLE.findall(tag["style"])
    for name, pattern in (("style", IN_STYLE), ("script", IN_SCRIPT)):
        for tag in page.find_all(name):
            yield from pattern.findall(tag.string or "")


def check(folder):
    """Everything that is wrong with the pages below ``folder``, one line each; empty when they are good.

    What a script asks for while it runs cannot be read off a page: that is seen by opening it in a browser.
    """
    found = []
    for path in sorted(set(folder.rglob("*.html")) - set(folder.glob("_static/**/*.html"))):
        page, name = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser"), path.relative_to(folder)
        for address in fetched(page):
            local = unquote(urlsplit(address).path)
            if ELSEWHERE.match(address):
                found.append(f"{name}: fetches {address} from elsewhere")
            elif not address.startswith(("data:", "#")) and local and not (path.parent / local).exists():
                found.append(f"{name}: {address} is missing")
        for picture in page.find_all("img"):
            alt, shown = picture.get("alt", "").strip(), picture.get("src", "")[:80]
            if not alt:
                found.append(f"{name}: picture {shown} has no alternative text")
            elif A_FILE.search(alt):
                found.append(f"{name}: picture {shown} has the name of a file as alternative text: {alt}")
        dangling = [tag for tag in page.find_all(class_="std-numref") if not tag.find_parent("a")]
        found += [f"{name}: a numbered reference leads nowhere" for _ in dangling]
    for style in sorted(folder.rglob("*.css")):
        addresses = IN_STYLE.findall(style.read_text(encoding="utf-8", errors="replace"))
        found += [f"{style.relative_to(folder)}: fetches {address} from elsewhere" for address in addresses]
    return found
