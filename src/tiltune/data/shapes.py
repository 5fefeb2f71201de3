"""Rows as others write them to the shapes that are read here: ShareGPT, Alpaca, preferences."""

from collections.abc import Mapping
from typing import Any, cast

from tiltune.data.rows import shown, valid_text
from tiltune.errors import DataError

Fields = Mapping[str, Any]

FOREIGN = (("conversations",), ("prompt", "chosen", "rejected"), ("chosen", "rejected"))
ALPACA = (("instruction", "output"),)
INSTRUCTION = (("instruction",),)

ROLES = {
    **dict.fromkeys(("system", "user", "assistant", "tool"), ""),
    **{"human": "user", "gpt": "assistant", "chatgpt": "assistant", "observation": "tool"},
}
"""What ShareGPT's `from` may say; "" is a role of its own name."""

BELOW = "Below is an instruction that describes a task"
WITHOUT = f"{BELOW}. Write a response that appropriately completes the request.\n\n"
WITH = (
    f"{BELOW}, paired with an input that provides further context. Write a response that "
    "appropriately completes the request.\n\n"
)


def as_read_here(fields: Fields, *, chat: bool, answered: bool = True) -> Fields:
    """The row with `messages`, or `prompt` and `completion`, where it is of a shape of others.

    Fields that say nothing of the text stay; so do `chosen` and `rejected`. Rows that have
    `messages`, or `prompt` and `completion`, are left as they are.

    Args:
        fields: of the row; null counts as absent.
        chat: whether the model has a chat template, by which Alpaca's rows are then written;
            without one they are written as Alpaca was trained.
        answered: whether the row must hold a completion; a prompt's need not.

    Raises:
        DataError: a field is not what it must be in such a row.
    """
    here = {name for name, value in fields.items() if value is not None}
    if "messages" in here or {"prompt", "completion"} <= here:
        return fields
    if "conversations" in here:
        return _of_sharegpt(fields)
    if {"chosen", "rejected"} <= here:
        return _of_preference(fields)
    if "instruction" in here and "prompt" not in here and ("output" in here or not answered):
        return _of_alpaca(fields, chat=chat, answered=answered)
    return fields


def _of_sharegpt(fields: Fields) -> Fields:
    turns = fields["conversations"]
    if not (isinstance(turns, list) and turns):
        raise DataError(
            f"`conversations` is {shown(turns)}; it must be a list of at least one object with the "
            "strings `from` and `value`"
        )
    messages = [_message(turn, place) for place, turn in enumerate(cast(list[Any], turns))]
    system = _optional(fields, "system")
    if system and messages[0]["role"] == "system":
        raise DataError(
            "a `system` field, and a turn of `system` in `conversations`; leave one out"
        )
    further = _without(fields, "conversations", "system")
    if further.get("tools") == "":
        del further["tools"]
    return {**further, "messages": _system(system) + messages}


def _message(turn: Any, place: int) -> dict[str, Any]:
    """A turn as a message, with whatever else it holds, for the template."""
    where = f"`conversations`[{place}]"
    given = cast(dict[str, Any], turn) if isinstance(turn, dict) else {}
    names = ("from", "value") if "from" in given else ("role", "content")
    role, content = (given.get(name) for name in names)
    if not (isinstance(role, str) and valid_text(content)):
        raise DataError(
            f"{where} is {shown(turn)}; it must be an object with the strings `from` and `value`"
        )
    if role not in ROLES:
        raise DataError(f"{where} is from {role!r}; it must be one of {', '.join(sorted(ROLES))}")
    return {**_without(given, *names), "role": ROLES[role] or role, "content": content}


