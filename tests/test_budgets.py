"""Budgets over the pool, full supervision, the paper's protocol, and a round's diagnostics."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL, write_camvid
from PIL import Image
from scipy import stats
from test_run import fingerprint, lines

from alseg.engine.acquire import within_budget
from alseg.values import Question


def pool_run(cli, data: Path, out: Path, *more: object):
    outcome = cli("run", "--dataset", "camvid", "--data", data, *SMALL, "--rounds", 3, "--out", out, *more)
    assert outcome.code == 0, outcome.err
    return outcome


@pytest.mark.parametrize("selector", ["topk", "topk-then-uniform", "uniform-then-topk", "uniform"])
def test_a_pool_budget_asks_exactly_b_pixels_and_never_above_the_cap(cli, camvid, tmp_path, selector):
    run = tmp_path / "run"
    pool_run(cli, camvid, run, "--pool-pixels-per-round", 11, "--cap", 3, "--selector", selector)
    for number in range(3):
        questions = lines(run / "rounds" / f"{number:02}" / "questions.jsonl")
        assert len(questions) == 11
        assert max(Counter(q["image"] for q in questions).values()) <= 3
        assert len({(q["image"], q["y"], q["x"]) for q in questions}) == 11
    assert [row["labelled_pixels"] for row in lines(run / "rounds.jsonl")] == [11, 22, 33]


def test_a_pool_budget_beyond_the_cap_says_how_much_it_could_ask(cli, camvid, tmp_path):
    outcome = pool_run(cli, camvid, tmp_path / "run", "--pool-pixels-per-round", 40, "--cap", 2)
    assert "only 12 of 40 pixels" in outcome.err


def test_topk_over_the_pool_takes_the_most_useful_pixels_of_all_images(cli, camvid, tmp_path):
    run = tmp_path / "run"
    pool_run(cli, camvid, run, "--pool-pixels-per-round", 8, "--selector", "topk")
    chosen = lines(run / "rounds" / "01" / "questions.jsonl")
    per_image = Counter(question["image"] for question in chosen)
    for image, count in per_image.items():
        ranks = sorted(q["rank"] for q in chosen if q["image"] == image)
        assert ranks == list(range(count)), "the best of an image come first"


def test_b_highest_priorities_win_and_ties_go_to_the_earlier_image():
    def proposal(image: str, *priorities: float):
        return [(p, Question("", image, 0, rank)) for rank, p in enumerate(priorities)]

    proposals = [proposal("a", 0.9, 0.5), proposal("b", 0.5, 0.1), proposal("c", 0.95)]
    picked = [(q.image, q.x) for q in within_budget(proposals, 3)]
    assert picked == [("a", 0), ("a", 1), ("c", 0)]
    where = {f"{q.image}, {q.y}, {q.x}": place for place, q in enumerate(within_budget(proposals, None))}
    equal = [[(1.0, question) for _, question in image] for image in proposals]
    last = within_budget(equal, 2, lambda name: -float(where[name]))
    assert [where[f"{q.image}, {q.y}, {q.x}"] for q in last] == [3, 4], "equal priorities are told apart by a key"
    assert len(within_budget(proposals, None)) == len(within_budget(proposals, 99)) == 5


def test_random_pool_picks_are_uniform_over_all_pixels(tmp_path):
    """Round 0 of a pool budget: each image gets its share by size, each pixel the same chance."""
    from alseg.engine.acquire import Pool, ask_at_random
    from alseg.engine.images import DecodedImages
    from alseg.values import Classes, PixelLabels

    class Two:
        def __len__(self):
            return 2

        def key(self, i):
            return "ab"[i]

        def image(self, i):
            return np.zeros(((4, 4), (4, 12))[i] + (3,), np.uint8)

        def mask(self, i):
            return None

    classes = Classes(("x",), 255)
    images, counts = DecodedImages(Two(), classes, 10**6, workers=0), Counter()
    for seed in range(400):
        pool = Pool(
            images,
            classes,
            PixelLabels(),
            skip_void=False,
            seed=seed,
            round=0,
            device=torch.device("cpu"),
            batch_size=2,
        )
        counts.update((q.image, q.y, q.x) for q in within_budget(ask_at_random(pool, 8), 8))
    observed = [counts[name, y, x] for name, width in (("a", 4), ("b", 12)) for y in range(4) for x in range(width)]
    assert sum(observed) == 3200
    # each pixel is picked at most once a draw, so the spread is that of sampling without replacement
    variance = 400 * (8 / 64) * (1 - 8 / 64)
    statistic = sum((count - 50) ** 2 for count in observed) / variance
    assert stats.chi2.sf(statistic, 63) > 1e-3


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--pool-pixels-per-round", 5, "--budget", 10), "budget"),
        (("--cap", 5), "cap"),
        (("--pool-pixels-per-round", 0), "pool_pixels_per_round"),
    ],
)
def test_budgets_that_contradict_are_refused(cli, camvid, tmp_path, flags, named):
    outcome = cli("run", "--dataset", "camvid", "--data", camvid, *SMALL, *flags, "--out", tmp_path / "run")
    assert outcome.code == 2
    assert named in outcome.err


def test_a_pool_run_starts_again_from_its_settings_and_resumes(cli, camvid, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    pool_run(cli, camvid, first, "--pool-pixels-per-round", 5)
    assert cli("run", "--config", first / "run.toml", "--out", second).code == 0
    assert fingerprint(first) == fingerprint(second)
    assert cli("resume", first).code == 0


def test_full_supervision_trains_on_every_pixel_and_writes_no_labels(cli, camvid, tmp_path):
    run = tmp_path / "run"
    words = ["run", "--dataset", "camvid", "--data", camvid, *SMALL, "-o", "train.epochs=30", "--labels", "all"]
    assert cli(*words, "-o", "train.learning_rate=0.005", "--out", run).code == 0
    (record,) = lines(run / "rounds.jsonl")
    masks = [np.asarray(Image.open(path)) for path in (camvid / "trainannot").iterdir()]
    assert record["labelled_pixels"] == sum(int((mask != 11).sum()) for mask in masks)
    assert record["loss"] < 1.8, "chance is 2.4"
    assert not (run / "labels.jsonl").exists()
    assert not (run / "journal.jsonl").exists()
    assert cli("resume", run).code == 0
    assert len(lines(run / "rounds.jsonl")) == 1


def test_the_papers_protocol_adds_columns_and_changes_nothing_else(cli, tmp_path):
    data = write_camvid(tmp_path / "camvid")
    (data / "val").rename(data / "test")
    (data / "valannot").rename(data / "testannot")
    write_camvid(tmp_path / "other", seed=5)
    for name in ("val", "valannot"):
        (tmp_path / "other" / name).rename(data / name)
    words = ["run", "--dataset", "camvid", "--data", data, *SMALL, "--first-pixels", 3, "--rounds", 2]
    words += ["-o", "train.epochs=4"]
    for protocol in ("honest", "paper"):
        assert cli(*words, "--protocol", protocol, "--out", tmp_path / protocol).code == 0
    honest, paper = (lines(tmp_path / name / "rounds.jsonl") for name in ("honest", "paper"))
    assert all("paper_miou" not in row for row in honest)
    for mine, theirs in zip(honest, paper, strict=True):
        assert mine["miou"] == theirs["miou"]
        assert 1 <= theirs["paper_epoch"] <= 4
        assert 0 <= theirs["paper_miou"] <= 1
    on_test = tmp_path / "on-test"
    assert cli(*words, "--split", "test", "--out", on_test).code == 0
    for row, theirs in zip(lines(on_test / "rounds.jsonl"), paper, strict=True):
        assert theirs["paper_miou"] >= row["miou"] - 1e-12, "the last epoch is one of those the best is of"


def test_the_papers_protocol_needs_a_test_split(cli, camvid, tmp_path):
    outcome = cli(
        "run", "--dataset", "camvid", "--data", camvid, *SMALL, "--protocol", "paper", "--out", tmp_path / "run"
    )
    assert outcome.code == 2
    assert "split test" in outcome.err


def test_the_diagnostics_of_a_round(cli, camvid, tmp_path):
    run = tmp_path / "run"
    words = ["run", "--dataset", "camvid", "--data", camvid, *SMALL, "--first-pixels", 4, "--pixels-per-round", 3]
    assert cli(*words, "--rounds", 2, "--out", run).code == 0
    first, second = lines(run / "rounds.jsonl")
    assert [first[name] for name in ("mean_utility", "mean_entropy", "agreement")] == [None] * 3
    questions = lines(run / "rounds" / "01" / "questions.jsonl")
    labels = {label["item"]: label["class"] for label in lines(run / "labels.jsonl")}
    assert second["class_counts"] == dict(Counter(labels[q["item"]] for q in questions))
    assert math.isclose(second["mean_utility"], np.mean([q["utility"] for q in questions]), rel_tol=1e-9)
    assert math.isclose(second["mean_entropy"], np.mean([q["entropy"] for q in questions]), rel_tol=1e-9)
    assert math.isclose(second["agreement"], np.mean([q["guess"] == labels[q["item"]] for q in questions]))
    spreads = []
    for image in {q["image"] for q in questions}:
        points = [(q["y"], q["x"]) for q in questions if q["image"] == image]
        pairs = [(a, b) for i, a in enumerate(points) for b in points[i + 1 :]]
        spreads.append(np.mean([math.dist(a, b) for a, b in pairs]))
    assert math.isclose(second["spatial_spread"], np.mean(spreads), rel_tol=1e-9)
    images = {q["image"] for q in questions}
    expected = np.mean([len({labels[q["item"]] for q in questions if q["image"] == image}) for image in images])
    assert math.isclose(second["classes_per_image"], expected)


def test_longer_side_and_own_size(cli, camvid, tmp_path):
    words = ["run", "--dataset", "camvid", "--data", camvid, *SMALL, "--first-pixels", 4, "--rounds", 2]
    more = ("-o", "train.resize=longer:80", "-o", "query.size=longer:48", "-o", "evaluate.size=own")
    assert cli(*words, *more, "--out", tmp_path / "run").code == 0
    assert lines(tmp_path / "run" / "rounds.jsonl")[1]["miou"] is not None
