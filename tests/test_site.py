"""The documentation site: built strictly and without a network, and complete by itself."""

from __future__ import annotations

import re
import socket
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from pages import ROOT

# what a browser fetches by itself, with the attribute that says from where
FETCHED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "video": "src"}


class Fetches(HTMLParser):
    """The addresses that a page has a browser fetch, those of its links, and its anchors."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.linked: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if address := given.get(FETCHED.get(tag, "")):
            self.fetched.append(address)
        if tag == "a" and given.get("href"):
            self.linked.append(given["href"] or "")
        if given.get("id"):
            self.anchors.add(given["id"] or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built with every warning an error and no way out of this machine."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    def closed(*_: object) -> None:
        raise AssertionError("the build asks for a network")

    place = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", closed)
        patch.setattr(socket, "getaddrinfo", closed)
        build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(place), strict=True))
    return place


def test_every_page_is_in_the_site(site):
    for page in (ROOT / "docs").rglob("*.md"):
        assert (site / page.relative_to(ROOT / "docs").with_suffix(".html")).exists(), page
    assert not list(site.rglob("*.py")) and not list(site.rglob("*.md"))


def test_nothing_is_fetched_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        remote = [address for address in Fetches(page).fetched if re.match(r"(https?:)?//", address)]
        assert not remote, f"{page.name} fetches {remote}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", sheet.read_text()), sheet.name


def test_links_lead_to_pages_and_anchors_of_the_site(site):
    seen = {page: Fetches(page) for page in site.rglob("*.html")}
    for page, found in seen.items():
        if page.name == "404.html":
            continue
        for address in (*found.linked, *found.fetched):
            path, _, anchor = unquote(address).partition("#")
            if re.match(r"[a-z]+:", address):
                continue
            target = (page.parent / path.partition("?")[0]).resolve() if path else page
            target = target / "index.html" if target.is_dir() else target
            assert target.exists(), f"{page.name} leads to {address}"
            if anchor and target.suffix == ".html" and not anchor.startswith("__"):
                assert anchor in seen[target].anchors, f"{page.name} leads to {address}"


def test_the_search_has_what_is_looked_for(site):
    index = (site / "search" / "search_index.json").read_text()
    for word in ("topk-then-uniform", "register_acquirers", "--pool-pixels-per-round", "train.epochs"):
        assert word in index