def _of_preference(fields: Fields) -> Fields:
    """The chosen side as what is trained on."""
    prompt, chosen = fields.get("prompt"), fields["chosen"]
    if type(chosen) is not type(fields["rejected"]) or not isinstance(chosen, str | list):
        raise DataError(
            f"`chosen` is {shown(chosen)} and `rejected` {shown(fields['rejected'])}; both must be "
            "strings, or both lists of messages"
        )
    if isinstance(chosen, str):
        if prompt is None:
            raise DataError(
                "`chosen` and `rejected` are strings without `prompt`; a row must be {prompt, "
                "chosen, rejected}, or hold lists of messages"
            )
        if not isinstance(prompt, str):
            raise DataError(f"`prompt` is {shown(prompt)}; beside strings it must be one")
        if not chosen.strip():
            raise DataError(f"`chosen` is {chosen!r}; it must not be empty or blank")
        return {**fields, "completion": chosen}
    answer = cast(list[Any], chosen)
    before = _before(prompt, answer)
    messages = answer if before and answer[: len(before)] == before else before + answer
    return {**_without(fields, "prompt"), "messages": messages}


def _before(prompt: Any, chosen: list[Any]) -> list[Any]:
    """What of the prompt the chosen messages do not hold themselves."""
    if prompt is None or isinstance(prompt, list):
        return cast(list[Any], prompt or [])
    said = [cast(dict[str, Any], each) for each in chosen if isinstance(each, dict)]
    if not valid_text(prompt):
        raise DataError(f"`prompt` is {shown(prompt)}; it must be a string or a list of messages")
    if any(each.get("role") == "user" for each in said):
        if all(each.get("content") != prompt for each in said):
            raise DataError(
                f"`prompt` is {shown(prompt)}, which is none of the messages of `chosen`; leave it "
                "out where they are whole, or let them hold the answer alone"
            )
        return []
    return [{"role": "user", "content": prompt}]


def _of_alpaca(fields: Fields, *, chat: bool, answered: bool) -> Fields:
    instruction = _required(fields, "instruction")
    given, system = _optional(fields, "input"), _optional(fields, "system")
    output = _required(fields, "output") if answered else _optional(fields, "output")
    further = _without(fields, "instruction", "input", "output", "system", "history")
    history = _history(fields.get("history"))
    if chat:
        asked = f"{instruction}\n\n{given}" if given else instruction
        messages = [*_system(system), *history, {"role": "user", "content": asked}]
        answer = [{"role": "assistant", "content": output}] if output else []
        return {**further, "messages": messages + answer}
    if system or history:
        raise DataError(
            "`system` or `history` beside `instruction` are for models with a chat template, which "
            "this one has not; leave them out, or give {prompt, completion} rows"
        )
    asked = f"{WITH if given else WITHOUT}### Instruction:\n{instruction}\n\n"
    prompt = f"{asked}### Input:\n{given}\n\n" if given else asked
    return {**further, "prompt": f"{prompt}### Response:\n"} | (
        {"completion": output} if output else {}
    )


def _history(history: Any) -> list[dict[str, str]]:
    """Earlier instructions and their answers, as messages."""
    found: list[dict[str, str]] = []
    pairs = cast(list[Any], history or [])
    for pair in pairs if isinstance(history, list) else [history] * bool(history):
        if not (isinstance(pair, list) and len(pair) == 2 and all(map(valid_text, pair))):
            raise DataError(
                f"`history` holds {shown(pair)}; it must be a list of [asked, answered]"
            )
        asked, answered = cast(list[str], pair)
        found += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    return found


def _system(text: str) -> list[dict[str, Any]]:
    return [{"role": "system", "content": text}] if text else []


def _required(fields: Fields, name: str) -> str:
    text = _optional(fields, name)
    if not text:
        raise DataError(f"`{name}` is {shown(fields.get(name))}; it must not be empty or blank")
    return text


def _optional(fields: Fields, name: str) -> str:
    """The field's text; "" where it is absent, null or blank."""
    value = fields.get(name)
    if value is None:
        return ""
    if not valid_text(value):
        raise DataError(f"`{name}` is {shown(value)}; it must be a string of valid Unicode")
    return value if value.strip() else ""


def _without(fields: Fields, *names: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}
