"""What a run was made of: versions, seed, and hashes of model, data and constraint."""

import hashlib
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from tiltune.config import ConstraintConfig, RunConfig
from tiltune.config.constraint import tables
from tiltune.config.constraint_section import ConstraintSection
from tiltune.errors import ConfigError, RunError
from tiltune.records.base_model import base_facts
from tiltune.records.files import damaged, read_object, write_json

RESTORE = "put it back as it was, or start the run again with run.overwrite = true"
PACKAGES = ("tiltune", "torch", "transformers", "peft", "tokenizers", "safetensors", "numpy")


def make_manifest(
    config: RunConfig,
    corpus: dict[str, int],
    rows: dict[str, int] | None = None,
    *,
    chat: bool = False,
) -> dict[str, Any]:
    """Versions, seed, what became of the corpus, how many prompts and validation rows there are,
    whether corpus or prompts are chat, what the base says of itself, and a SHA-256 of everything
    that was read."""
    return {
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in PACKAGES}
        | {
            name: version(name) for _, table in tables(config.constraint) for name in table.packages
        },
        "seed": config.run.seed,
        "corpus": corpus,
        "rows": rows or {},
        "base": base_facts(config.model.path),
        "chat": chat,
        "sha256": hashes(config),
    }


def is_chat(run: Path) -> bool:
    """Whether a run's corpus or prompts were in the chat format; False where it did not say."""
    try:
        return json.loads((run / "manifest.json").read_text("utf-8"))["chat"] is True
    except (OSError, ValueError, TypeError, KeyError):
        return False


def check_unchanged(manifest: Path, config: RunConfig, *, next_round: int) -> list[str]:
    """Refuse to go on with another model, other data or another constraint.

    The files of a python constraint, or of a part that is one, and of a python method may change,
    since what stopped the run has to be mended before it goes on; the manifest then holds the new
    hashes and the rounds they hold from.

    Returns:
        Which of "constraint" and "method" have changed.

    Raises:
        RunError: names what else has changed; or the manifest is missing or damaged.
    """
    content, found = read_manifest(manifest), hashes(config)
    stored = kept_hashes(manifest.parent)
    if stored is None:
        told = ValueError("it does not say what the run has read")
        raise damaged(manifest, told, remedy=RESTORE)
    changed = differing(stored, found)
    mendable = {"method"}
    if any(table.mendable for _, table in tables(config.constraint)):
        mendable.add("constraint")
    if lost := [name for name in changed if name not in mendable]:
        raise RunError(
            f"{manifest.parent}: {', '.join(lost)} changed since the run was started; put back "
            "what was there, or start a new run with another run.dir"
        )
    for name in changed:
        content.setdefault(f"{name}_changed_at_rounds", []).append(next_round)
    if changed:
        write_json(manifest, content | {"sha256": found})
    return changed


def kept_hashes(run: Path) -> dict[str, str] | None:
    """SHA-256 by setting of what the run in this folder has read; None: it kept none, as one of an
    earlier version.

    Raises:
        RunError: the manifest is damaged.
    """
    path = run / "manifest.json"
    stored: Any = read_manifest(path).get("sha256") if path.exists() else None
    return cast(dict[str, str], stored) if isinstance(stored, dict) else None


def differing(stored: dict[str, str], found: dict[str, str]) -> list[str]:
    """Settings whose SHA-256 is another one now."""
    return [name for name, value in found.items() if stored.get(name) != value]


def read_manifest(path: Path) -> dict[str, Any]:
    """A run's `manifest.json`; raises RunError if it is missing or damaged."""
    return read_object(path, remedy=RESTORE)


def check_apart(config: RunConfig) -> None:
    """Refuse to read from the folder that the run writes, and replaces if told to.

    Raises:
        ConfigError: names the setting whose file or folder lies in run.dir.
    """
    judged = {
        f"{key}.{name}": getattr(table, name, None)
        for key, table in tables(config.constraint)
        for name in ("file", "path")
    }
    run = Path(config.run.dir).resolve()
    for setting, path in (inputs(config) | judged).items():
        if path and Path(path).exists() and Path(path).resolve().is_relative_to(run):
            raise ConfigError(
                f"{setting} = {path}: lies in run.dir = {config.run.dir}, which is for what the "
                "run writes; move it, or choose another run.dir"
            )


def inputs(config: RunConfig) -> dict[str, str]:
    """The files and folders that a run reads beside its constraint's, by setting."""
    named = {
        "model.path": config.model.path,
        "data.corpus": config.data.corpus,
        "data.prompts": config.data.prompts,
        "data.valid": config.data.valid,
        "value_model.path": config.value_model.path,
        "value_model.warm_text": config.value_model.warm_text,
    }
    return {setting: path for setting, path in named.items() if path is not None}


def hashes(config: RunConfig) -> dict[str, str]:
    """SHA-256 by setting; a hub id, which has no local folder, goes by its name."""
    found = {setting: digest([Path(path)], path) for setting, path in inputs(config).items()}
    found["constraint"] = constraint_digest(config.constraint)
    if files := config.method.files():
        found["method"] = digest(files, "")
    return found


def constraint_digest(constraint: ConstraintConfig) -> str:
    """SHA-256 of all that decides a constraint's scores: its settings, the files it reads, and the
    revision of rules of ours.

    Of a service only the settings are known; those that change no score are left out.
    """
    settings = constraint.model_dump_json(exclude=_effort(constraint))
    every = [table for _, table in tables(constraint)]
    files = [file for table in every for file in table.files()]
    return digest(files, settings + "".join(table.revision for table in every))


def _effort(constraint: Any) -> dict[str, Any]:
    """What pydantic is to leave out: how scores are fetched, in the tables within too."""
    parts = enumerate(getattr(constraint, "parts", ()))
    atoms = getattr(constraint, "atoms", {}).items()
    within = {
        "parts": {number: _effort(part) for number, part in parts},
        "atoms": {name: _effort(of) for name, of in atoms if isinstance(of, ConstraintSection)},
    }
    found = {name: {key: each for key, each in of.items() if each} for name, of in within.items()}
    return dict.fromkeys(constraint.effort, True) | {name: of for name, of in found.items() if of}


def digest(paths: list[Path], name: str) -> str:
    """SHA-256 of a name and of files and folders: their files' names and contents."""
    digest = hashlib.sha256(name.encode())
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                digest.update(file.name.encode())
                with file.open("rb") as content:
                    digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()
