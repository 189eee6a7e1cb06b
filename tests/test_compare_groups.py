"""Which runs are one strategy, and what it is called."""

from __future__ import annotations

import re

import pytest
from matplotlib.collections import LineCollection, PathCollection
from studies import RANDOM, write_run

from alseg.compare.comparison import Comparison, Published
from alseg.compare.curves import PIXELS, curves
from alseg.compare.groups import ALL_PIXELS, group, read_runs
from alseg.compare.statistics import SAME, SHARED
from alseg.compare.tables import published_rows
from alseg.errors import UserMistake
from alseg.store import RunFolder
from alseg.values import Question


def grouped(runs, **options):
    return group(read_runs(runs), RANDOM, **options)


def names(found):
    return [one.name for one in found.strategies]


def test_seeds_of_one_strategy_are_one_and_machines_do_not_split_it(tmp_path):
    settings = (
        {},
        {
            "train": {"workers": 9, "cuda_graph": False},
            "keep_models": "last",
            "device": "cuda",
            "rounds": 7,
            "recipe": "other",
        },
    )
    runs = [
        write_run(tmp_path / f"m{seed}" / "run", [0.4, 0.5], seed=seed, settings=settings[seed], device=device)
        for seed, device in enumerate(("cpu, 2 threads", "H100"))
    ]
    runs.append(write_run(tmp_path / "r0", [0.4], acquirer="random", selector="uniform"))
    found = grouped(runs)
    assert names(found) == ["random", "margin, topk-then-uniform"]
    assert list(found.strategies[1].runs) == [0, 1]
    (warning,) = found.warnings
    assert "same device (H100: 1 runs; cpu, 2 threads: 2 runs)" in warning
    assert "also within margin, topk-then-uniform" in warning


UNLIKE = {
    "a setting": {"settings": {"train": {"epochs": 12}}},
    "an option": {"settings": {"selector": {"top": 0.1}}},
    "weights": {"record": {"weights": {"sha256": "ab" * 32}}},
    "precision": {"record": {"precision": "bfloat16"}},
}


@pytest.mark.parametrize("case", UNLIKE)
def test_unlike_runs_are_not_averaged(tmp_path, case):
    runs = [write_run(tmp_path / "a", [0.4]), write_run(tmp_path / "b", [0.5], seed=1, **UNLIKE[case])]
    found = grouped(runs)
    assert len(found.strategies) == 2
    assert len(set(names(found))) == 2
    assert all(name.startswith("margin, topk-then-uniform, ") for name in names(found))
    assert found.differing


@pytest.mark.parametrize("rounds", [3, 4], ids=["at its end", "in its midst"])
def test_a_budget_that_ended_within_a_round_is_never_passed_over(tmp_path, rounds):
    """At the end of a run it is a budget of its own; a run that went on from there has asked otherwise since."""
    runs = [write_run(tmp_path / f"m{seed}", [0.4] * rounds, seed=seed) for seed in range(2)]
    RunFolder(runs[1]).write_questions(2, [Question("", "train0", 1, 1)], most=5)
    found = grouped(runs)
    if rounds == 3:
        assert [list(one.runs) for one in found.strategies] == [[0, 1]]
        assert "asked 5 or 10 pixels an image in round 2" in found.warnings[0]
    else:
        plain, short = names(found)
        assert short == f"{plain}, short rounds=5 pixels in round 2" and not found.warnings


def test_a_name_holds_what_differs_and_no_option_of_another_piece(tmp_path):
    runs = [write_run(tmp_path / "a", [0.4])]
    runs.append(write_run(tmp_path / "b", [0.4], selector="uniform"))
    runs.append(write_run(tmp_path / "c", [0.4], settings={"train": {"epochs": 12}}))
    assert sorted(names(grouped(runs[:2]))) == ["margin, topk-then-uniform", "margin, uniform"]
    assert sorted(names(grouped(runs))) == [
        "margin, topk-then-uniform, train.epochs=12",
        "margin, topk-then-uniform, train.epochs=50",
        "margin, uniform, train.epochs=50",
    ]
    assert "selector.top" in grouped(runs).differing


def test_of_two_runs_alike_the_longer_counts(tmp_path):
    short, long = write_run(tmp_path / "a", [0.4]), write_run(tmp_path / "b", [0.4, 0.5])
    for runs in ([short, long], [long, short]):
        found = grouped(runs)
        assert [run.name for run in found.strategies[0].runs.values()] == ["b"]
        assert "the one with more rounds counts" in found.warnings[0]


def test_given_names_are_kept_and_kept_apart(tmp_path):
    runs = [write_run(tmp_path / "a", [0.4]), write_run(tmp_path / "b", [0.5], settings={"train": {"epochs": 12}})]
    given = {str(path.resolve()): "ours" for path in runs}
    assert names(grouped(runs, names=given)) == ["ours, train.epochs=12", "ours, train.epochs=50"]
    given = {str(runs[0].resolve()): 'a "b", <c>'}
    assert 'a "b", <c>' in names(grouped(runs, names=given))


