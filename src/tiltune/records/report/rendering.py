"""Templates into pages that ask nothing of a network and run one script, our own."""

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tiltune.errors import counted
from tiltune.records.report.formats import bounds, number
from tiltune.records.report.samples import text_pieces, tokens_shown

PACKAGE = "tiltune.records.report"

# Control characters are shown as their pictures; lines and tabs stay.
_PICTURES = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"}
_PICTURES[0x7F] = "\u2421"


def render(template: str, named: Mapping[str, object]) -> str:
    """A page, safe whatever a model wrote.

    Args:
        template: its name in `templates/`.
        named: what the template names; texts among it are escaped.
    """
    # Our own files, as they are: nothing that a user or a model wrote is ever put into them.
    style, script = Markup(static("report.css")), Markup(static("report.js"))
    ours = {"style": style, "script": script, "policy": policy(script)}
    page = environment().get_template(template).render({**named, **ours})
    # A lone surrogate, legal in JSON, cannot be written as UTF-8.
    return page.translate(_PICTURES).encode("utf-8", "replace").decode("utf-8")


@cache
def environment() -> Environment:
    """The templates, what they may pass values through, and that every value is escaped."""
    filters: dict[str, Any] = {
        "arrow_kept": arrow_kept,
        "bounds": bounds,
        "by_backticks": by_backticks,
        "counted": counted,
        "number": number,
        "text_pieces": text_pieces,
        "tokens_shown": tokens_shown,
    }
    made = Environment(
        loader=PackageLoader(PACKAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(filters)
    return made


def static(name: str) -> str:
    """A file of `static/`."""
    return (files(PACKAGE) / "static" / name).read_text("utf-8")


def policy(script: str) -> str:
    """The browser itself refuses any request and any other script, should an escape be missed."""
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        f"form-action 'none'; script-src 'sha256-{digest}'"
    )


def by_backticks(text: str) -> list[str]:
    """Pieces of a text; every second stood between backticks."""
    return re.split("`([^`]+)`", text)


def arrow_kept(header: str) -> str:
    """A column's header whose arrow never stands on a line of its own."""
    return re.sub(" (?=[↑↓]$)", "\u00a0", header)
