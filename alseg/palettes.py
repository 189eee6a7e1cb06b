"""What images of classes mean: values or colours; of a palette image, its indices or the colours that these have.

A program that draws classes' values keeps a palette in their order (VOC's files, alseg's own); one that saves a picture
in few colours (GIMP, pngquant) numbers these as it likes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from alseg.errors import UserMistake

NO_COLOUR = -1  # of an index that is transparent or past the palette's end


def looked_up(codes: np.ndarray, known: Mapping[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """What `known` has for each code, and where it has none; what is found there means nothing."""
    keys = np.array(sorted(known))
    place = np.searchsorted(keys, codes).clip(max=len(keys) - 1)
    return np.array([known[key] for key in keys.tolist()])[place], keys[place] != codes


def by_colour(
    indices: np.ndarray,
    palette: np.ndarray,
    values: Mapping[int, int],
    colours: Mapping[int, int],
    file: Path,
    filling: frozenset[int] = frozenset(),
) -> bool:
    """Whether a palette image means its palette's colours.

    indices: those that occur, whole numbers from 0, any shape. palette: packed RGB or NO_COLOUR by index. values,
    colours: class by value and by packed RGB, void's included. filling: colours that say nothing where no other is
    known, such as black.
    UserMistake where some colours contradict the indices and others are unknown.
    """
    used = {i: _colour(palette, i) for i in np.flatnonzero(np.bincount(indices.ravel())).tolist()}
    known = {i: code for i, code in used.items() if code in colours}
    if filling.issuperset(known.values()):
        return False
    other = [i for i, code in known.items() if not _agrees(i, code, palette, values, colours)]
    unknown = [i for i in used if i not in known]
    if other and unknown:
        raise UserMistake(
            f"The palette of {file} has {_shown(used[unknown[0]])} at index {unknown[0]}, which is neither a class's "
            f"nor void's, and {_shown(used[other[0]])} at index {other[0]}, which is not the colour of class value "
            f"{other[0]}: give all its colours in classes.toml, or save the class values as a grey image."
        )
    return bool(other)


def _agrees(index: int, code: int, palette: np.ndarray, values: Mapping[int, int], colours: Mapping[int, int]) -> bool:
    """Whether an index means by value what its colour means, or repeats the colour of the index that does.

    Palettes are filled up with a colour, mostly black, so that void's 255 has the background's colour, too.
    """
    meant = colours[code]
    if values.get(index) == meant:
        return True
    return index in values and any(c == meant and _colour(palette, i) == code for i, c in values.items())


def _colour(palette: np.ndarray, index: int) -> int:
    return int(palette[index]) if index < len(palette) else NO_COLOUR


def _shown(code: int) -> str:
    return "no colour" if code == NO_COLOUR else f"#{code:06x}"