def test_random_and_full_supervision_go_with_the_settings_they_share(tmp_path):
    epochs = ({"train": {"epochs": 12}}, {"train": {"epochs": 50}})
    runs = []
    for number, settings in enumerate(epochs):
        runs.append(write_run(tmp_path / f"m{number}", [0.4], settings=settings))
        runs.append(write_run(tmp_path / f"f{number}", [0.6], settings=settings | {"labels": "all"}))
    runs.append(write_run(tmp_path / "r", [0.4], acquirer="random", selector="uniform", settings=epochs[0]))
    found = grouped(runs)
    short, long = (found.named(f"margin, topk-then-uniform, train.epochs={n}") for n in (12, 50))
    assert found.random_of(short).is_random
    assert found.random_of(long) is None
    assert [found.full_of(one).name for one in (short, long)] == [
        "all pixels, train.epochs=12",
        "all pixels, train.epochs=50",
    ]


@pytest.mark.parametrize("given", [False, True])
def test_names_with_axes_are_those_that_published_figures_go_by(tmp_path, given):
    runs, full = [], []
    for model in ("deeplabv3plus", "fpn"):
        settings = {"model": {"name": model, "encoder": f"of {model}"}, "record": {"weights": {"sha256": model * 9}}}
        runs.append(write_run(tmp_path / model, [0.4], settings=settings))
        full.append(write_run(tmp_path / f"{model}-full", [0.6], settings=settings | {"labels": "all"}))
    called = {str(path.resolve()): ALL_PIXELS for path in full} if given else {}
    assert names(grouped([*runs, *full], names=called)) == [
        *("margin, topk-then-uniform, model=deeplabv3plus", "margin, topk-then-uniform, model=fpn"),
        *("all pixels, model=deeplabv3plus", "all pixels, model=fpn"),
    ]


def test_a_published_name_that_matches_nothing_has_no_own_figure(tmp_path):
    runs = [write_run(tmp_path / "m", [0.4]), write_run(tmp_path / "f", [0.6], settings={"labels": "all"})]
    said = [Published(name, None, 50, None, "", "") for name in (None, "all pixels", "all pixels, model=fpn")]
    _, *rows = published_rows(Comparison(grouped(runs)), said)
    assert [row[3] for row in rows] == ["60.0", "60.0", "-"]


def test_published_lines_of_all_pixels_are_in_every_panel(tmp_path):
    runs = [write_run(tmp_path / f"a{i}", [0.4, 0.5], acquirer=f"a{i}") for i in range(7)]
    runs.append(write_run(tmp_path / "f", [0.6], settings={"labels": "all"}))
    published = [Published("all pixels", None, 58.2, None, "a paper", "best epoch")]
    figure = curves(Comparison(grouped(runs)), lambda cell: cell.pixels, PIXELS, published)
    heights = [[line.get_ydata()[0] for line in axes.lines] for axes in figure.axes]
    assert len(heights) == 7 and all(58.2 in panel for panel in heights)


@pytest.mark.parametrize("many", [False, True], ids=["together", "panels"])
def test_wide_intervals_leave_the_curves_as_they_are(tmp_path, many):
    """Of two seeds an interval is thirteen times their distance."""
    runs = [
        write_run(tmp_path / f"{i}-{seed}", [0.36 + seed / 10, 0.5 + seed / 20], acquirer=f"a{i}", seed=seed)
        for i in range(7 if many else 2)
        for seed in range(2)
    ]
    for axes in curves(Comparison(grouped(runs)), lambda cell: cell.pixels, PIXELS).axes:
        low, high = axes.get_ylim()
        assert 30 < low < 36 and 55 < high < 60
        lines = [
            line for drawn in axes.collections if isinstance(drawn, LineCollection) for line in drawn.get_segments()
        ]
        assert lines and all(0 <= end[1] <= 100 for line in lines for end in line)
        assert any(line[0][1] == 0 for line in lines), "the first round's, which reaches beyond"
        seeds = [
            y for drawn in axes.collections if isinstance(drawn, PathCollection) for y in drawn.get_offsets()[:, 1]
        ]
        assert {round(float(y)) for y in seeds} == {36, 46, 50, 55}


def test_the_first_round_is_shared_by_runs_alike_in_all_before_the_second(tmp_path):
    runs = [
        write_run(tmp_path / f"{acquirer}{model}{seed}", [0.4, 0.5 + seed / 100], **options)
        for model in ("deeplabv3plus", "fpn")
        for acquirer in ("margin", "entropy")
        for seed in range(3)
        for options in [{"acquirer": acquirer, "seed": seed, "settings": {"model": {"name": model}}}]
    ]
    found = Comparison(grouped(runs), "margin, topk-then-uniform, model=fpn").from_baseline
    first = {one.strategy.name: one.word for one in found if one.round == 0}
    assert first == {
        "entropy, topk-then-uniform, model=deeplabv3plus": SAME,
        "margin, topk-then-uniform, model=deeplabv3plus": SAME,
        "entropy, topk-then-uniform, model=fpn": SHARED,
        "margin, topk-then-uniform, model=fpn": SHARED,
    }


