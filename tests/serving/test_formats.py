"""Answers that have to be JSON of a schema, and bytes that are no whole letter yet."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
import torch

from served import Serving, served
from small_tokenizers import byte_level
from tiltune.models import hub

SCHEMA = {
    "type": "object",
    "properties": {"a": {"enum": [1, 22]}, "ok": {"type": "boolean"}},
    "required": ["a", "ok"],
    "additionalProperties": False,
}
FORMAT: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {"name": "found", "schema": SCHEMA, "strict": True},
}


@pytest.fixture(scope="module")
def bytewise(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A random model over bytes, which writes no JSON by itself."""
    folder = tmp_path_factory.mktemp("bytes") / "bytewise"
    tokenizer = byte_level('{"a":', "true", "22")
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    hub.build_llama(
        vocab_size=len(tokenizer),
        num_attention_heads=2,
        max_position_embeddings=96,
        bos_token_id=1,
        eos_token_id=2,
        **shape,
    ).save_pretrained(folder)
    with served(folder, guided=False) as found:
        yield found


def test_every_answer_meets_the_schema_within_its_limit(bytewise: Serving) -> None:
    answer = bytewise.client().chat.completions.create(
        model="bytewise",
        messages=[{"role": "user", "content": "a"}],
        response_format=FORMAT,  # type: ignore[arg-type]
        n=24,
        seed=0,
        max_tokens=30,
    )
    for choice in answer.choices:
        found = json.loads(choice.message.content or "")
        assert found["a"] in (1, 22) and isinstance(found["ok"], bool) and len(found) == 2
        assert (choice.model_extra or {})["tiltune"]["satisfied"] is True


def test_a_limit_within_which_nothing_ends(bytewise: Serving) -> None:
    with pytest.raises(openai.BadRequestError, match="no token is allowed of the prompt alone"):
        bytewise.client().completions.create(
            model="bytewise", prompt="a", max_tokens=5, extra_body={"response_format": FORMAT}
        )


def test_formats_of_neighbours_do_not_mix(bytewise: Serving) -> None:
    """A free text beside a bound one is what it is alone."""
    asked: dict[str, Any] = {"model": "bytewise", "prompt": "a", "max_tokens": 9, "seed": 4}
    alone = bytewise.client().completions.create(**asked).choices[0].text
    beside = bytewise.client().completions.create(
        **asked, stream=True, extra_body={"response_format": {"type": "json_object"}}
    )
    free = bytewise.client().completions.create(**asked).choices[0].text
    bound = "".join(chunk.choices[0].text for chunk in beside)
    assert free == alone and bound != alone
    assert bound.lstrip()[:1] in ("{", "")


def test_a_stream_waits_for_the_rest_of_a_letter(bytewise: Serving) -> None:
    asked: dict[str, Any] = {"model": "bytewise", "prompt": "a", "max_tokens": 40, "seed": 2}
    whole = bytewise.client().completions.create(**asked).choices[0].text
    stream = bytewise.client().completions.create(**asked, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == whole
    assert "\ufffd" in whole  # bytes at random are seldom letters


def test_a_schema_is_compiled_once(bytewise: Serving) -> None:
    before = bytewise.served.format.cache_info()
    for _ in range(3):
        body = {"response_format": {"type": "json_object"}}
        bytewise.client().completions.create(
            model="bytewise", prompt="a", max_tokens=6, extra_body=body
        )
    assert bytewise.served.format.cache_info().misses <= before.misses + 1
    with pytest.raises(openai.BadRequestError, match="response_format"):
        bytewise.client().completions.create(
            model="bytewise", prompt="a", extra_body={"response_format": {"type": "xml"}}
        )
