"""What a base says of itself: its card first, then its config.json, nothing guessed."""

import json
from pathlib import Path

import huggingface_hub
import pytest

from tiltune.records.base_model import base_facts


@pytest.mark.parametrize(
    ("card", "config", "expected"),
    [
        ("---\nlicense: mit\ntags:\n- a\n---\n# B", None, {"license": "mit"}),
        ("---\nlicense: 'mit'\n---", {"license": "apache-2.0"}, {"license": "mit"}),
        ("# license: mit\nlicense: mit\n", None, {}),
        (
            "---\ntags: [a]\n---\nlicense: mit\n",
            {"license": "apache-2.0"},
            {"license": "apache-2.0"},
        ),
        (None, {"license": 3}, {}),
        (
            "---\nlicense: other\nlicense_name: own one\nlicense_link: LICENSE\n---\n",
            None,
            {"license": "other", "license_name": "own one", "license_link": "LICENSE"},
        ),
    ],
)
def test_licenses(
    tmp_path: Path, card: str | None, config: dict[str, object] | None, expected: dict[str, str]
) -> None:
    if card is not None:
        (tmp_path / "README.md").write_text(card, "utf-8")
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    assert base_facts(str(tmp_path)) == expected


def test_a_folder_of_the_hub_s_cache_is_known_by_its_repository(tmp_path: Path) -> None:
    folder = tmp_path / "models--org--base" / "snapshots" / "0a1b"
    folder.mkdir(parents=True)
    assert base_facts(str(folder)) == {"hub_id": "org/base"}


def test_a_hub_id_is_looked_up_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n", "utf-8")
    cached = {"README.md": str(tmp_path / "README.md"), "config.json": None}
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repo, name: cached[name])
    assert base_facts("org/base") == {"hub_id": "org/base", "license": "mit"}
