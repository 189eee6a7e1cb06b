"""A comparison's summary for programs: numbers as numbers, text as text, null for what is not known."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from studies import rows, write_study

from alseg.compare.running import compare_runs


@pytest.fixture
def study(tmp_path):
    return write_study(tmp_path / "runs", {("random", "uniform"): 0, ("margin", "topk"): 0.05}, seeds=2, full=0.7)


def test_json_has_numbers_as_numbers_and_null_for_nothing(study, cli, tmp_path):
    done = cli("compare", *study, "--out", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)["summary"]
    last = next(row for row in found if row["strategy"] == "margin, topk" and row["round"] == 2)
    assert (last["seeds"], last["pixels_per_image"], last["paper_miou"]) == (2, 30, None)
    assert isinstance(last["miou_mean"], float) and isinstance(last["p_value"], float) and last["verdict"]
    full = next(row for row in found if row["strategy"] == "all pixels")
    assert full["acquirer"] is None and full["difference"] is None
    written = rows(tmp_path / "out")
    assert [[value or "" for value in row.values()] for row in written] == [
        ["" if value is None else str(value) for value in row.values()] for row in found
    ]


def test_the_table_at_the_terminal_is_of_the_same_rows(study, cli, tmp_path):
    shown = cli("compare", *study, "--out", tmp_path / "out")
    assert shown.code == 0, shown.err
    line = next(line for line in shown.out.splitlines() if line.startswith("all pixels"))
    assert re.fullmatch(r"all pixels +10\.0 +2 +7\d\.\d ± 0\.\d +- +3\.00\s*", line)
    assert "None" not in shown.out


def test_a_name_that_looks_like_a_number_stays_text(study, tmp_path):
    place = tmp_path / "grid"
    (place / "runs").mkdir(parents=True)
    for run in study:
        shutil.move(run, place / "runs" / run.name)
    named = "".join(f'[runs."{run.name}"]\nstrategy = "0.5"\n' for run in study if "margin" in run.name)
    (place / "comparison.toml").write_text(named)
    assert "0.5" in {row["strategy"] for row in compare_runs([place]).rows}
