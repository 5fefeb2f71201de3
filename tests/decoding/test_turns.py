"""Several turns: what is asked and told, where an episode ends; on a policy that is a script."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor

from small_tokenizers import byte_level
from tiltune.constraints.scores import Completion, Feedback
from tiltune.data.between import Between
from tiltune.data.encode import Prompt
from tiltune.data.samples import Samples, SamplingLaw
from tiltune.decoding.turns import Episodes, TurnRules, draw_turns
from tiltune.errors import ConfigError, ModelError

pytestmark = pytest.mark.quick

END, CHAT_END = 0, 1


class Letters:
    """A tokenizer of characters; its template marks turns as U and A, and ends them with 1."""

    bos_token_id, eos_token_id = None, END
    chat_template = "yes"

    def __call__(self, text: str, *, add_special_tokens: bool = True) -> Mapping[str, Any]:
        return {"input_ids": [ord(letter) for letter in text]}

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        return "".join(chr(each) for each in ids if each > 1)

    def apply_chat_template(
        self, messages: Any, *, tokenize: bool, add_generation_prompt: bool, **_: Any
    ) -> str:
        said = "".join(f"{each['role'][0].upper()}:{each['content']}\1" for each in messages)
        return said + "A:" * add_generation_prompt


class Script:
    """Draws what is written: by what the context ends with, the next answer; ends it with 0."""

    def __init__(self, answers: Mapping[str, str], *, end: int = END) -> None:
        self.answers, self.end = answers, end
        self.contexts: list[list[str]] = []

    def __call__(self, contexts: Sequence[Sequence[int]]) -> Samples:
        read = ["".join(map(chr, context)) for context in contexts]
        self.contexts.append(read)
        found = [
            [
                *map(ord, next(a for key, a in self.answers.items() if text.endswith(key))),
                self.end,
            ]
            for text in read
        ]
        width, count = max(map(len, found)), len(found)
        mask = torch.tensor([[n < len(row) for n in range(width)] for row in found])
        return Samples(
            prompt_ids=torch.ones(count, max(map(len, contexts)), dtype=torch.long),
            prompt_mask=torch.ones(count, max(map(len, contexts)), dtype=torch.bool),
            ids=torch.tensor([row + [0] * (width - len(row)) for row in found]),
            mask=mask,
            written=mask.clone(),
            proposal_logprobs=torch.where(mask, -float(len(self.contexts)), 0.0),
            ended=torch.ones(count, dtype=torch.bool),
            prompt_index=torch.arange(count),
            policy_version=torch.zeros(count, dtype=torch.long),
            labels=torch.full((count,), float("nan")),
            law=SamplingLaw(8),
        )


def prompt(text: str, *, right: str, chat: bool = False) -> Prompt:
    return Prompt(text, tuple(map(ord, text)), {"right": right}, chat)


def ask(completions: Sequence[Completion]) -> list[Feedback | None]:
    """Names the right answer; what has a ? does not parse."""
    return [
        None
        if each.text == each.row["right"]
        else Feedback(each.row["right"], "?" not in each.text)
        for each in completions
    ]


def played(
    prompts: list[Prompt], script: Script, *, turns: int = 3, most: int = 20, random: bool = False
) -> Episodes:
    between = Between(Letters(), (END, CHAT_END), most)
    return draw_turns(prompts, script, TurnRules(turns, between, ask, random), Letters())


PROMPTS = [prompt("p:", right="x"), prompt("q:", right="y")]


def text_of(ids: Tensor, mask: Tensor) -> str:
    return "".join(
        chr(each) for each, there in zip(ids.tolist(), mask.tolist(), strict=True) if there
    )


def test_an_episode_is_its_answers_and_what_was_said_between() -> None:
    script = Script({"p:": "x", "q:": "?", "\ny\n": "z", "z\0\ny\n": "never"})
    found = played(PROMPTS, script)
    assert script.contexts == [["p:", "q:"], ["q:?\0\ny\n"], ["q:?\0\ny\nz\0\ny\n"]]
    samples = found.samples
    assert text_of(samples.ids[0], samples.mask[0]) == "x\0"
    assert text_of(samples.ids[1], samples.mask[1]) == "?\0\ny\nz\0\ny\nz\0"
    assert text_of(samples.ids[1], samples.written[1]) == "?\0z\0z\0"
    assert samples.proposal_logprobs[1].tolist() == [-1, -1, 0, 0, 0, -2, -2, 0, 0, 0, -3, -3]
    assert samples.unparsed is not None
    assert samples.unparsed.nonzero().tolist() == [[1, 1]]
    assert [each.text for each in found.completions] == ["x", "z"]
    assert found.completions[1].prompt == "q:"  # the answer is judged, not the dialogue
    assert [[t.answer.text for t in turns] for turns in found.earlier] == [[], ["?", "z"]]
    assert [t.feedback.text for t in found.earlier[1]] == ["y", "y"]


def test_one_that_was_told_and_is_right_ends_there() -> None:
    script = Script({"p:": "no", "q:": "y", "\nx\n": "x"})
    found = played(PROMPTS, script)
    assert len(script.contexts) == 2
    assert [len(turns) for turns in found.earlier] == [1, 0]
    assert [each.text for each in found.completions] == ["x", "y"]


def test_feedback_of_another_prompt() -> None:
    """Each answer is told what was wrong with the other's; alone it is told nothing, and stands."""
    script = Script({"p:": "a", "q:": "b", "\nx\n": "x", "\ny\n": "y"})
    own, other = played(PROMPTS, script), played(PROMPTS, script, random=True, turns=2)
    assert [each.text for each in own.completions] == ["x", "y"]
    assert [each.text for each in other.completions] == ["y", "x"]
    assert [turns[0].feedback.text for turns in other.earlier] == ["y", "x"]
    same = [PROMPTS[0], PROMPTS[0]]
    alone = played(same, Script({"p:": "a"}), random=True)
    assert [each.text for each in alone.completions] == ["a", "a"]


