"""MBPP as prompt rows for `rlef`: the first test is public, the others are private.

    python benchmarks/code_rows.py MBPP.jsonl ROWS.jsonl [--chat]

The rows go with `constraint.kind = "execution"` and `public_tests_field = "public_tests"`. With
--chat the prompt is a user's turn. MBPP's prompts show every test as an example; here they show the
public one alone, or the answers to the private ones would stand before the model's eyes.
"""

import ast
import json
import re
import sys
from pathlib import Path
from typing import Any

EXAMPLE = re.compile(r'^[ \t]*>>> .*?(?=^[ \t]*(?:>>> |"""))', re.MULTILINE | re.DOTALL)
"""A call of a docstring and what it gives, up to the next one or to the end of the docstring."""
ASKED = "Complete this Python function. Give the whole code.\n\n"


def code_row(problem: dict[str, Any], *, chat: bool = False) -> dict[str, Any]:
    """The row of a problem: its prompt, its first assertion, and the others.

    Args:
        problem: a row of the mxeval release: prompt, entry_point, and a test with `check`.
        chat: the prompt as a user's turn, for a model that answers.
    """
    check = next(
        node for node in ast.parse(problem["test"]).body if isinstance(node, ast.FunctionDef)
    )
    # by the name that the prompt has, which the model is told of, and which may be one of Python's
    name = problem["entry_point"]
    for node in ast.walk(check):
        if isinstance(node, ast.Name) and node.id == "candidate":
            node.id = name
    asserts = [ast.unparse(node) for node in check.body]
    begin = f"from solution import {name}\n"
    prompt = public_prompt(problem["prompt"])
    asked = [{"role": "user", "content": ASKED + prompt.strip()}]
    return {
        **({"messages": asked} if chat else {"prompt": prompt}),
        "public_tests": begin + asserts[0],
        "tests": begin + "\n".join(asserts[1:] or asserts),
    }


def public_prompt(prompt: str) -> str:
    """The prompt with the first of its examples alone, which is the first test."""
    first = EXAMPLE.search(prompt)
    end = first.end() if first is not None else 0
    return prompt[:end] + EXAMPLE.sub("", prompt[end:])


def main() -> None:
    source, target = map(Path, sys.argv[1:3])
    problems = [json.loads(line) for line in source.read_text("utf-8").splitlines()]
    chat = "--chat" in sys.argv[3:]
    rows = [json.dumps(code_row(problem, chat=chat)) + "\n" for problem in problems]
    target.write_text("".join(rows), "utf-8")
    print(f"{len(rows)} rows in {target}")


if __name__ == "__main__":
    main()
