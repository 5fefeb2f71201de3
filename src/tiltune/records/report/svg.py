"""Elements of a drawing. Every text in one is escaped here, and nowhere else made into markup."""

from collections.abc import Iterable, Mapping, Sequence

from markupsafe import Markup, escape


def element(tag: str, attributes: Mapping[str, str | float], inside: str = "") -> Markup:
    """An SVG element around a text or other elements; places to a tenth of a pixel."""
    named = "".join(
        f' {name}="{value:.1f}"' if isinstance(value, float) else f' {name}="{escape(value)}"'
        for name, value in attributes.items()
    )
    return Markup(f"<{tag}{named}>{escape(inside)}</{tag}>" if inside else f"<{tag}{named}/>")


def together(elements: Iterable[Markup]) -> Markup:
    """One after the other."""
    return Markup("").join(elements)


def path(
    places: Sequence[tuple[float, float]], css: str, *, close: bool = False, told: str = ""
) -> Markup:
    """Straight lines through places; `told` is read where a pointer rests on it."""
    steps = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    return element("path", {"class": css, "d": f"M{steps}{'Z' if close else ''}"}, title(told))


def title(told: str) -> Markup:
    """What a pointer that rests on the element around it reads."""
    return element("title", {}, told) if told else Markup()