def test_the_last_that_fails_is_told_what_was_wrong_with_one_that_is_right_by_now() -> None:
    script = Script({"p:": "a", "q:": "b", "\nx\n": "b", "\ny\n": "x"})
    found = played(PROMPTS, script, random=True)
    assert [[turn.feedback.text for turn in turns] for turns in found.earlier] == [
        ["y"],
        ["x", "x"],
    ]
    assert [each.text for each in found.completions] == ["x", "b"]


def test_another_prompts_feedback_is_in_other_words_if_any_is() -> None:
    three = [prompt("p:", right="x"), prompt("r:", right="x"), prompt("q:", right="y")]
    found = played(
        three, Script({"p:": "a", "r:": "a", "q:": "a", "\n": "z"}), random=True, turns=2
    )
    assert [turns[0].feedback.text for turns in found.earlier] == ["y", "y", "x"]
    alike = played(three[:2], Script({":": "a", "\n": "z"}), random=True, turns=2)
    assert [turns[0].feedback.text for turns in alike.earlier] == ["x", "x"]


def test_one_turn_is_one_draw() -> None:
    script = Script({"p:": "a", "q:": "b"})
    found = played(PROMPTS, script, turns=1)
    assert (len(script.contexts), found.earlier) == (1, [[], []])
    assert torch.equal(found.samples.written, found.samples.mask)


def test_a_chat_answer_is_answered_by_the_user() -> None:
    """The template's own marks; the answer's end is not written twice, and is where it was cut."""
    between = Between(Letters(), (END, CHAT_END), 20)
    chat = prompt("U:q\1A:", right="y", chat=True)
    read = Letters().decode
    assert "".join(map(chr, between.ids(chat, "why", ended=True))) == "U:why\1A:"
    assert "".join(map(chr, between.ids(chat, "why", ended=False))) == "\1U:why\1A:"
    assert read(between.ids(chat, "w" * 99, ended=False)) == "U:" + "w" * 14 + "A:"
    assert len(between.ids(chat, "w" * 99, ended=False)) == 20
    with pytest.raises(ConfigError, match=r"feedback_tokens = 6: .* are 6 tokens"):
        Between(Letters(), (END,), 6).ids(chat, "why", ended=True)
    plain = between.ids(PROMPTS[0], "w" * 99, ended=True)
    assert read(plain) == "\n" + "w" * 18 + "\n"
    assert read(Between(Letters(), (END,), 3).ids(PROMPTS[0], "why", ended=True)) == "\nw\n"
    assert read(Between(Letters(), (END,), 2).ids(PROMPTS[0], "why", ended=True)) == "\nw"


@pytest.mark.parametrize("chat", [False, True])
def test_a_cut_feedback_has_whole_letters_its_last_mark_and_no_token_too_many(chat: bool) -> None:
    """A cut leaves half of a letter, which is read and written again as three bytes of another."""
    tokenizer, told = byte_level(), "\u20ac\u00e9a" * 30
    tokenizer.backend_tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role[0] + ':' + m.content + '<eos>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'A:' }}{% endif %}"
    )
    asked = prompt("p", right="x", chat=chat)
    opening, closing = ("<eos>u:", "<eos>A:") if chat else ("\n", "\n")
    for most in range(9, 60):
        ids = Between(tokenizer, (2,), most).ids(asked, told, ended=False)
        text = tokenizer.decode(ids)
        assert len(ids) <= most
        assert text.startswith(opening) and text.endswith(closing)
        said = text.removeprefix(opening).removesuffix(closing)
        assert told.startswith(said) and len(said.encode()) >= most - 12


def test_an_end_behind_a_space_is_not_written_twice_either() -> None:
    """As Llama 2's: the answer has its end already, and the space was never drawn."""

    class Spaced(Letters):
        def apply_chat_template(self, messages: Any, **_: Any) -> str:
            return "".join(f"{each['role'][0].upper()}:{each['content']} \1" for each in messages)

    between = Between(Spaced(), (END, CHAT_END), 20)
    chat = prompt("U:q \1", right="y", chat=True)
    assert "".join(map(chr, between.ids(chat, "w\1y", ended=True))) == "U:w\1y \1"
    assert "".join(map(chr, between.ids(chat, "w\1y", ended=False))) == " \1U:w\1y \1"


def test_a_template_that_rewrites_answers_is_refused() -> None:
    class Rewriting(Letters):
        def apply_chat_template(self, messages: Any, **_: Any) -> str:
            return "nothing of it"

    with pytest.raises(ModelError, match="chat template"):
        Between(Rewriting(), (END,), 20).ids(prompt("q", right="y", chat=True), "why", ended=True)
