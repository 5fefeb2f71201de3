"""The patterns of a JSON Schema, which are those of ECMA-262, as Python reads them.

Python's `$` matches before a last line feed, too, and its `\\d` and `\\w` any script's digits and
letters.
"""

import re
from typing import Any, cast

DATA = ("const", "enum", "default", "examples")
"""Keywords that hold values and no schemas."""
NAMED = ("properties", "$defs", "definitions", "dependentSchemas")
"""Keywords that hold schemas by names, which may be those of keywords."""
SHORT = {"d": "0-9", "w": "A-Za-z0-9_"}


def with_patterns_of_python(schema: Any) -> Any:
    """The schema with every `pattern`, and every one in `patternProperties`, as Python's."""
    if isinstance(schema, list):
        return [with_patterns_of_python(each) for each in cast(list[Any], schema)]
    if not isinstance(schema, dict):
        return schema
    found: dict[str, Any] = {}
    for name, value in cast(dict[str, Any], schema).items():
        if name == "pattern" and isinstance(value, str):
            found[name] = python_pattern(value)
        elif name in (*NAMED, "patternProperties") and isinstance(value, dict):
            found[name] = {
                each if name in NAMED else python_pattern(each): with_patterns_of_python(part)
                for each, part in cast(dict[str, Any], value).items()
            }
        else:
            found[name] = value if name in DATA else with_patterns_of_python(value)
    return found


def python_pattern(pattern: str) -> str:
    """The same pattern in Python's notation, as far as the two differ in what both can say."""
    parts: list[str] = []
    within = False
    for part in re.findall(r"\\.|.", pattern, re.DOTALL):
        kind = part[1:].lower()
        if part == "$" and not within:
            parts.append(r"\Z")
        elif kind in SHORT and (part[1:] == kind or not within):
            letters = SHORT[kind]
            inverse = "" if part[1:] == kind else "^"
            parts.append(letters if within else f"[{inverse}{letters}]")
        else:
            within = part == "[" or (within and part != "]")
            parts.append(part)
    return "".join(parts)