@pytest.mark.parametrize("unlike", [{"train": {"epochs": 12}}, {"model": {"name": "fpn"}}])
def test_full_supervision_of_another_kind_is_no_upper_line(tmp_path, unlike):
    runs = [write_run(tmp_path / "f", [0.6], settings={"labels": "all"})]
    runs += [write_run(tmp_path / f"m{i}", [0.4], settings=settings) for i, settings in enumerate(({}, unlike))]
    runs.append(write_run(tmp_path / "g", [0.4], acquirer="g", settings={"first_pixels": 5, "trust": {"audit": 2}}))
    comparison = Comparison(grouped(runs))
    shares = {one.runs[0].name: comparison.share_of_full(comparison.cells[one.name][0]) for one in comparison.asking}
    assert shares == {"m0": pytest.approx(2 / 3), "m1": None, "g": pytest.approx(2 / 3)}


def test_full_supervision_is_told_apart_by_the_size_of_its_evaluation(tmp_path):
    def sized(query, evaluate="none", **more):
        return {"query": {"size": query}, "evaluate": {"size": evaluate}, **more}

    fulls = [sized("32x32"), sized("64x64"), sized("8x8", "32x32")]
    runs = [
        write_run(tmp_path / f"f{i}", [0.6], seed=i, settings=sizes | {"labels": "all"})
        for i, sizes in enumerate(fulls)
    ]
    runs += [write_run(tmp_path / f"m{i}", [0.4], settings=sizes) for i, sizes in enumerate(fulls)]
    found = grouped(runs)
    full = {one.name: list(one.runs) for one in found.strategies if one.is_full}
    assert full == {"all pixels, evaluate.size=32x32": [0, 2], "all pixels, evaluate.size=64x64": [1]}
    upper = {next(iter(one.runs.values())).name: found.full_of(one).name for one in found.strategies if not one.is_full}
    small, large = full
    assert upper == {"m0": small, "m1": large, "m2": small}


def test_full_supervision_asks_nothing_whatever_its_pieces(tmp_path):
    runs = [
        write_run(tmp_path / a, [0.6], acquirer=a, seed=seed, settings={"labels": "all"})
        for seed, a in enumerate(("margin", "entropy"))
    ]
    (only,) = grouped(runs).strategies
    assert only.is_full and only.name == "all pixels" and len(only.runs) == 2


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({"dataset": "voc12"}, r"datasets \(camvid and voc12\)"),
        ({"record": {"classes": ["a", "b"]}}, "classes"),
        ({"record": {"split": "test"}}, "splits"),
        ({"pixels": "ab"}, "evaluation images"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path, other, what):
    runs = [write_run(tmp_path / "a", [0.4]), write_run(tmp_path / "b", [0.4], **other)]
    with pytest.raises(UserMistake, match=f"different .*{what}"):
        grouped(runs)
    with pytest.raises(UserMistake, match="is no run"):
        read_runs([tmp_path])
    with pytest.raises(UserMistake, match="no run to compare"):
        grouped([])


def test_chance_is_where_its_acquirer_draws(tmp_path):
    """Whatever selects; the recipe's selector goes first, and a strategy with a name of its own is none."""
    top, plain = ({"acquirer": "random", "selector": name} for name in ("topk-then-uniform", "uniform"))
    runs = [write_run(tmp_path / "m", [0.4]), write_run(tmp_path / "t", [0.4], **top)]
    found = grouped(runs)
    assert names(found) == ["random", "margin, topk-then-uniform"]
    assert found.random_of(found.strategies[1]).selector == "topk-then-uniform"
    given = {str(runs[1].resolve()): "picked"}
    assert not any(one.is_random for one in grouped(runs, names=given).strategies)
    runs.append(write_run(tmp_path / "r", [0.4], **plain))
    found = grouped(runs)
    assert names(found) == ["random", "margin, topk-then-uniform", "random, topk-then-uniform"]
    assert [one.is_random for one in found.strategies] == [True, False, False]
    given = {str(runs[2].resolve()): "chance"}
    assert grouped(runs, names=given).strategies[0].name == "chance"


def test_a_picker_is_no_chance_without_a_name_either(tmp_path):
    run = write_run(tmp_path / "p", [0.4, 0.5], acquirer="random", selector="simulated-picker")
    path = run / "rounds/01/questions.jsonl"
    path.write_text(re.sub(r'"(y|x)": \d+', r'"\1": null', path.read_text()))
    assert names(grouped([run])) == ["random, simulated-picker"]
