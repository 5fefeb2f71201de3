"""A text that is JSON and meets a JSON Schema, judged by reading it: jsonschema has the last word.

However a value is written, by escapes, in another order, with other white space, its verdict is the
schema's. A `format` is judged by llguidance where it knows it, and says nothing elsewhere. What a
number is a multiple of is told by what is written: 19.99 is one of 0.01, which floats deny.
"""

import json
from collections.abc import Callable, Generator, Sequence
from fractions import Fraction
from importlib import import_module
from typing import Any, cast, final

from tiltune.constraints.schema_patterns import with_patterns_of_python
from tiltune.constraints.scores import Score
from tiltune.errors import ConstraintError

LONGEST = 200
"""Letters of a reason; a schema's faults quote the values they are about."""

Formats = Callable[[str], Callable[[str], bool] | None]


def load_schema(source: str, setting: str) -> Any:
    """The schema that a setting holds.

    Raises:
        ConstraintError: it is not JSON, no JSON Schema, or jsonschema is not installed.
    """
    try:
        schema = json.loads(source)
    except (ValueError, RecursionError) as error:
        raise ConstraintError(f"{setting} is not JSON: {error}; give a JSON Schema") from error
    try:
        _validator_of(schema).check_schema(schema)
    except (_package("exceptions").SchemaError, RecursionError) as error:
        told = getattr(error, "message", str(error))
        place = getattr(error, "json_path", "$")
        raise ConstraintError(f"{setting} is no JSON Schema: {place}: {told}") from error
    return schema


@final
class JsonSchema:
    """Judges texts by a schema.

    Args:
        schema: of `load_schema`.
        setting: that holds it, for messages.
        by_grammar: what a grammar that writes some of what the schema allows says of a text; it
            tells better than a parser where text stops being JSON, and reads any depth.
        formats: what tells strings of a format; None: nothing does.
    """

    def __init__(
        self,
        schema: Any,
        setting: str,
        by_grammar: Callable[[str], Score] | None = None,
        formats: Formats = lambda _: None,
    ) -> None:
        registry = import_module("jsonschema_specifications").REGISTRY  # nothing is fetched
        checker = _FormatChecker(formats)
        of = _package("validators").extend(_validator_of(schema), {"multipleOf": _multiple})
        schema = with_patterns_of_python(schema)
        self._validator = of(schema, registry=registry, format_checker=checker)
        self._setting = setting
        self._by_grammar = by_grammar

    def judge(self, text: str) -> Score:
        """1 where the text is JSON that meets the schema; else 0 and why.

        Raises:
            ConstraintError: the schema refers to what it does not hold.
        """
        try:
            value = _read(text)
            fault = _package("exceptions").best_match(self._validator.iter_errors(value))
        except json.JSONDecodeError as error:
            return self._broken(text, error)
        except (ValueError, OverflowError) as error:
            return _zero(str(error))
        except RecursionError:
            return (
                self._by_grammar(text) if self._by_grammar else _zero("nested too deeply to read")
            )
        except import_module("referencing.exceptions").Unresolvable as error:
            raise ConstraintError(
                f"{self._setting}: the schema refers to {error.ref!r}, which it does not hold, and "
                "nothing is fetched; put it under $defs"
            ) from error
        return Score(1.0) if fault is None else _zero(f"{fault.json_path}: {fault.message}")

    def _broken(self, text: str, error: json.JSONDecodeError) -> Score:
        """The grammar says what it expected; but not where it stops before the JSON does."""
        told = self._by_grammar(text) if self._by_grammar else None
        if told is not None and told.value == 0 and told.span and told.span[0] >= error.pos:
            return told
        return _zero(f"character {error.pos}: not JSON: {error.msg}", (error.pos, error.pos + 1))


class _FormatChecker:
    """As a validator of jsonschema asks for it."""

    def __init__(self, formats: Formats) -> None:
        self._formats = formats

    def check(self, instance: object, format: str) -> None:
        tells = self._formats(format) if isinstance(instance, str) else None
        if tells is not None and not tells(cast(str, instance)):
            raise _package("exceptions").FormatError(f"{instance!r} is not a {format!r}")


def _multiple(validator: Any, by: Any, value: Any, schema: Any) -> Generator[Exception]:
    """The keyword `multipleOf`; an infinite number raises ValueError."""
    if validator.is_type(value, "number") and Fraction(repr(value)) % Fraction(repr(by)):
        yield _package("exceptions").ValidationError(f"{value!r} is not a multiple of {by!r}")


def _read(text: str) -> Any:
    """The value that JSON says; raises ValueError where it says none, or not one.

    Python's parser takes NaN and halves of a surrogate pair, which JSON does not, and of a name
    that is given twice the last, so that a schema would not see the first.
    """
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise json.JSONDecodeError("half of a surrogate pair", text, error.start) from None
    return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_once)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object gives {twice!r} twice")
    return found


def _zero(reason: str, span: tuple[int, int] | None = None) -> Score:
    reason = reason if len(reason) <= LONGEST else reason[:LONGEST] + "…"
    return Score(0.0, reason, span, reason)


def _validator_of(schema: Any) -> Any:
    """The validator of the draft that the schema names; 2020-12 where it names none."""
    validators = _package("validators")
    return validators.validator_for(schema, default=validators.Draft202012Validator)


def _package(name: str) -> Any:
    try:
        return import_module(f"jsonschema.{name}")
    except ImportError as missing:
        raise ConstraintError(
            f"constraint.format = 'json_schema' needs jsonschema ({missing}); "
            "run: pip install 'tiltune[grammar]'"
        ) from missing
