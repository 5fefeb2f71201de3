"""TOML to a validated configuration: every fault one line, unknown keys with the nearest name."""

import importlib.util
import os
import sys
import tomllib
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from tiltune.config.faults import explain
from tiltune.config.text_file import read_text
from tiltune.errors import ConfigError

Parsed = TypeVar("Parsed", bound=BaseModel)


class Section(BaseModel):
    """A table of the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def module_files(path: str) -> list[Path]:
    """The file of the module that 'module:attribute' names, if it has one.

    The working directory comes first, as where the module is imported: a hash of the file must not
    depend on whether it has been imported already.
    """
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        found = importlib.util.find_spec(path.partition(":")[0])
    except (ImportError, ValueError):  # a parent package that is absent, or no module's name
        found = None
    finally:
        sys.path.remove(folder)
    return [Path(found.origin)] if found and found.origin else []


def read_toml(path: str | Path) -> dict[str, Any]:
    """The file's tables; raises ConfigError if there is no such file or it is not TOML."""
    try:
        return tomllib.loads(read_text(path))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give the path of a TOML file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder; give the path of a TOML file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:  # of the encoding or of TOML
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def parse_config(kind: type[Parsed], tree: dict[str, Any], *, source: str) -> Parsed:
    """Validate a tree of tables; every fault becomes one line of a ConfigError."""
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        lines = explain(kind, error.errors())
        raise ConfigError("\n".join(f"{source}: {line}" for line in lines)) from None


def check_utf8(text: str, what: str) -> None:
    """Refuse what was given on the command line and is no text, as a file's name need not be one:
    no file of ours can hold it.

    Args:
        text: with surrogates in the place of such bytes, as Python reads them.
        what: it is, such as "--model".

    Raises:
        ConfigError: it is not UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        name = os.fsencode(text).decode("utf-8", "backslashreplace")
        raise ConfigError(
            f"{what} {name}: it is not UTF-8, and a run's files are; rename what it names"
        ) from None


def apply_override(tree: dict[str, Any], override: str) -> None:
    check_utf8(override, "--set")
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {override}: expected key=value, such as --set method.beta=2")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    put_setting(tree, key.strip(), value, source=f"--set {override}")


def put_setting(tree: dict[str, Any], key: str, value: Any, *, source: str) -> None:
    """Put a value at a dotted key; raises ConfigError where a table on the way is none."""
    *tables, name = key.split(".")
    for table in tables:
        below: Any = tree.setdefault(table, {})
        if not isinstance(below, dict):
            raise ConfigError(f"{source}: `{table}` is not a table")
        tree = cast(dict[str, Any], below)
    tree[name] = value


def flat_settings(tree: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Settings by dotted key: `{a = {b = 1}}` and `{"a.b" = 1}` say the same."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flat_settings(cast(dict[str, Any], value), f"{before}{key}.")
        else:
            flat[f"{before}{key}"] = value
    return flat
