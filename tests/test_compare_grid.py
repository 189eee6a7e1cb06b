"""What a grid consists of: its runs, their names, what they share."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import write_camvid

from alseg.compare.commands import commands_of
from alseg.compare.jobs import plan
from alseg.compare.request import Request, understood
from alseg.compare.study import LONGEST_NAME, Cell, cells
from alseg.config import flatten
from alseg.errors import UserMistake
from alseg.store import RunFolder
from alseg.values import Question

ACQUIRERS, SELECTORS = "margin,entropy", "topk,topk-then-uniform"


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    data = write_camvid(tmp_path_factory.mktemp("grid") / "data", train=2, val=1)
    return {"dataset": "camvid", "dataset.data": str(data), "size": "64x64", "model.weights": "none"}


@pytest.fixture
def grid(registry, settings):
    def made(**given) -> list[Cell]:
        axes = {axis.partition("=")[0] for axis in given.get("axes", ())}
        flags = {name: value for name, value in settings.items() if name not in axes} | given.pop("flags", {})
        request = understood(given.pop("configs", ()), flags, **given)
        return cells(registry, request.grid, request.toml, request.flags)

    return made


def test_each_acquirer_with_each_selector_seed_by_seed_and_chance(grid):
    names = [cell.name for cell in grid(acquirers=ACQUIRERS, selectors=SELECTORS, seeds="2")]
    strategies = ["random,uniform", "margin,topk", "margin,topk-then-uniform", "entropy,topk"]
    strategies.append("entropy,topk-then-uniform")
    assert names == [f"{strategy},seed={seed}" for seed in (0, 1) for strategy in strategies]


def test_a_single_seed_by_its_number(grid):
    assert [cell.settings["seed"] for cell in grid(seeds="7,")] == [7, 7]


def test_chance_is_trained_as_each_strategy_is(grid, tmp_path):
    file = tmp_path / "study.toml"
    file.write_text(
        '[[compare.strategies]]\nacquirer = "learning-loss"\nselector = "topk"\nterms = ["learning-loss"]\n'
        '[[compare.strategies]]\nacquirer = "margin"\nselector = "topk"\n'
    )
    made = grid(configs=[file])
    assert [(cell.settings["acquirer"]["name"], cell.settings.get("terms", [])) for cell in made] == [
        ("random", []),
        ("random", ["learning-loss"]),
        ("learning-loss", ["learning-loss"]),
        ("margin", []),
    ]
    assert made[1].first == made[2].first != made[0].first == made[3].first


def test_chance_is_added_once_and_for_every_value_of_other_axes(grid):
    made = grid(acquirers="random,margin", selectors="topk", axes=["pixels_per_round=1,5"])
    assert [cell.name for cell in made] == [
        f"{acquirer},topk,pixels_per_round={n},seed=0" for n in (1, 5) for acquirer in ("random", "margin")
    ]


def test_without_strategies_the_settings_own_and_chance(grid):
    assert [cell.name for cell in grid(seeds="3,7")] == [
        f"{strategy},seed={seed}" for seed in (3, 7) for strategy in ("random,uniform", "margin,topk-then-uniform")
    ]


def test_what_comes_after_the_first_round_does_not_divide_it(grid):
    made = grid(acquirers=ACQUIRERS, selectors="topk", axes=["pixels_per_round=1,5"], seeds="2")
    assert len({cell.first for cell in made}) == 2, "one a seed"
    other = grid(acquirers="margin", axes=["train.epochs=1,2"])
    assert len({cell.first for cell in other}) == 2, "one a number of epochs"
    more = grid(acquirers="margin", flags={"first_pixels": "3", "oracle": "noisy"})
    assert not {cell.first for cell in more} & {cell.first for cell in made}


def test_full_supervision_once_for_what_only_points_know(grid):
    made = grid(axes=["pixels_per_round=1,5", "train.epochs=1,2"], full_supervision=True)
    full = [cell for cell in made if cell.settings["labels"] == "all"]
    assert [cell.name for cell in full] == [f"all-pixels,train.epochs={n},seed=0" for n in (1, 2)]
    assert all(cell.rounds == 1 and not cell.first for cell in full)


def test_a_first_round_is_shared_by_what_is_evaluated_alike(grid):
    axes = ["query.size=32x32,64x64"]
    assert len({cell.first for cell in grid(acquirers="margin", axes=axes)}) == 2, "evaluation follows the queries"
    sized = grid(acquirers="margin", axes=axes, flags={"evaluate.size": "48x48", "query.batch_size": "2"})
    assert len({cell.first for cell in sized}) == 1


@pytest.mark.parametrize(
    ("own", "found"),
    [
        ("none", {"all-pixels,query.size=32x32,seed=0": "32x32", "all-pixels,query.size=64x64,seed=0": "64x64"}),
        ("48x48", {"all-pixels,seed=0": "64x64"}),
    ],
)
def test_full_supervision_is_evaluated_as_the_others_are(grid, own, found):
    made = grid(axes=["query.size=32x32,64x64"], full_supervision=True, flags={"evaluate.size": own})
    full = [cell for cell in made if cell.settings["labels"] == "all"]
    assert {cell.name: cell.settings["query"]["size"] for cell in full} == found


def test_options_go_to_the_pieces_that_have_them(grid):
    made = grid(acquirers="margin", selectors=SELECTORS, flags={"selector.top": "0.2"})
    tops = {cell.settings["selector"]["name"]: cell.settings["selector"].get("top") for cell in made}
    assert tops == {"uniform": None, "topk": None, "topk-then-uniform": 0.2}
    with pytest.raises(UserMistake, match="No selector of the grid has an option 'tip'; did you mean top"):
        grid(acquirers="margin", selectors=SELECTORS, flags={"selector.tip": "0.2"})


def test_an_option_of_what_asks_is_no_axis_of_chance(grid):
    made = grid(acquirers="margin", axes=["selector.top=0.02,0.05"], seeds=2)
    assert [(cell.settings["selector"]["name"], cell.settings["selector"].get("top")) for cell in made] == 2 * [
        ("uniform", None),
        ("topk-then-uniform", 0.02),
        ("topk-then-uniform", 0.05),
    ]


def test_sizes_may_be_an_axis(grid):
    made = grid(axes=["size=32x32,64x64"])
    assert {cell.settings["train"]["size"] for cell in made} == {"32x32", "64x64"}
    assert {cell.settings["query"]["size"] for cell in made} == {"32x32", "64x64"}


def test_a_file_names_strategies_and_later_files_go_over_earlier(grid, tmp_path):
    first, second = tmp_path / "one.toml", tmp_path / "two.toml"
    first.write_text(
        'rounds = 4\n[compare]\nseeds = 5\n[compare.axes]\n"train.epochs" = [1, 2]\n[[compare.strategies]]\n'
        'name = "mine, all"\nacquirer = "entropy"\nselector = "topk-then-uniform"\n"selector.top" = 0.3\n'
    )
    second.write_text("rounds = 2\n[compare]\nseeds = [4]\n[compare.axes]\npixels_per_round = [3]\n")
    made = grid(configs=[first, second])
    assert [cell.name for cell in made] == [
        f"{strategy},train.epochs={n},pixels_per_round=3,seed=4"
        for n in (1, 2)
        for strategy in ("random,uniform", "mine,-all")
    ]
    mine = made[1]
    assert (mine.strategy, mine.rounds, mine.settings["selector"]["top"]) == ("mine, all", 2, 0.3)
    replaced = grid(configs=[first], acquirers="margin", seeds="1", axes=["train.epochs=3"])
    assert [cell.name for cell in replaced] == [
        "random,uniform,train.epochs=3,seed=0",
        "margin,topk-then-uniform,train.epochs=3,seed=0",
    ]


def test_long_names_are_cut_and_stay_apart(grid):
    axes = [f"augment.{name}=0.1,0.2" for name in ("flip", "jitter", "grayscale", "blur", "brightness", "saturation")]
    made = grid(axes=axes)
    assert len(made) == len({cell.name for cell in made}) == 2 * 2**6
    assert max(len(cell.name) for cell in made) <= LONGEST_NAME


def test_names_are_cut_by_their_bytes(grid, tmp_path):
    file = tmp_path / "study.toml"
    strategy = '[[compare.strategies]]\nname = "{0}"\nacquirer = "margin"\nselector = "topk"\n'
    file.write_text(strategy.format("\u8a9e" * 90), encoding="utf-8")
    assert max(len(cell.name.encode()) for cell in grid(configs=[file])) <= LONGEST_NAME


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"acquirers": "margn"}, "no acquirer 'margn'; did you mean margin"),
        ({"acquirers": "margin,"}, "--acquirers takes names"),
        ({"seeds": "0"}, "--seeds takes a number of seeds"),
        ({"seeds": "1,x"}, "--seeds takes a number of seeds"),
        ({"axes": ["train.epochs"]}, "--axis takes KEY=A,B"),
        (
            {"acquirers": "margin", "axes": ["acquirer=entropy"]},
            "acquirer is given by --acquirers and by --axis: give one",
        ),
        ({"axes": ["acquirer=entropy", "acquirer=margin"]}, "acquirer is given by --axis twice: give one"),
        ({"axes": ["train.epoch=1"]}, "no setting 'train.epoch'"),
        ({"axes": ["train.epochs=1,many"]}, "train.epochs takes"),
        ({"flags": {"seed": "1"}}, "counts its seeds itself"),
        ({"axes": ["seed=1,2"]}, "counts its seeds itself"),
        ({"seeds": "\u00b2"}, "--seeds takes a number of seeds"),
        ({"axes": ["rounds=1,2"]}, "differ in rounds alone"),
        ({"axes": ["labels=points,all"]}, "give --full-supervision"),
        ({"flags": {"oracle": "human"}}, "The oracle 'human' is a person"),
    ],
)
def test_what_makes_no_sense_is_refused(grid, given, words):
    with pytest.raises(UserMistake, match=words):
        grid(**given)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[compare]\nsedes = 3\n", "has no key 'sedes'; did you mean seeds"),
        ("compare = 3\n", "compare is a table"),
        ("[compare]\naxes = 3\n", "gives its axes as a table"),
        ("[compare.axes]\nacquirer = 'margin'\n", "the axis acquirer takes a list"),
        ("[compare]\nstrategies = ['margin']\n", "gives each strategy as"),
        ("[compare]\nseeds = 1.5\n", "--seeds takes a number"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(grid, tmp_path, text, words):
    path = tmp_path / "study.toml"
    path.write_text(text)
    with pytest.raises(UserMistake, match=words):
        grid(configs=[path])


def test_first_rounds_come_before_the_runs_that_share_them(grid, tmp_path):
    jobs = plan(grid(acquirers=ACQUIRERS, selectors="topk", seeds="2", full_supervision=True), tmp_path)
    assert len(jobs) == 2 * (1 + 3 + 1)
    for place, job in enumerate(jobs):
        if job.after is not None:
            first = next(other for other in jobs[:place] if other.name == job.after)
            assert first.folder == job.first and first.settings["rounds"] == 1


def test_a_run_that_asks_otherwise_in_a_round_is_refused(grid, tmp_path):
    def wanted(budget: int) -> Cell:
        return grid(flags={"budget": str(budget)})[1]

    cell = wanted(25)
    assert cell.pixels == (10, 10, 5)
    run = RunFolder.create(tmp_path / "runs" / cell.name, cell.settings)
    for round, pixels in enumerate(cell.pixels):
        run.write_questions(round, [Question("", "a", 1, 1)], most=pixels)
    for budget, said in ((40, "asked 5 pixels an image in round 2, not 10 as with budget = 40"), (29, "not 9 as with")):
        with pytest.raises(UserMistake, match=said):
            plan([wanted(budget)], tmp_path)
    for budget in (20, 25):
        assert [job.name for job in plan([wanted(budget)], tmp_path)] == [cell.name]


def test_commands_give_the_settings_of_the_grid(registry, settings, cli, tmp_path):
    import shlex
    import tomllib

    from alseg.config import flatten

    request: Request = understood((), settings | {"train.milestones": "0.3,0.6"}, acquirers="margin", seeds="2")
    lines = commands_of(registry, request, tmp_path / "a b")
    made = cells(registry, request.grid, request.toml, request.flags)
    assert len(lines) == len(made) == 4
    words = shlex.split(lines[1])
    assert words[:2] == ["alseg", "run"] and Path(words[-1]) == tmp_path / "a b" / "runs" / made[1].name
    small = ("-o", "model.encoder=test_resnet.r160_in1k", "-o", "model.channels=8", "-o", "train.epochs=1")
    assert cli(*words[1:], *small, "--rounds", "1").code == 0
    stored = flatten(tomllib.loads((Path(words[-1]) / "run.toml").read_text()))
    wanted = flatten(made[1].settings)
    free = {"model.encoder", "model.channels", "train.epochs", "rounds"}
    assert {k: v for k, v in wanted.items() if k not in free} == {
        k: v for k, v in stored.items() if k in wanted and k not in free
    }


@pytest.mark.parametrize("words", [("--jobs", "2"), ("--executor", "local"), ("--ask-only",)])
def test_commands_take_nothing_that_they_do_not_use(cli, tmp_path, words):
    done = cli("compare", *words, "--commands", "--out", tmp_path / "out")
    assert done.code == 2 and "give one of them" in done.err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "flags", "name"),
    [
        ({"acquirers": "margin"}, {"acquirer": "entropy"}, "acquirer"),
        ({"axes": ["train.epochs=1,2"]}, {"train.epochs": "3"}, "train.epochs"),
        ({"axes": ["size=32x32,64x64"]}, {"size": "48x48"}, "size"),
        ({"axes": ["size=32x32,64x64"]}, flatten({"size": "48x48"}), "size"),
        ({"axes": ["size=32x32,64x64"]}, {"query.size": "48x48"}, "query.size"),
    ],
)
def test_a_setting_is_an_axis_or_of_all_runs(given, flags, name):
    with pytest.raises(UserMistake, match=f"{name} is given for all runs and by an axis: give one of them"):
        understood((), flags, **given)


@pytest.mark.parametrize("flags", [{"size": "48x48"}, flatten({"size": "48x48"})])
def test_an_axis_may_be_one_of_the_sizes(flags):
    assert understood((), flags, axes=["query.size=32x32,64x64"]).grid.axes


def test_paper_files_are_understood(registry, settings):
    folder = Path(__file__).parent.parent / "examples" / "paper"
    files = [path for path in sorted(folder.glob("*.toml")) if path.stem not in ("small", "voc12")]
    assert len(files) >= 7
    for path in files:
        request = understood([path, folder / "small.toml"], settings)
        made = cells(registry, request.grid, request.toml, request.flags)
        assert {cell.settings["train"]["epochs"] for cell in made} == {6}, path.name
        assert request.title.startswith(("Figure", "Table")), path.name
