"""What the site shows beside the pages in docs/: pages of the repository that they link to, and notebooks as pages.

A hook of mkdocs. Links keep the form that works in the repository; here they are turned into those of the site. A link
to a file that the site does not have becomes the file's name.
"""

import json
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # mkdocs loads a hook without its folder

from mkdocs.structure.files import File, Files
from notebook_page import as_markdown

ROOT = Path(__file__).parents[2]
BESIDE = ("CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md", "benchmarks/results/*.md")
LINKED = ("benchmarks/results/*.csv", "benchmarks/results/*/*.png", "tests/example_package/fedsynth_example/*.py")
LINK = re.compile(r"(!?)\[([^\[\]]*)\]\(([^()\s]+)\)")
FENCED = re.compile(r"(^```.*?^```$|`[^`\n]+`)", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages beside docs/, what they link to, and a page for each notebook."""
    for pattern in (*BESIDE, *LINKED):
        for path in sorted(ROOT.glob(pattern)):
            files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    for file in list(files):
        if file.src_uri.endswith(".ipynb"):
            files.remove(file)
            page = as_markdown(json.loads(Path(file.abs_src_path).read_text(encoding="utf-8")))
            files.append(File.generated(config, _as_page(file.src_uri), content=page))
    return files


def on_config(config: Any) -> Any:
    """Notebooks stand in the navigation under their own names."""
    config.nav = json.loads(re.sub(r"\.ipynb\b", ".md", json.dumps(config.nav)))
    return config


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links as the site has them; code is left alone."""
    parts = FENCED.split(markdown)
    parts[::2] = [LINK.sub(lambda found: _link(found, page.file.src_uri, files), text) for text in parts[::2]]
    return "".join(parts)


def _link(found: re.Match[str], page: str, files: Files) -> str:
    picture, text, target = found.groups()
    path, hash_, anchor = target.partition("#")
    if not path or ":" in path:
        return found[0]
    here = page if files.get_file_from_path(page).generated_by and not page.startswith("notebooks/") else f"docs/{page}"
    there = posixpath.normpath(posixpath.join(posixpath.dirname(here), path))
    in_site = _as_page(there.removeprefix("docs/"))
    if files.get_file_from_path(in_site) is None:
        if (ROOT / there).exists() and not there.startswith("docs/"):
            return f"{text} (`{there}`)"
        return found[0]  # mkdocs says that it leads nowhere
    return f"{picture}[{text}]({posixpath.relpath(in_site, posixpath.dirname(page) or '.')}{hash_}{anchor})"


def _as_page(path: str) -> str:
    return f"{path.removesuffix('.ipynb')}.md" if path.endswith(".ipynb") else path
