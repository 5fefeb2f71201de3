"""A `{messages}` row as a model's chat template writes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, cast

from tiltune.data.rows import shown, valid_text
from tiltune.errors import DataError

Message = Mapping[str, Any]

LISTS = ("tools", "documents")
KWARGS = "chat_template_kwargs"
OURS = ("tokenize", "add_generation_prompt", "continue_final_message", "chat_template", *LISTS)
"""Arguments of `apply_chat_template` that no row's `chat_template_kwargs` may hold: they have a
field of their own, or are what makes rows into prompts and answers."""


class ChatTemplate(Protocol):
    """What writes messages; tokenizers of transformers do."""

    chat_template: Any

    def apply_chat_template(
        self, messages: Any, /, *, tokenize: bool, add_generation_prompt: bool, **more: Any
    ) -> Any: ...


@dataclass(frozen=True)
class ChatRow:
    """Messages, and what else of their row the template is given.

    Attributes:
        template: of the model.
        messages: at least one; each has a role, and a content or tool calls.
        arguments: `tools` and `documents`, lists of objects, and whatever else the row's
            `chat_template_kwargs` name, such as `enable_thinking`.
    """

    template: ChatTemplate
    messages: Sequence[Message]
    arguments: Mapping[str, Any]

    @classmethod
    def read(cls, template: ChatTemplate, fields: Mapping[str, Any]) -> Self:
        """A row's conversation; raises DataError where the row, or the model, has none."""
        messages = fields["messages"]
        if not (isinstance(messages, list) and messages and all(map(_is_message, messages))):
            raise DataError(
                f"`messages` is {shown(messages)}; it must be a list of at least one object with "
                "the strings `role` and `content`; beside `tool_calls` the content may be missing"
            )
        if template.chat_template is None:
            raise DataError(
                "a {messages} row, or one that becomes it, but the tokenizer of `model.path` has "
                "no chat template; give {text} or {prompt, completion} rows, or a model with a "
                "chat template"
            )
        return cls(template, cast(list[Message], messages), _arguments(fields))

    def answers(self, place: int) -> bool:
        """Whether the message is the assistant's and says or calls something."""
        message = self.messages[place]
        said = (message.get("content") or "").strip() or message.get("tool_calls")
        return message["role"] == "assistant" and bool(said)

    def until(self, count: int, *, answer: bool) -> str:
        """The first messages as text, open for the assistant's answer if `answer`.

        Raises:
            DataError: the template refuses them.
        """
        apply = self.template.apply_chat_template
        try:
            text = apply(
                list(self.messages[:count]),
                tokenize=False,
                add_generation_prompt=answer,
                **self.arguments,
            )
        except Exception as error:  # the template is a program of the model's makers
            found = f"{type(error).__name__}: {error}"
            raise DataError(f"the chat template refuses `messages`: {found}") from error
        if not valid_text(text):
            raise DataError(
                f"the chat template writes {shown(text)} of the row, which is no string of valid "
                "Unicode; mend its `messages` or `tools`"
            )
        return text


def _arguments(fields: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in LISTS:
        value = fields.get(name)
        if value is None:
            continue
        if not (isinstance(value, list) and all(isinstance(each, dict) for each in value)):
            raise DataError(
                f"`{name}` is {shown(value)}; beside `messages` it goes to the chat template and "
                "must be a list of objects, not their JSON as a string; rename it if it is "
                "something else"
            )
        found[name] = value
    further = fields.get(KWARGS)
    if further is None:
        return found
    if not isinstance(further, dict):
        raise DataError(f"`{KWARGS}` is {shown(further)}; it must be an object")
    given = cast(dict[str, Any], further)
    if taken := [name for name in given if name in OURS]:
        raise DataError(
            f"`{KWARGS}` holds {', '.join(map(repr, taken))}, which it may not: "
            "`tools` and `documents` are fields of the row, the rest is not for a row to say"
        )
    return found | given


def _is_message(value: object) -> bool:
    message = cast(dict[str, Any], value) if isinstance(value, dict) else {}
    content, calls = message.get("content"), message.get("tool_calls")
    calling = content is None and isinstance(calls, list) and bool(calls)
    return valid_text(message.get("role")) and (valid_text(content) or calling)
