"""Files of text as people have them, read alike everywhere: UTF-8, marked or not, any line ends."""

import gzip
import zlib
from pathlib import Path

MARKS = {
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
"""What files of other encodings begin with; the longer first, which begin as shorter ones do."""


def read_text(path: str | Path) -> str:
    """The file's text without a byte-order mark, its lines ended by line feeds alone; unpacked,
    where its name ends in .gz.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not UTF-8; says what it is, and what to do.
    """
    content = Path(path).read_bytes()
    if Path(path).suffix.lower() == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"it is no whole gzip file: {error}; pack it anew") from None
    return decoded(content).replace("\r\n", "\n").replace("\r", "\n")


def decoded(content: bytes) -> str:
    """UTF-8 as text, without a byte-order mark.

    A NUL is refused, since no text holds one: files of UTF-16 without a mark are full of them, and
    would be read as something else without a word.

    Raises:
        ValueError: it is not UTF-8; says what it is, and what to do.
    """
    found = next((name for mark, name in MARKS.items() if content.startswith(mark)), None)
    if found is None and b"\0" in content:
        found = "UTF-16 without a byte-order mark, or no text,"
    if found is not None:
        raise ValueError(f"it is {found} and not UTF-8 text; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text: {error}; save it as UTF-8") from None
