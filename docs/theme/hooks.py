"""What a page of docs/ says on a forge and must say on the site, too: run by mkdocs at each build.

Links out of docs/ lead to pages made of those files, which are listed here and nowhere else; a
fence's file name becomes its title.
"""

import json
import os
import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = "repository"
"""Where on the site the files are that do not lie in docs/."""
SOURCES: dict[str, str] = {}
"""The file that a page is made of, by the page's place; what is not here lies in docs/."""
FENCE = re.compile(r"^```.*?^```[ ]*$", re.M | re.S)
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s#]+)")
NAMED_FENCE = re.compile(r"^```(\w+) ([\w.]+)$", re.M)
LANGUAGES = {".py": "python", ".toml": "toml", ".yaml": "yaml", ".jsonl": "json"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """A page for each file outside docs/ that a page links to, and for those that these link to."""
    waiting = [f"docs/{file.src_uri}" for file in files.documentation_pages()]
    seen = set(waiting)
    while waiting:
        path = PurePosixPath(waiting.pop())
        for link in _links(path):
            target = _target(path, link)
            if target in seen or not (ROOT / target).exists():
                continue
            seen.add(target)
            waiting.append(target)
            if not target.startswith("docs/"):
                SOURCES[_uri(target)] = target
                files.append(File.generated(config, _uri(target), content=_page(target)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page's links as they lead on the site, and its fences as the site's markdown has them."""
    source = SOURCES.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    if page.file.src_uri in SOURCES:
        page.meta["search"] = {"exclude": True}

    def moved(link: re.Match[str]) -> str:
        target = _target(PurePosixPath(source), link[1])
        if not (ROOT / target).exists():
            return link[1]  # which mkdocs refuses
        return os.path.relpath(_uri(target), PurePosixPath(page.file.src_uri).parent)

    parts, last = list[str](), 0
    for fence in FENCE.finditer(markdown):
        parts.append(LINK.sub(moved, markdown[last : fence.start()]))
        shown = NAMED_FENCE.sub(r'``` { .\1 title="\2" }', fence[0])
        parts.append(shown.replace("```jsonl", "```json"))
        last = fence.end()
    return "".join([*parts, LINK.sub(moved, markdown[last:])])


def _links(path: PurePosixPath) -> list[str]:
    """Of a page, or of the page that stands for a folder."""
    if path.suffix != ".md" and not (ROOT / path).is_dir():
        return []
    return LINK.findall(FENCE.sub("", _page(str(path))))


def _target(source: PurePosixPath, link: str) -> str:
    """The path in the repository that a link of the file at `source` names."""
    return os.path.normpath(source.parent / link)


def _uri(path: str) -> str:
    """Where on the site the file of the repository is."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    seen = "/".join(part.removeprefix(".") for part in path.split("/"))  # hidden files are left out
    return f"{OUTSIDE}/{seen}" if seen.endswith(".md") else f"{OUTSIDE}/{seen}.md"


def _page(path: str) -> str:
    """A file as a page: markdown as it is, code in a fence, a notebook's cells, a folder's list."""
    if (ROOT / path).is_dir():
        names = sorted(each.name for each in (ROOT / path).iterdir() if each.is_file())
        listed = [f"- [{name}]({PurePosixPath(path).name}/{name})" for name in names]
        return "\n".join([f"# {path}", "", *listed])
    text = (ROOT / path).read_text("utf-8")
    if path.endswith(".md"):
        return text
    if path.endswith(".ipynb"):
        return _notebook(text)
    language = LANGUAGES.get(PurePosixPath(path).suffix, "")
    return f"# {path}\n\n````{language}\n{text}````\n"


def _notebook(text: str) -> str:
    """A notebook's cells in order, and what they have written as text."""
    parts: list[str] = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            shown = "".join(output.get("text", output.get("data", {}).get("text/plain", [])))
            parts += [f"```console\n{shown.rstrip()}\n```"] if shown.strip() else []
    return "\n\n".join(parts)
