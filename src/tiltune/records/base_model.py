"""What a base model says of itself that its fine-tuned children have to pass on."""

import json
import re
from importlib import import_module
from pathlib import Path

LICENSE = ("license", "license_name", "license_link")
"""Keys of a model card's metadata."""


def base_facts(path: str) -> dict[str, str]:
    """The hub id and the license, as far as they are known without a network.

    Args:
        path: `model.path`.

    Returns:
        Some of "hub_id", "license", "license_name", "license_link": from the base's own card, or
        its config.json. A hub's card is looked up in the cache.
    """
    place, found = Path(path), dict[str, str]()
    if not place.exists():
        look = import_module("huggingface_hub").try_to_load_from_cache  # a report needs it not
        cached = {name: look(path, name) for name in ("README.md", "config.json")}
        texts = {name: _text(Path(at)) for name, at in cached.items() if isinstance(at, str)}
        found["hub_id"] = path
    else:
        texts = {name: _text(place / name) for name in ("README.md", "config.json")}
        # a folder of the hub's cache is called by its repository
        if cached_id := re.search(r"models--([^/]+)--([^/]+)/snapshots/", f"{place.resolve()}/"):
            found["hub_id"] = "/".join(cached_id.groups())
    return found | (
        _of_card(texts.get("README.md", "")) or _of_config(texts.get("config.json", ""))
    )


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _of_card(text: str) -> dict[str, str]:
    """The license in the metadata, which stands between lines of three dashes at the top."""
    block = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    lines = re.findall(r"^(\w+):[ \t]*(\S.*?)[ \t]*$", block[1] if block else "", re.MULTILINE)
    known = {key: value.strip("'\"") for key, value in lines if key in LICENSE}
    return known if "license" in known else {}


def _of_config(text: str) -> dict[str, str]:
    try:
        named = json.loads(text)["license"]
    except (ValueError, TypeError, KeyError):
        return {}
    return {"license": named} if isinstance(named, str) and named else {}
