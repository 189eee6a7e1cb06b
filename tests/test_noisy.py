"""The oracle that errs: how often, how, and always in the same way."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL
from PIL import Image
from scipy import stats

from alseg.errors import UserMistake
from alseg.plugins import Registry
from alseg.protocols import Oracle
from alseg.values import Answer, Classes, Question

CLASSES = Classes(("sky", "road", "tree", "car"), 255)
SIDE = 60


class Stored:
    """Images of random masks, a tenth of them void."""

    def __init__(self, count: int = 3, classes: Classes = CLASSES) -> None:
        random = np.random.default_rng(0)
        self.masks = random.integers(0, len(classes), (count, SIDE, SIDE))
        self.masks[random.uniform(size=self.masks.shape) < 0.1] = classes.void

    def __len__(self) -> int:
        return len(self.masks)

    def key(self, i: int) -> str:
        return f"image {i}"

    def image(self, i: int) -> np.ndarray:
        return np.zeros((SIDE, SIDE, 3), np.uint8)

    def mask(self, i: int) -> np.ndarray:
        return self.masks[i]


STORED = Stored()
EVERY = [Question(f"{i}-{y}-{x}", STORED.key(i), y, x) for i in range(3) for y in range(SIDE) for x in range(SIDE)]


def noisy(registry: Registry, seed: int = 0, **options: object) -> Oracle:
    piece = registry.find("oracle", "noisy")
    return piece.build(piece.resolve(options), images=STORED, classes=CLASSES, seed=seed)


def answers(oracle: Oracle, questions: Sequence[Question] = EVERY) -> dict[str, Answer]:
    oracle.ask(questions)
    found = oracle.collect()
    assert found.complete
    return {answer.item: answer for answer in found.answers}


def confusion(said: dict[str, Answer]) -> np.ndarray:
    """Counts [C, C] of truth and answer; a void pixel must be "can't tell" and nothing else may be."""
    counts = np.zeros((4, 4), int)
    for i, mask in enumerate(STORED.masks):
        for (y, x), value in np.ndenumerate(mask):
            name = said[f"{i}-{y}-{x}"].name
            assert (name is None) == (value == 255)
            if name is not None:
                counts[value, CLASSES.index[name]] += 1
    return counts


def plausible(hits: int, trials: int, chance: float) -> bool:
    low, high = stats.binom.interval(1 - 1e-5, trials, chance)
    return bool(low <= hits <= high)


@pytest.mark.parametrize("chance", [0.02, 0.1, 0.5, 1.0])
def test_so_many_answers_are_wrong_and_all_wrong_classes_are_as_likely(registry: Registry, chance: float):
    counts = confusion(answers(noisy(registry, chance=chance)))
    total = counts.sum()
    assert plausible(total - np.trace(counts), total, chance)
    for truth in range(4):
        for said in set(range(4)) - {truth}:
            assert plausible(counts[truth, said], counts[truth].sum(), chance / 3)


def test_without_a_chance_of_error_it_is_the_ground_truth(registry: Registry):
    counts = confusion(answers(noisy(registry, chance=0)))
    assert np.trace(counts) == counts.sum()


def test_a_tenth_is_wrong_where_nobody_says_otherwise(registry: Registry):
    counts = confusion(answers(noisy(registry)))
    assert plausible(counts.sum() - np.trace(counts), counts.sum(), 0.1)


def test_a_pixels_answer_does_not_depend_on_order_rounds_or_what_else_is_asked(registry: Registry):
    whole = answers(noisy(registry, chance=0.5))
    order = [EVERY[i] for i in np.random.default_rng(1).permutation(len(EVERY))]
    oracle = noisy(registry, chance=0.5)
    for start in range(0, len(order), 1000):
        oracle.ask(order[start : start + 1000])
        oracle.ask(order[start : start + 10])  # again
    assert answers(oracle, []) == whole
    few = order[:50]
    renamed = [question._replace(item=f"other {i}") for i, question in enumerate(few)]
    again = answers(noisy(registry, chance=0.5), renamed)
    assert [again[question.item].name for question in renamed] == [whole[question.item].name for question in few]


def test_errors_differ_between_seeds_and_images(registry: Registry):
    wrong = []
    for seed in (0, 1):
        said = answers(noisy(registry, seed=seed, chance=0.5))
        maps = [[[said[f"{i}-{y}-{x}"].name for x in range(SIDE)] for y in range(SIDE)] for i in range(3)]
        names = np.array([*CLASSES.names, None], object)
        wrong.append(np.array(maps, object) != names[np.minimum(STORED.masks, 4)])
    known = STORED.masks != 255
    for one, other, both in (
        (wrong[0], wrong[1], known),
        (wrong[0][0], wrong[0][1], known[0] & known[1]),
    ):
        assert plausible(int((one != other)[both].sum()), int(both.sum()), 0.5), "independent"


def test_it_says_who_it_is_and_that_it_sees_the_truth(registry: Registry):
    oracle = noisy(registry)
    assert oracle.sees_truth
    assert isinstance(oracle, Oracle)
    assert {answer.who for answer in answers(oracle, EVERY[:40]).values()} == {"noisy"}
    assert answers(noisy(registry), []) == {}


def write(path: Path, rows: Sequence[Sequence[object]]) -> Path:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


MATRIX = [
    ["truth", *CLASSES.names],
    ["sky", 90, 0, 10, 0],
    ["road", 0, 3, 0, 1],
    ["tree", 0, 0, 0, 0],
    ["car"] + [5] * 4,
]


def test_the_rows_of_a_confusion_matrix_are_respected(registry: Registry, tmp_path: Path):
    said = answers(noisy(registry, confusion=write(tmp_path / "confusion.csv", MATRIX)))
    counts = confusion(said)
    chances = [[0.9, 0, 0.1, 0], [0, 0.75, 0, 0.25], [0, 0, 1, 0], [0.25] * 4]  # tree was never seen
    for truth, row in enumerate(chances):
        for column, chance in enumerate(row):
            assert plausible(counts[truth, column], counts[truth].sum(), chance), (truth, column)


def test_rows_and_columns_are_found_by_name(registry: Registry, tmp_path: Path):
    columns, order = [0, 3, 1, 4, 2], [0, 4, 2, 1, 3]
    shuffled = [[MATRIX[row][column] for column in columns] for row in order]
    spaced = [[f" {cell} " for cell in row] for row in shuffled]
    (tmp_path / "bom.csv").write_bytes(b"\xef\xbb\xbf" + write(tmp_path / "b.csv", spaced).read_bytes() + b"\r\n,,\r\n")
    plain = write(tmp_path / "a.csv", MATRIX)
    assert answers(noisy(registry, confusion=plain)) == answers(noisy(registry, confusion=tmp_path / "bom.csv"))


def changed(row: int, column: int, cell: object) -> list[list[object]]:
    rows = [list(cells) for cells in MATRIX]
    rows[row][column] = cell
    return rows


@pytest.mark.parametrize(
    ("rows", "line", "words"),
    [
        ([], 1, "header must be truth and then each class once (sky, road, tree, car)"),
        (changed(0, 2, "street"), 1, "header"),
        (changed(0, 2, "sky"), 1, "header"),
        ([row[:4] for row in MATRIX], 1, "header"),
        (changed(2, 0, "street"), 3, "no class is called 'street'"),
        (changed(2, 0, "sky"), 3, "a second row of 'sky'"),
        (changed(3, 2, "many"), 4, "'many' is no number"),
        (changed(3, 2, ""), 4, "is no number"),
        (changed(3, 2, -1), 4, "not below 0"),
        (changed(4, 4, "nan"), 5, "finite"),
        (changed(4, 4, "inf"), 5, "finite"),
        ([*MATRIX[:3], MATRIX[3][:-1], MATRIX[4]], 4, "3 numbers for 4 classes"),
        ([*MATRIX[:3], [*MATRIX[3], 1], MATRIX[4]], 4, "5 numbers for 4 classes"),
        (MATRIX[:4], 4, "ends without a row of 'car'"),
        (MATRIX[:1], 1, "ends without a row of"),
    ],
)
def test_a_bad_matrix_is_refused_with_its_file_and_line(
    registry: Registry, tmp_path: Path, rows, line: int, words: str
):
    path = write(tmp_path / "confusion.csv", rows)
    with pytest.raises(UserMistake) as raised:
        noisy(registry, confusion=path)
    message = str(raised.value)
    assert message.startswith(f"{path}, line {line}: ")
    assert words in message
    assert message.endswith(".")
    assert "\n" not in message


def test_files_that_are_no_table_are_refused(registry: Registry, tmp_path: Path):
    with pytest.raises(UserMistake, match=r"Cannot read the confusion matrix .*nowhere\.csv: No such file"):
        noisy(registry, confusion=tmp_path / "nowhere.csv")
    with pytest.raises(UserMistake, match="Cannot read the confusion matrix"):
        noisy(registry, confusion=tmp_path)
    path = tmp_path / "picture.png"
    Image.new("RGB", (9, 9)).save(path)
    with pytest.raises(UserMistake, match=r"picture\.png, line 1: "):
        noisy(registry, confusion=path)


def test_options_are_checked(registry: Registry):
    for chance in ("-0.1", "1.1", "often"):
        with pytest.raises(UserMistake, match="chance takes a number from 0 to 1"):
            registry.find("oracle", "noisy").resolve({"chance": chance})
    with pytest.raises(UserMistake, match="leave out chance or confusion"):
        noisy(registry, chance=0.1, confusion="some.csv")
    one = Classes(("all",), 255)
    with pytest.raises(UserMistake, match="at least two classes"):
        registry.find("oracle", "noisy").build({}, images=Stored(1, one), classes=one, seed=0)


def test_a_noisy_run_uses_another_runs_confusion_and_resumes(cli, camvid, tmp_path):
    words = ["run", "--dataset", "camvid", "--data", camvid, *SMALL, "--first-pixels", 40, "--pixels-per-round", 2]
    words += ["--oracle", "noisy"]
    first, second = tmp_path / "first", tmp_path / "second"
    outcome = cli(*words, "--rounds", 1, "-o", "oracle.chance=0.5", "--out", first)
    assert outcome.code == 0, outcome.err
    labels = [json.loads(line) for line in (first / "labels.jsonl").read_text().splitlines()]
    wrong = 0
    for label in labels:
        mask = np.asarray(Image.open(camvid / "trainannot" / f"{label['image']}.png"))
        wrong += label["class"] != ("sky", "building", "pole", "road")[mask[label["y"], label["x"]]]
    assert plausible(wrong, len(labels), 0.5)
    assert {label["source"] for label in labels} == {label["who"] for label in labels} == {"noisy"}
    matrix = first / "rounds" / "00" / "confusion.csv"
    outcome = cli(*words, "--rounds", 2, "-o", f"oracle.confusion={matrix}", "--out", second)
    assert outcome.code == 0, outcome.err
    assert cli("resume", second).code == 0
    outcome = cli(*words, "--rounds", 1, "-o", f"oracle.confusion={camvid}", "--out", tmp_path / "third")
    assert outcome.code == 2
    assert len(outcome.err.strip().splitlines()) == 1
