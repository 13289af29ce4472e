"""The documentation site: it builds without a warning, every link in it leads somewhere, and it fetches nothing."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import fedsynth

ROOT = Path(__file__).parents[1]
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
NOT_LOADED = {"canonical", "next", "prev"}


class Page(HTMLParser):
    """What a page links to, what it loads, and the anchors that it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if (target := given.get(LOADED.get(tag, ""))) and given.get("rel") not in NOT_LOADED:
            self.loads.append(target)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    for needed in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(needed, reason="the extra `docs` is not installed")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return {path: Page(path) for path in out.rglob("*.html")}


def without_a_target(site):
    for path, page in site.items():
        for link in [*page.links, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or path.name == "404.html":
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            there = there / "index.html" if there.is_dir() else there
            known = site[there].anchors if there in site else set()
            if not there.is_file() or (parts.fragment and there in site and unquote(parts.fragment) not in known):
                yield f"{path.name}: {link}"


@pytest.mark.slow
def test_every_link_of_the_site_leads_somewhere(site):
    assert len(site) > 25
    assert sum(len(page.links) for page in site.values()) > 500
    assert list(without_a_target(site)) == []
    path, page = next((path, page) for path, page in site.items() if path.name == "index.html")
    page.links += ["nowhere.html", "glossary.html#nothing"]
    assert list(without_a_target(site)) == [f"{path.name}: {link}" for link in page.links[-2:]]
    del page.links[-2:]


@pytest.mark.slow
def test_the_site_fetches_nothing_from_elsewhere(site):
    loads = [link for page in site.values() for link in page.loads]
    assert loads
    assert [link for link in loads if urlsplit(link).scheme not in ("", "data") or urlsplit(link).netloc] == []
    out = next(iter(site)).parent
    for sheet in (path for path in out.rglob("*.css")):
        assert re.findall(r"(?:url\(|@import\s*)[\"']?(?:https?:)?//[^)\"']*", sheet.read_text(encoding="utf-8")) == []


@pytest.mark.slow
def test_every_function_is_on_the_page_of_the_python_interface_with_its_settings(site):
    (path,) = (path for path in site if path.name == "python.html")
    shown = {anchor.rpartition(".")[2] for anchor in site[path].anchors}
    assert set(fedsynth.__all__) <= shown
    text = path.read_text(encoding="utf-8")
    assert "The declared public number of patients" not in text  # of Privacy, which is one keyword
    assert "local_steps" in text
    assert "How often the hospitals" in text  # the help of a setting


def test_every_page_is_in_the_navigation():
    named = set(re.findall(r"[\w./-]+\.(?:md|ipynb)\b", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.*")}
    assert {page for page in pages if page.endswith((".md", ".ipynb"))} <= named
    for page in named:
        assert (ROOT / "docs" / page).is_file() or (ROOT / page).is_file(), page


def test_the_page_of_the_python_interface_names_every_function():
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    assert {line.rpartition(".")[2] for line in re.findall(r"^::: (\S+)$", page, re.MULTILINE)} == set(fedsynth.__all__)
