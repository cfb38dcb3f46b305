"""Hooks of mkdocs.yml: add pages stored next to the code they describe to the site, and rewrite links.

README.md, CONTRIBUTING.md and the READMEs of policies/, suites/ and leaderboard/ stay where readers of the repository
look for them. A link to a file outside the site, such as a log or a source file, becomes its path as plain text.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = {  # file of the repository -> page of the site
    "README.md": "index.md",
    "policies/README.md": "guides/policies.md",
    "suites/README.md": "guides/suites.md",
    "leaderboard/README.md": "guides/leaderboard.md",
    "CONTRIBUTING.md": "guides/contributing.md",
}
SOURCES = {page: source for source, page in PAGES.items()}
LINK = re.compile(r"(!?)\[([^\]\n]*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages from outside docs/, and drops data files that are not pages."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    return Files([file for file in files if not file.src_uri.startswith(("experiments/data/", "experiments/logs/"))])


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Rewrites links to point to pages of the site."""
    here = page.file.src_uri
    origin = SOURCES.get(here, f"docs/{here}")

    def rewritten(match: re.Match[str]) -> str:
        image, text, target = match.groups()
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        file, mark, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), file))
        found = _page_of(path, files)
        if found is None:
            return text
        return f"{image}[{text}]({posixpath.relpath(found, posixpath.dirname(here) or '.')}{mark}{anchor})"

    return LINK.sub(rewritten, markdown)


def _page_of(path: str, files: Files) -> str | None:
    """Returns the site's file for a path of the repository; None if it is not on the site."""
    inside = path.removeprefix("docs/") if path.startswith("docs/") else None
    candidates = [PAGES.get(path), PAGES.get(f"{path}/README.md"), inside]
    return next((name for name in candidates if name and files.get_file_from_path(name)), None)
