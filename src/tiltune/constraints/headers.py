"""Headers whose secrets stay in environment variables: checked, filled in, told to nobody."""

import os
from collections.abc import Mapping
from string import Template
from typing import Any, cast

from tiltune.errors import ConstraintError

_SECRET_NAMES = {"authorization", "proxy-authorization", "cookie", "api-key"}
_SECRET_ENDINGS = ("-api-key", "-token", "-secret")


def check_headers(headers: Mapping[str, str]) -> None:
    """Refuse what is no header's name, and a secret that is written out.

    Raises:
        ConstraintError: names the header, never its value.
    """
    for name, value in headers.items():
        if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
            raise ConstraintError(f"constraint.headers: {name!r} is no name of a header")
        secret = name.lower() in _SECRET_NAMES or name.lower().endswith(_SECRET_ENDINGS)
        if secret and not Template(value).get_identifiers():
            raise ConstraintError(
                f"constraint.headers: the value of {name} would be written to the run's folder; "
                f'put the secret into an environment variable: {name} = "$NAME"'
            )


def filled_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers with `$NAME` replaced by that environment variable; `$$` is a plain `$`.

    Raises:
        ConstraintError: a variable is not set, or a value is none that a header can have.
    """
    return {name: _filled(name, value) for name, value in headers.items()}


def _filled(name: str, value: str) -> str:
    where = f"constraint.headers: {name} = {value!r}"
    try:
        filled = Template(value).substitute(os.environ)
    except KeyError as error:
        raise ConstraintError(
            f"{where} needs the environment variable {error.args[0]}, which is not set; set it "
            f"before the run"
        ) from None
    except ValueError:
        raise ConstraintError(
            f"{where} holds a $ that begins no name of an environment variable; write $$ for a "
            f"plain one"
        ) from None
    if not (filled.isascii() and filled.isprintable()):
        raise ConstraintError(
            f"{where} is not plain printable ASCII once its environment variables are filled in "
            f"(a line feed at the end, perhaps)"
        )
    return filled


def secrets_of(headers: Mapping[str, str]) -> dict[str, str]:
    """What environment variables put into headers, each with the `$NAME` that stands for it."""
    names = {name for value in headers.values() for name in Template(value).get_identifiers()}
    return {os.environ[name]: f"${name}" for name in names if os.environ.get(name)}


def redacted(tree: Any, secrets: Mapping[str, str]) -> Any:
    """A tree of JSON with every secret in its strings replaced by what stands for it."""
    if isinstance(tree, str):
        for value, name in secrets.items():
            tree = tree.replace(value, name)
        return tree
    if isinstance(tree, list):
        return [redacted(item, secrets) for item in cast(list[Any], tree)]
    if isinstance(tree, dict):
        return {key: redacted(item, secrets) for key, item in cast(dict[str, Any], tree).items()}
    return tree
