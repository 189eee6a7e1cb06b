"""Oracles that answer from stored masks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter

import numpy as np

from alseg.errors import UserMistake
from alseg.protocols import Images
from alseg.values import Answer, Answers, Classes, Question


class GroundTruth:
    """Answers with the stored mask's class; a void pixel is "can't tell"."""

    sees_truth = True

    def __init__(self, images: Images, classes: Classes) -> None:
        self._images = images
        self._classes = classes
        self._index = {images.key(i): i for i in range(len(images))}
        self._answers: dict[str, Answer] = {}

    def ask(self, questions: Sequence[Question]) -> None:
        """Read the masks of the asked images, one at a time."""
        for image, asked in groupby(sorted(questions, key=attrgetter("image")), key=attrgetter("image")):
            mask = self._mask(image)
            for question in asked:
                value = int(mask[question.y, question.x])
                name = None if value == self._classes.void else self._classes.names[value]
                self._answers[question.item] = Answer(question.item, name, "ground-truth")

    def collect(self) -> Answers:
        """All answers: a mask never keeps one waiting."""
        return Answers(tuple(self._answers.values()), complete=True)

    def _mask(self, image: str) -> np.ndarray:
        mask = self._images.mask(self._index[image])
        if mask is None:
            raise UserMistake(f"The oracle ground-truth needs a mask of {image}, which has none.")
        return mask
