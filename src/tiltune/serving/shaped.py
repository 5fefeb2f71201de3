"""What clients get: OpenAI's objects, made of pieces of completions."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, final

from tiltune.data.encode import Decoder
from tiltune.serving.batch import Fragment, Token

IMPOSSIBLE = -9999.0
"""What OpenAI says of a token that cannot be; JSON has no infinity."""


@dataclass
class Gathered:
    """A completion as far as it was told."""

    text: str = ""
    tokens: list[Token] = field(default_factory=list[Token])
    reason: str = ""
    written: int = 0

    def add(self, piece: Fragment) -> None:
        self.text = piece.whole if piece.reason else self.text + piece.text
        self.tokens += piece.tokens
        self.reason, self.written = piece.reason, piece.written


@final
class Shape:
    """The objects of one answer.

    Args:
        chat: of /v1/chat/completions; else of /v1/completions.
        model: as it was asked for.
        fingerprint: see `Served.fingerprint`.
        decoder: names tokens.
        log_probs: whether tokens' log-probabilities are wanted.
    """

    def __init__(
        self, *, chat: bool, model: str, fingerprint: str, decoder: Decoder, log_probs: bool
    ) -> None:
        self.chat, self.log_probs, self.decoder = chat, log_probs, decoder
        kind = "chatcmpl" if chat else "cmpl"
        self._head = {
            "id": f"{kind}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": fingerprint,
        }
        self._lengths: dict[int, int] = {}

    def answer(
        self, choices: Sequence[Gathered], verdicts: Sequence[Any], usage: dict[str, int]
    ) -> dict[str, Any]:
        """The whole answer at once."""
        pairs = enumerate(zip(choices, verdicts, strict=True))
        listed = [
            self._choice(place, each.text, each.tokens, each.reason, verdict)
            for place, (each, verdict) in pairs
        ]
        kind = "chat.completion" if self.chat else "text_completion"
        return {**self._head, "object": kind, "choices": listed, "usage": usage}

    def chunk(self, place: int, piece: Fragment, verdict: Any = None) -> dict[str, Any]:
        """What a choice has grown by; with the last piece, its reason and the verdict."""
        choice = self._choice(place, piece.text, piece.tokens, piece.reason, verdict)
        return self._chunk([choice])

    def opening(self, place: int) -> dict[str, Any]:
        """The first chunk of a choice of a chat."""
        delta = {"role": "assistant", "content": ""}
        return self._chunk([{"index": place, "delta": delta, "finish_reason": None}])

    def closing(self, usage: dict[str, int]) -> dict[str, Any]:
        """The chunk that tells the usage."""
        return {**self._chunk([]), "usage": usage}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        for choice in choices:
            if "message" in choice:
                choice["delta"] = {"content": choice.pop("message")["content"]}
        return {**self._head, "object": kind, "choices": choices}

    def _choice(
        self, place: int, text: str, tokens: Sequence[Token], reason: str, verdict: Any
    ) -> dict[str, Any]:
        found: dict[str, Any] = {"index": place, "finish_reason": reason or None, "logprobs": None}
        if self.chat:
            found["message"] = {"role": "assistant", "content": text}
        else:
            found["text"] = text
        if self.log_probs:
            told = self._of_chat(tokens) if self.chat else self._of_text(place, tokens)
            found["logprobs"] = told
        if verdict is not None:
            found["tiltune"] = verdict
        return found

    def _of_chat(self, tokens: Sequence[Token]) -> dict[str, Any]:
        return {
            "content": [
                {
                    **self._named(each.id, each.log_prob),
                    "top_logprobs": [self._named(*pair) for pair in each.likeliest],
                }
                for each in tokens
            ]
        }

    def _of_text(self, place: int, tokens: Sequence[Token]) -> dict[str, Any]:
        texts = [self._text(each.id) for each in tokens]
        offsets: list[int] = []
        for text in texts:
            offsets.append(self._lengths.get(place, 0))
            self._lengths[place] = offsets[-1] + len(text)
        return {
            "tokens": texts,
            "token_logprobs": [max(each.log_prob, IMPOSSIBLE) for each in tokens],
            "top_logprobs": [
                {self._text(token): max(log_prob, IMPOSSIBLE) for token, log_prob in each.likeliest}
                for each in tokens
            ],
            "text_offset": offsets,
        }

    def _named(self, token: int, log_prob: float) -> dict[str, Any]:
        text = self._text(token)
        log_prob = max(log_prob, IMPOSSIBLE)
        return {"token": text, "logprob": log_prob, "bytes": list(text.encode("utf-8", "replace"))}

    def _text(self, token: int) -> str:
        return self.decoder.decode([token])
