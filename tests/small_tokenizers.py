"""Tokenizers of every way of decoding, small enough for tests."""

from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tiltune.values.vocabulary import byte_alphabet

SPECIAL = ("<pad>", "<bos>", "<eos>")


def byte_level(*words: str | bytes) -> Any:
    """Every byte, then these words as one token each; an added token that holds a space."""
    letters = {value: letter for letter, value in byte_alphabet().items()}
    names = [letters[value] for value in range(256)]
    contents = [word if isinstance(word, bytes) else word.encode() for word in words]
    names += ["".join(letters[value] for value in content) for content in contents]
    bpe = Tokenizer(models.BPE(_numbered(names), []))
    bpe.decoder = decoders.ByteLevel()
    bpe.add_tokens([AddedToken("two words", normalized=False)])
    return _fast(bpe)


def fallback(*words: str) -> Any:
    """As Llama's: bytes for what is no word, a space as U+2581, the first space dropped."""
    names = [f"<0x{value:02X}>" for value in range(256)]
    names += [word.replace(" ", "\u2581") for word in words]
    bpe = Tokenizer(models.BPE(_numbered(names), [], byte_fallback=True))
    bpe.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return _fast(bpe)


def sentence_pieces(*words: str, scheme: str = "legacy") -> Any:
    """As Llama's and Mistral's, which put a space before what they read; as Gemma's, who do not.

    Args:
        words: each a token, with and without a space before it.
        scheme: "legacy", by a normalizer; "first" or "always", by a pre-tokenizer; or "none".
    """
    names = [f"<0x{value:02X}>" for value in range(256)] + ["\u2581", *map(chr, range(33, 127))]
    merges: list[tuple[str, str]] = []
    for word in (space + word for word in words for space in ("", "\u2581")):
        for end in range(1, len(word)):
            merges.append((word[:end], word[end]))
            names.append(word[: end + 1])
    names, merges = list(dict.fromkeys(names)), list(dict.fromkeys(merges))
    bpe = Tokenizer(models.BPE(_numbered(names), merges, byte_fallback=True))
    parts: list[Any] = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    if scheme in ("first", "always"):
        bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    else:
        spaces = [normalizers.Replace(" ", "\u2581")]
        first = [normalizers.Prepend("\u2581")] if scheme == "legacy" else []
        bpe.normalizer = normalizers.Sequence(first + spaces)
    if scheme != "none":
        parts.append(decoders.Strip(" ", 1, 0))
    bpe.decoder = decoders.Sequence(parts)
    return _fast(bpe)


def word_pieces() -> Any:
    """As BERT's, whose decoder tidies up."""
    pieces = Tokenizer(models.WordPiece(_numbered(["a", "##b", ".", "[UNK]"]), unk_token="[UNK]"))
    pieces.decoder = decoders.WordPiece()
    return _fast(pieces)


def _numbered(names: list[str]) -> dict[str, int]:
    return {name: place for place, name in enumerate([*SPECIAL, *names])}


def _fast(tokenizer: Tokenizer) -> Any:
    pad, bos, eos = SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad, bos_token=bos, eos_token=eos
    )
