"""The classes of a dataset of datasets, and what its masks' values mean."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alseg.colours import distinct
from alseg.errors import UserMistake
from alseg.palettes import looked_up
from alseg.textfiles import read_small
from alseg.values import Classes

IGNORED = 255  # what a mask's pixel that nobody is to learn from is by custom


@dataclass(frozen=True)
class Labels:
    """Classes, and the class of each mask value; void's value is among them."""

    classes: Classes
    values: Mapping[int, int]

    def read(self, mask: np.ndarray, key: str) -> np.ndarray:
        """Class values [H, W] of a mask's own; UserMistake names the first pixel that is no class. Negative is void."""
        if mask.ndim != 2 or mask.dtype.kind not in "iub":
            return mask  # refused by whoever checks it
        read, unknown = looked_up(mask, self.values)
        wrong = unknown & (mask >= 0)  # below, datasets itself says "no label"
        if wrong.any():
            y, x = (int(v) for v in np.argwhere(wrong)[0])
            raise UserMistake(
                f"The mask of {key} holds {int(mask[y, x])} at (y {y}, x {x}), which is neither a class's value nor "
                "void's: give dataset.classes or dataset.void."
            )
        read[unknown] = self.classes.void
        return read.astype(np.uint8 if self.classes.void < 256 else np.uint16)


def labels(names: Mapping[int, str], void: int | None, reduced: bool) -> Labels:
    """Classes in the order of their mask values.

    void: a mask's value that is none; where a class has it, that class is left out. reduced: as image processors
    with do_reduce_labels have it, the mask's value 0 is void and the others are one too high.
    """
    if reduced and void not in (None, 0):
        raise UserMistake("dataset.reduce_labels makes the masks' value 0 void: leave dataset.void out.")
    shift = 1 if reduced else 0
    nothing = 0 if reduced else void
    kept = {value + shift: name for value, name in sorted(names.items()) if value + shift != nothing}
    twice = [name for name in kept.values() if list(kept.values()).count(name) > 1]
    if twice or not all(isinstance(name, str) and name.strip() for name in kept.values()):
        raise UserMistake(f"Each class needs a name of its own{f'; {twice[0]!r} is there twice' if twice else ''}.")
    if len(kept) < 2:
        raise UserMistake("Two classes or more are needed; where one thing matters, the other is background.")
    own = 255 if len(kept) <= 255 else 65535
    values = {value: number for number, value in enumerate(kept)}
    for ignored in (nothing, IGNORED):
        if ignored is not None and ignored not in values:
            values[ignored] = own
    return Labels(Classes(tuple(kept.values()), own, distinct(len(kept))), values)


def read_id2label(path: Path) -> dict[int, str]:
    """Mask value -> name from a JSON file: an object as transformers writes id2label, or a list of names."""
    try:
        found = json.loads(read_small(path))
    except OSError as error:
        raise UserMistake(f"Cannot read the classes {path}: {error.strerror}.") from error
    except ValueError as error:
        raise UserMistake(f"The classes {path} are not JSON: {error}.") from error
    if isinstance(found, dict) and isinstance(found.get("id2label"), dict):
        found = found["id2label"]  # a model's config.json
    if isinstance(found, list):
        return dict(enumerate(found))
    try:
        return {int(value): name for value, name in dict(found).items()}
    except (TypeError, ValueError) as error:
        raise UserMistake(f'The classes {path} must be {{"0": "road", "1": "sky", ...}} or a list.') from error


def names_in(feature: Any) -> dict[int, str] | None:
    """The names of a ClassLabel, by itself or inside sequences and arrays."""
    names = getattr(feature, "names", None)
    if isinstance(names, Sequence) and not isinstance(names, str):
        return dict(enumerate(names))
    inner = feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", None)
    return None if inner is None else names_in(inner)
