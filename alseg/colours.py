"""Colours for classes."""

from __future__ import annotations

from alseg.values import Classes

Colour = tuple[int, int, int]


def palette(count: int) -> tuple[Colour, ...]:
    """The first colours of PASCAL VOC's palette: black, then as distinct as 8 bits allow.

    Bit k of a colour's highest bits is taken from bits 3 k to 3 k + 2 of its number (VOCdevkit's VOCcolormap).
    """
    return tuple((_channel(number, 0), _channel(number, 1), _channel(number, 2)) for number in range(count))


def colours_of(classes: Classes) -> tuple[Colour, ...]:
    """A colour each: the dataset's own, or the palette's without black."""
    return classes.colours or palette(len(classes) + 1)[1:]


def _channel(number: int, channel: int) -> int:
    return sum((number >> (3 * k + channel) & 1) << (7 - k) for k in range(8))
