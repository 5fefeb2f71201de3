"""Rows of a dataset on the Hugging Face hub, or of one it has kept here. Needs the extra `hub`."""

import logging
import re
from collections.abc import Iterator
from itertools import count
from typing import Any

from datasets import load_dataset as _load_dataset  # typed in part

from tiltune.errors import DataError

load_dataset: Any = _load_dataset

_NAME = re.compile(
    r"hub:(?P<path>[^:@]+)(@(?P<revision>[^:]+))?(:(?P<name>[^:\[\]]+))?"
    r":(?P<split>[^:\[\]]+(\[[^\[\]]*\])?)"
)
FORM = "hub:OWNER/NAME:SPLIT, such as hub:tatsu-lab/alpaca:train"


def hub_rows(place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row's place ("hub:…:row N") and its fields, in order.

    Args:
        place: "hub:OWNER/NAME:SPLIT", "hub:OWNER/NAME:SUBSET:SPLIT", the owner's name or
            "@REVISION" after it where wanted; a split may be cut as `datasets` does, "train[:100]".

    Raises:
        DataError: of another form; no such dataset, subset or split; no connection to a dataset
            that is not kept here.
    """
    found = _NAME.fullmatch(place)
    if found is None:
        raise DataError(f"{place}: it is not of the form {FORM}")
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # each retry of a network that is not there is one
    try:
        dataset = load_dataset(**found.groupdict())
    except Exception as error:  # its makers' code, which raises whatever it meets
        raise DataError(
            f"{place}: the dataset cannot be had: {_told(error)}; it must be {FORM}, and "
            "reachable, or kept by `datasets` from before"
        ) from error
    finally:
        logging.disable(before)
    records = iter(dataset)
    for number in count(1):
        try:
            record = next(records, None)
        except Exception as error:  # a picture that cannot be decoded, a file that is damaged
            raise DataError(
                f"{place}:row {number}: cannot be read: {_told(error)}; ask for another split or "
                "for rows before it, such as train[:100], or load the dataset anew"
            ) from error
        if record is None:
            return
        yield f"{place}:row {number}", record


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
