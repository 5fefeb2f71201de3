"""A page as a tree, as a reader of it walks."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path


@dataclass
class Node:
    """An element, its attributes, and what is inside it, texts and elements in order."""

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    inside: list["Node | str"] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(part if isinstance(part, str) else part.text for part in self.inside)

    def all(self, tag: str = "", css: str = "") -> list["Node"]:
        """Descendants by tag and class, in document order."""
        return [
            node
            for node in self.walk()
            if (not tag or node.tag == tag)
            and (not css or css in node.attributes.get("class", "").split())
        ]

    def walk(self) -> Iterator["Node"]:
        for part in self.inside:
            if isinstance(part, Node):
                yield part
                yield from part.walk()

    def section(self, name: str) -> "Node":
        return next(node for node in self.walk() if node.attributes.get("id") == name)


class Tree(HTMLParser):
    """Builds nodes, and fails where a tag is not closed in its order."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open = [Node("root")]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, {key: value or "" for key, value in attrs})
        self.open[-1].inside.append(node)
        if tag not in {"meta", "link", "img", "br", "input"}:
            self.open.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].inside.append(Node(tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].inside.append(data)


def parse(page: Path) -> Node:
    tree = Tree()
    tree.feed(page.read_text("utf-8"))
    tree.close()
    assert [node.tag for node in tree.open] == ["root"]
    return tree.open[0]


def rows_of(node: Node, caption: str) -> list[dict[str, str]]:
    """The table of this caption, a dictionary a row."""
    found = next(
        t for t in node.all("table") if [c.text for c in t.all("caption")] in ([caption], [])
    )
    head, *body = [
        [cell.text for cell in row.all() if cell.tag in ("th", "td")] for row in found.all("tr")
    ]
    return [dict(zip(head, row, strict=True)) for row in body]
