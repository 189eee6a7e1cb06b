"""An oracle that errs at known rates, and always in the same way at the same pixel."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from alseg import noise
from alseg.errors import UserMistake
from alseg.protocols import Oracle
from alseg.textfiles import read_small
from alseg.values import Answer, Answers, Classes, Question


class Noisy:
    """Passes on what `truth` answers, each class replaced by chance.

    said: float [C, C], rows truth, columns the chances of what is said instead. The replacement is a
    function of seed, image and pixel; "can't tell" stays.
    """

    def __init__(self, truth: Oracle, classes: Classes, said: np.ndarray, seed: int) -> None:
        self._truth, self._classes, self._seed = truth, classes, seed
        self.sees_truth = truth.sees_truth
        sums = said.cumsum(1)
        self._limits = sums / sums[:, -1:]  # ends in 1 exactly, so that no class of chance 0 is said
        self._draws: dict[str, float] = {}

    def ask(self, questions: Sequence[Question]) -> None:
        """Ask the truth, and draw a number for each pixel."""
        self._truth.ask(questions)
        starts = [noise.stream(self._seed, 0, "noisy oracle", f"{q.image}\0{q.y}\0{q.x}") for q in questions]
        draws = noise.uniforms(starts, 1).flatten().tolist()
        self._draws |= {question.item: draw for question, draw in zip(questions, draws, strict=True)}

    def collect(self) -> Answers:
        """The truth's answers so far, some of them wrong."""
        answers = self._truth.collect()
        return Answers(tuple(self._said(answer) for answer in answers.answers), answers.complete)

    def _said(self, answer: Answer) -> Answer:
        if answer.name is not None:
            row = self._limits[self._classes.index[answer.name]]
            column = int(np.searchsorted(row, self._draws[answer.item], side="right"))
            answer = answer._replace(name=self._classes.names[column])
        return answer._replace(who="noisy")


def uniform_errors(chance: float, classes: int) -> np.ndarray:
    """[C, C]: each other class equally likely, all of them `chance` together."""
    if classes < 2:
        raise UserMistake("The oracle noisy needs at least two classes to take one for another.")
    said = np.full((classes, classes), chance / (classes - 1))
    np.fill_diagonal(said, 1 - chance)
    return said


def read_confusion(path: Path, classes: Classes) -> np.ndarray:
    """Shares [C, C] from a CSV such as a run's confusion.csv: rows truth, columns what is said, counts or shares.

    Rows and columns may be in any order and each row of any sum. A class whose row is all 0 was never
    seen and is said truly. Raises UserMistake with file and line.
    """
    try:
        reader = csv.reader(io.StringIO(read_small(path, "replace")))
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except OSError as error:
        raise UserMistake(f"Cannot read the confusion matrix {path}: {error.strerror}.") from error
    except csv.Error as error:
        raise UserMistake(f"{path}, line {reader.line_num}: not CSV ({error}).") from error
    names = ", ".join(classes.names)
    line, header = rows[0] if rows else (1, [])
    columns = [cell.strip() for cell in header[1:]]
    if sorted(columns) != sorted(classes.names):
        raise UserMistake(f"{path}, line {line}: the header must be truth and then each class once ({names}).")
    said = np.eye(len(classes))
    missing = set(classes.names)
    for line, row in rows[1:]:
        name = row[0].strip()
        if name not in missing:
            problem = "a second row of" if name in classes.index else "no class is called"
            raise UserMistake(f"{path}, line {line}: {problem} {name!r}; each class has one row ({names}).")
        missing.remove(name)
        shares = _shares(path, line, row[1:], len(classes))
        if shares is not None:
            said[classes.index[name], [classes.index[column] for column in columns]] = shares
    if missing:
        raise UserMistake(f"{path}, line {line}: the file ends without a row of {sorted(missing)[0]!r}.")
    return said


def _shares(path: Path, line: int, cells: Sequence[str], classes: int) -> np.ndarray | None:
    """A row whose sum is 1, or None where all of it is 0."""
    if len(cells) != classes:
        raise UserMistake(f"{path}, line {line}: there are {len(cells)} numbers for {classes} classes.")
    try:
        counts = [float(cell) for cell in cells]
    except ValueError as error:
        raise UserMistake(f"{path}, line {line}: {str(error).partition(': ')[2]} is no number.") from error
    total = sum(counts)
    if min(counts) < 0 or not math.isfinite(total):
        raise UserMistake(f"{path}, line {line}: counts and shares are finite and not below 0.")
    return np.array(counts) / total if total else None
