"""A whole text in a grammar: JSON schema, regular expression or Lark, read by llguidance."""

import json
import re
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib import import_module
from itertools import accumulate
from typing import Any

from tiltune.config import GrammarConfig
from tiltune.config.text_file import read_text
from tiltune.constraints.base import TextConstraint, on_texts, shown
from tiltune.constraints.json_schema import JsonSchema, load_schema
from tiltune.constraints.scores import Grammar, Score
from tiltune.errors import ConstraintError

BYTES = tuple(bytes([byte]) for byte in range(256))
END = 256
"""The token that ends a judged text; those before it are the bytes."""

JSON_SPACE = " \t\n\r"
UNFORCED = '\n%llguidance {"no_forcing": true}\n'
"""Without it a mask holds one way alone to write what has to come."""
SPACED = r"""
start: SPACE? @json SPACE?
SPACE: /[ \t\n\r]+/
"""
OF_TOKENS = re.compile(r"max_tokens|<\[")
"""What of Lark's notation speaks of tokens: a text is then judged by how it was cut into them."""
DEAD_ENDS_ALONE = "its dead ends are told by its grammar, token by token"
NARROWER = (
    "JSON with properties in another order than the schema lists them, or with escapes and numbers "
    "that may be written otherwise,"
)
MOST_EXPECTED = 8


def build_grammar(config: GrammarConfig) -> TextConstraint:
    """Score 1 where the grammar accepts the whole text, else 0 with where and what was expected.

    A regular expression and a Lark grammar are met by the text as it stands. A JSON Schema judges
    what the text says, see `json_schema`; its grammar only guides, since llguidance writes less:
    properties in the order in which the schema lists them, strings without needless escapes.

    Raises:
        ConstraintError: llguidance is not installed or cannot compile the grammar; not exactly one
            of `grammar` and `file` is given; the file cannot be read.
    """
    setting, source = _source(config)
    name = f"grammar constraint ({config.format})"
    if config.format == "json_schema":
        judge, within, why = _of_schema(config, setting, source)
    else:
        matcher = _compile(config.format, source, setting)
        judge = partial(judge_text, matcher)
        within, why = (Grammar(_unforced(config.format, source), config.text),), DEAD_ENDS_ALONE
    if config.format == "lark" and OF_TOKENS.search(source):
        within, why = (), "its grammar speaks of tokens, by max_tokens or <[...]>"
    return TextConstraint(
        name,
        on_texts(lambda texts: [judge(text) for text in texts], config.text),
        config.text,
        config.threshold,
        why_no_rule=lambda: why,
        within=within,
    )


def _of_schema(
    config: GrammarConfig, setting: str, source: str
) -> tuple[Callable[[str], Score], tuple[Grammar, ...], str]:
    """What judges by a JSON Schema, the grammar that guides, and why nothing else is known."""
    schema = load_schema(source, setting)
    _llguidance()  # or it is not installed
    try:
        matcher = _compile(config.format, source, setting)
    except ConstraintError as error:
        return JsonSchema(schema, setting).judge, (), f"no grammar guides: {error}"
    by_grammar = partial(judge_text, matcher, spaced=JSON_SPACE)
    guide = Grammar(_unforced(config.format, source), config.text, NARROWER)
    return JsonSchema(schema, setting, by_grammar, cache(_format)).judge, (guide,), DEAD_ENDS_ALONE


def _format(name: str) -> Callable[[str], bool] | None:
    """What tells strings of a JSON Schema's `format`; None: llguidance knows no such format."""
    try:
        source = json.dumps({"type": "string", "format": name})
        matcher = _compile("json_schema", source, f"format {name!r}")
    except ConstraintError:
        return None
    return lambda text: judge_text(matcher, json.dumps(text, ensure_ascii=False)).value == 1.0


def token_matcher(grammar: Grammar, contents: Sequence[bytes]) -> Any:
    """llguidance's matcher of a grammar over tokens of these bytes, before the first of them.

    The token after the last of them is the end.

    Raises:
        ConstraintError: llguidance is not installed or cannot compile the grammar.
    """
    package = _package()
    matcher = package.LLMatcher(_tokenizer(package, contents), grammar.source, log_level=0)
    if matcher.is_error():
        raise ConstraintError(
            f"llguidance cannot compile the grammar over tokens: {matcher.get_error().strip()}"
        )
    return matcher


class _Tokens:
    """A tokenizer as llguidance wants it: tokens by their bytes, the first 256 of them a byte each,
    and the end.
    """

    bos_token_id = None

    def __init__(self, contents: Sequence[bytes]) -> None:
        self.tokens = (*contents, b"<end>")
        self.eos_token_id = len(contents)
        self.special_token_ids = (len(contents),)

    def __call__(self, text: str | bytes) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


