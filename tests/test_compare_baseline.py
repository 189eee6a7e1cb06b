"""A baseline is checked against the names that a grid's strategies will have, before anything is run."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from studies import RANDOM, write_run
from test_compare_grid import grid, settings  # noqa: F401

from alseg.compare.groups import group, read_runs
from alseg.compare.page import write_comparison
from alseg.compare.request import understood
from alseg.compare.running import check_baseline
from alseg.errors import UserMistake
from alseg.store import write_lines

EPOCHS = '"train.epochs" = [1, 2]\n'
MILESTONES = '"train.milestones" = [[0.3, 0.6], [0.5]]\n'
NAMED = '[[compare.strategies]]\nname = "{0}"\nacquirer = "{1}"\nselector = "topk"\n'
GRIDS = {
    "pieces": {"acquirers": "margin,entropy", "selectors": "topk,topk-then-uniform", "full_supervision": True},
    "chance of two kinds": {"acquirers": "random,margin", "selectors": "uniform,topk,topk-then-uniform"},
    "another axis": {"acquirers": "margin", "axes": ["train.epochs=1,2", "size=32x32,64x64"]},
    "an option of what asks": {"acquirers": "margin,random", "axes": ["selector.top=0.02,0.05"]},
    "models": {"axes": ["model=fpn,deeplabv3plus", "model.channels=8,16"], "full_supervision": True},
    "weights": {"axes": ["model.weights=none,default"]},
    "void": {"axes": ["void=skip,ask", "oracle=ground-truth,noisy"]},
    "terms": {"text": f"[compare.axes]\n{MILESTONES}" + NAMED.format("", "margin")},
    "names": {"text": f"[compare.axes]\n{EPOCHS}" + NAMED.format("mine, (a)", "margin") + NAMED.format("b", "entropy")},
    "names of one": {"text": f"[compare.axes]\n{EPOCHS}" + NAMED.format("a", "margin") + NAMED.format("b", "margin")},
    "names of some": {"text": NAMED.format("a", "margin") + NAMED.format("", "margin") + NAMED.format("c", "random")},
}
DECIDED = {
    "alike": {},
    "precision": {"precision": ("float32", "bfloat16", "float32")},
    "weights": {"weights": ({"sha256": "ab" * 32}, {"sha256": "cd" * 32})},
}


@pytest.fixture
def made(grid, tmp_path):  # noqa: F811
    def made(text: str = "", **given):
        (tmp_path / "study.toml").write_text(text)
        return grid(configs=[tmp_path / "study.toml"], seeds="2", **given)

    return made


def written(cells, root, decided, picked=False):
    """The cells' runs, and the names that somebody gave them."""
    names = {}
    for number, cell in enumerate(cells):
        record = {key: values[number % len(values)] for key, values in decided.items()}
        run = write_run(root / cell.name, [0.4, 0.5], settings=cell.settings, record=record)
        names[str(run.resolve())] = cell.strategy
        if picked:
            write_lines(run / "rounds/01/questions.jsonl", [{"item": "a", "image": "train0", "y": None, "x": None}])
    return names


@pytest.mark.parametrize("decided", DECIDED)
@pytest.mark.parametrize("case", GRIDS)
def test_no_name_that_a_strategy_has_in_the_end_is_refused(made, tmp_path, case, decided):
    cells = made(**GRIDS[case])
    names = written(cells, tmp_path / "runs", DECIDED[decided], picked=decided == "precision")
    found = group(read_runs((tmp_path / "runs").iterdir()), RANDOM, names)
    for one in found.strategies:
        if not one.is_full:
            check_baseline(cells, "random", one.name)


def test_the_baseline_of_the_documented_file_is_one_of_its_strategies(made, tmp_path):
    page = Path(__file__).parent.parent / "docs" / "compare.md"
    text = page.read_text().partition("```toml\n")[2].partition("```")[0]
    cells = made(text)
    names = written(cells, tmp_path / "runs", {})
    baseline = tomllib.loads(text)["compare"]["baseline"]
    assert group(read_runs((tmp_path / "runs").iterdir()), RANDOM, names).named(baseline)
    check_baseline(cells, "random", baseline)


@pytest.mark.parametrize(
    ("case", "name", "near"),
    [
        ("pieces", "margni, topk", "did you mean 'margin, topk'"),
        ("pieces", "all pixels", "there are 'entropy, topk', "),
        ("pieces", "margin", "'margin, topk'"),
        ("names", "mine, (b), train.epochs=1", "'mine, (a)'"),
        ("names of some", "margin, topk-then-uniform", "'margin, topk'"),
    ],
)
def test_a_name_that_no_strategy_will_have_is_refused(made, case, name, near):
    with pytest.raises(UserMistake) as caught:
        check_baseline(made(**GRIDS[case]), "random", name)
    assert str(caught.value).startswith(f"There is no strategy {name!r} to be the baseline; ")
    assert near in str(caught.value)


def test_spaces_after_commas_are_no_part_of_a_name(made, tmp_path):
    cells = made(NAMED.format("a,b", "margin") + NAMED.format("c", "entropy"))
    names = written(cells, tmp_path / "runs", {})
    runs = list((tmp_path / "runs").iterdir())
    for name in ("a,b", "a, b"):
        check_baseline(cells, "random", name)
        page = write_comparison(runs, tmp_path / name, names=names, random=RANDOM, baseline=name)
        assert "Differences from a,b" in page.read_text()


def test_a_files_baseline_is_let_be_where_flags_narrow_its_grid(tmp_path):
    file = tmp_path / "study.toml"
    file.write_text('[compare]\nbaseline = "margin, topk"\n[compare.axes]\nacquirer = ["margin", "entropy"]\n')
    for given, baseline, insists in ((None, "margin, topk", False), ("", None, False), ("random", "random", True)):
        request = understood([file], {}, acquirers="entropy", baseline=given)
        assert (request.baseline, request.insists) == (baseline, insists)
    assert understood([file], {}).insists, "else a slip would be told when all has been run"
