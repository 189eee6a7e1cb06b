"""What a run asked, as a comparison counts it."""

from __future__ import annotations

import json

import pytest
from studies import write_run

from alseg.compare.asking import ask_once
from alseg.compare.measures import points
from alseg.progress import Quiet
from alseg.report.reading import RunView
from alseg.store import RunFolder, read_lines, write_lines
from alseg.testing.tiny_runs import tiny_registry, tiny_run
from alseg.values import START_ITEMS, PixelLabel, PixelLabels


def test_pixels_that_only_measure_are_none_that_were_chosen(tmp_path):
    whole = RunFolder(tiny_run(tmp_path / "whole", acquirer="margin", trust__audit=5)).rounds()[1]
    asked = tiny_run(tmp_path / "asked", acquirer="margin", trust__audit=5, rounds=1)
    ask_once(asked, tiny_registry(), Quiet())
    found = json.loads((asked / "asked.json").read_text())
    assert found == {name: whole[name] for name in found}


def test_void_costs_budget_so_that_seeds_meet(tmp_path):
    runs = [
        tiny_run(tmp_path / f"{seed}", void="ask", seed=seed, first_pixels=10, pixels_per_round=10, budget=20)
        for seed in range(2)
    ]
    records = [RunFolder(run).rounds() for run in runs]
    assert all(row["pixels_per_image"] < row["asked_pixels"] * (1 + row["round"]) for rows in records for row in rows)
    assert [[point.pixels for point in points(RunView.read(run))] for run in runs] == [[10, 20], [10, 20]]


def test_without_void_the_budget_is_the_labels(tmp_path):
    run = tiny_run(tmp_path / "run", trust__audit=3)
    assert [p.pixels for p in points(RunView.read(run))] == [r["pixels_per_image"] for r in RunFolder(run).rounds()]


def test_labels_that_a_run_began_with_are_in_its_budget(tmp_path):
    first = tiny_run(tmp_path / "first", void="ask", first_pixels=10, budget=10, rounds=1)
    run = tiny_run(tmp_path / "run", void="ask", start_from=str(first), pixels_per_round=5, budget=5)
    given = RunFolder(run).rounds()[0]["pixels_per_image"]
    assert given < 10
    assert [point.pixels for point in points(RunView.read(run))] == [given, pytest.approx(given + 5)]


def test_records_that_do_not_say_what_was_asked_count_labels(tmp_path):
    assert [p.pixels for p in points(RunView.read(write_run(tmp_path / "run", [0.4, 0.5])))] == [10, 20]


def test_a_persons_time_is_found_after_the_labels_that_a_run_began_with(tmp_path):
    run = RunFolder(write_run(tmp_path / "run", [0.4, 0.5]))
    start = [PixelLabel(f"{START_ITEMS}{i:07}", "train0", 0, i, "sky", 0, "imported", "") for i in range(70)]
    asked = PixelLabel("r01-0000000", "train0", 1, 1, "road", 1, "human", "ann", 3.0)
    run.write_labels(PixelLabels((*start, asked)))
    for round in range(2):  # the first asks nothing
        write_lines(
            run.round_folder(round) / "questions.jsonl", read_lines(run.in_round(round, "questions.jsonl"))[:round]
        )
    event = {"event": "answered", "time": "2026-01-01T00:00:00+00:00", "item": asked.item, "who": "ann"}
    (run.path / "journal.jsonl").write_text(json.dumps({**event, "class": "road", "seconds": 3.0}) + "\n")
    assert [point.labelling_seconds for point in points(RunView.read(run.path))] == pytest.approx([0, 3])