@cache
def _llguidance() -> tuple[Any, Any]:
    """Its `LLMatcher`, and the tokenizer of bytes."""
    package = _package()
    return package.LLMatcher, _tokenizer(package, BYTES, slices=[])


def _package() -> Any:
    try:
        return import_module("llguidance")
    except ImportError as missing:
        raise ConstraintError(
            f"constraint.kind = 'grammar' needs llguidance ({missing}); "
            "run: pip install 'tiltune[grammar]'"
        ) from missing


def _tokenizer(package: Any, contents: Sequence[bytes], **options: Any) -> Any:
    wrapped = package.TokenizerWrapper(_Tokens(contents))
    end = len(contents)
    return package.LLTokenizer(wrapped, n_vocab=end + 1, eos_token=end, **options)


def _unforced(format: str, source: str) -> str:
    """The grammar for masks over tokens; of JSON with the white space that is not judged."""
    if format == "lark":
        return source + UNFORCED
    if format == "regex":
        given = json.loads(_llguidance()[0].grammar_from_regex(source))
        return given["grammars"][0]["lark_grammar"] + UNFORCED
    around = json.dumps({"lark_grammar": SPACED + UNFORCED})
    return f'{{"grammars": [{around}, {{"name": "json", "json_schema": {source}}}]}}'


def _source(config: GrammarConfig) -> tuple[str, str]:
    """The setting that holds the grammar, and the grammar."""
    if (config.grammar is None) == (config.file is None):
        found = "neither is" if config.file is None else "both are"
        raise ConstraintError(
            f"constraint: a grammar stands in `grammar`, or in the file that `file` names; {found} "
            "given"
        )
    if config.grammar is not None:
        return "constraint.grammar", config.grammar
    path = str(config.file)
    try:
        return f"constraint.file {path!r}", read_text(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConstraintError(
            f"constraint.file: cannot read {path!r}: {reason}; give a UTF-8 file that holds the "
            "grammar"
        ) from error


def _compile(format: str, source: str, setting: str) -> Any:
    """A matcher before its first byte."""
    matchers, tokenizer = _llguidance()
    grammar = getattr(matchers, f"grammar_from_{format}")(source)
    matcher = matchers(tokenizer, grammar, log_level=0)
    if matcher.is_error():
        raise ConstraintError(
            f"{setting}: llguidance cannot compile it as constraint.format = {format!r}: "
            f"{matcher.get_error().strip()}"
        )
    return matcher


def judge_text(grammar: Any, whole: str, spaced: str = "") -> Score:
    """1 for a sentence of the grammar, but for the letters `spaced` around it; else 0 and why."""
    text = whole.strip(spaced) if spaced else whole
    skipped = len(whole) - len(whole.lstrip(spaced)) if spaced else 0
    # Half of a surrogate pair becomes bytes that are no UTF-8, which no grammar accepts.
    read = text.encode("utf-8", "surrogatepass")
    matcher = grammar.deep_copy()
    taken = matcher.try_consume_tokens(list(read))
    if taken == len(read) and matcher.is_accepting():
        return Score(1.0)
    if matcher.is_error():
        raise ConstraintError(
            f"grammar constraint: llguidance gave up: {matcher.get_error().strip()}; "
            f"the text: {shown(whole)}"
        )
    ends = list(accumulate(len(each.encode("utf-8", "surrogatepass")) for each in text))
    character = sum(end <= taken for end in ends)
    before = ends[character - 1] if character else 0
    matcher = grammar.deep_copy()  # again, up to the border of the character that was not taken
    matcher.consume_tokens(list(read[:before]))
    place, expected = skipped + character, _expected(matcher)
    if character == len(text):
        reason, span = f"ends too early: expected {expected}", (len(whole), len(whole))
    else:
        reason = f"character {place}: found {text[character]!r}, expected {expected}"
        span = (place, place + 1)
    return Score(0.0, reason, span, reason)


def _expected(matcher: Any) -> str:
    """What could come next: the letters that must, or the first of those that may."""
    forced = matcher.compute_ff_bytes().decode("utf-8", "ignore")
    if forced:
        return repr(forced)
    allowed = [token for token, weight in enumerate(matcher.compute_logit_bias()) if weight]
    letters = [repr(chr(token)) for token in allowed if token < 128]
    others = ["a letter beyond ASCII"] if any(128 <= token < END for token in allowed) else []
    rest = [f"{len(letters) - MOST_EXPECTED} more"] if len(letters) > MOST_EXPECTED else []
    end = ["the end"] if END in allowed else []
    return " or ".join([*end, *letters[:MOST_EXPECTED], *rest, *others])
