"""Numbers with their nouns, as messages write them."""


def counted(number: int, noun: str, many: str = "") -> str:
    """The number and the noun: "1 row", "2 rows"; `many` where it is not the noun and an s."""
    return f"{number} {noun if number == 1 else many or noun + 's'}"
