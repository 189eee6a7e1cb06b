"""A comparison's page, tables and figures, from run folders of which the numbers are known."""

from __future__ import annotations

import html.parser
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from studies import RANDOM, compare, rows, write_run, write_study

from alseg.compare.comparison import Comparison
from alseg.compare.figures import draw
from alseg.compare.groups import group, read_runs
from alseg.compare.page import Published, write_comparison
from alseg.compare.published import published_figures
from alseg.compare.statistics import holm, seeds_needed
from alseg.errors import AlsegError, UserMistake

A, B = "uniform-then-topk", "topk-then-uniform"
GAINS = {("random", "uniform"): 0.0, ("margin", B): 0.08, ("entropy", A): -0.08, ("entropy", B): 0.0}
LEAST = {
    *("acquirer", "selector", "pixels_per_image", "seeds", "miou_mean", "miou_std", "difference", "p_value"),
    *("verdict", "classes_per_image"),
}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> list[Path]:
    return write_study(tmp_path_factory.mktemp("runs"), GAINS, seeds=4, full=0.6)


@pytest.fixture(scope="module")
def page(study, tmp_path_factory) -> Path:
    published = [
        Published("margin, topk-then-uniform", 20, 50.8, 0.2, "a paper", "best epoch on test"),
        Published("all pixels", None, 58.2, None, "a paper", "best epoch on test"),
        Published("unheard of", 20, 40.0, None, "<i>a paper", "best epoch on test"),
    ]
    out = tmp_path_factory.mktemp("out")
    options = {
        "title": "A <b>study",
        "published": published,
        "note": "1 of 20 runs & more",
        "baseline": f"entropy, {B}",
    }
    return write_comparison(study, out, random=RANDOM, **options)


class Refers(html.parser.HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "data", "action") and not (value or "").startswith(("data:", "#")):
                self.fetched.append(f"{tag} {name}={value}")
            if name == "id":
                self.ids.append(value)


def test_the_page_stands_alone_and_escapes(page):
    text = page.read_text()
    refers = Refers(text)
    assert refers.fetched == []
    assert len(set(refers.ids)) == len(refers.ids)
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', text)) <= set(refers.ids)
    assert "<b>study" not in text and "&lt;b&gt;study" in text and "<i>a paper" not in text
    assert "1 of 20 runs &amp; more" in text
    assert "prefers-color-scheme: dark" in text and "default-src 'none'" in text


def test_the_opening_says_what_can_be_concluded(page):
    text = page.read_text()
    opening = " ".join(re.findall(r"<li>(.*?)</li>", text[: text.index("<h2>Figures")]))
    assert "With 4 seeds, margin, topk-then-uniform is better than random at" in opening
    assert "entropy, uniform-then-topk is worse than random at" in opening
    assert (
        "With 4 seeds, no difference from random can be told for entropy, topk-then-uniform. That is no proof"
        in opening
    )
    assert "6 comparisons with random are made" in opening
    assert "better than entropy, topk-then-uniform" in opening


def test_how_areas_and_seconds_come_about_is_said(page):
    how = page.read_text().partition("How each number is computed")[2]
    assert "the trapezoid up to the second budget is in an area" in how
    assert "They are wall time: runs that were computed beside others" in how


def test_a_row_a_strategy_and_budget(study, page):
    table = rows(page.parent)
    assert set(table[0]) >= LEAST
    assert [row["strategy"] for row in table][::3][:4] == [
        "random",
        *("entropy, topk-then-uniform", "entropy, uniform-then-topk", "margin, topk-then-uniform"),
    ]
    assert [float(row["pixels_per_image"]) for row in table[:3]] == [10, 20, 30]
    assert [row["verdict"] for row in table[:3]] == ["shared first round", "reference", "reference"]
    margin = [row for row in table if row["acquirer"] == "margin"]
    assert [row["verdict"] for row in margin] == ["shared first round", "better", "better"]
    assert [row["p_value"] != "" for row in margin] == [False, True, True]
    runs = [path for path in study if "margin" in path.name]
    mious = [json.loads((path / "rounds.jsonl").read_text().splitlines()[1])["miou"] for path in runs]
    assert float(margin[1]["miou_mean"]) == pytest.approx(np.mean(mious))
    assert float(margin[1]["miou_std"]) == pytest.approx(np.std(mious, ddof=1))
    assert float(margin[1]["train_seconds"]) == pytest.approx(2 * 61.5)
    full = table[-1]
    assert (full["strategy"], full["acquirer"], full["share_of_full"], full["verdict"]) == ("all pixels", "", "1.0", "")
    share = float(margin[2]["miou_mean"]) / float(full["miou_mean"])
    assert float(margin[2]["share_of_full"]) == pytest.approx(share)


def test_differences_and_areas(page):
    table = rows(page.parent, "differences.csv")
    assert {row["reference"] for row in table} == {"random", "entropy, topk-then-uniform"}
    assert all(row["strategy"] != row["reference"] for row in table)
    turned = {(row["strategy"], row["reference"], row["round"]): row for row in table}
    one = turned["entropy, topk-then-uniform", "random", "1"]
    other = turned["random", "entropy, topk-then-uniform", "1"]
    assert float(one["difference"]) == pytest.approx(-float(other["difference"]))
    assert one["p_value"] == other["p_value"]
    areas = {row["strategy"]: row for row in rows(page.parent, "area.csv")}
    assert areas["margin, topk-then-uniform"]["verdict"] == "better"
    assert areas["random"]["verdict"] == "reference"
    assert 20 < float(areas["margin, topk-then-uniform"]["pixels_for_95_percent"]) < 30
    assert areas["entropy, uniform-then-topk"]["pixels_for_95_percent"] == ""


def test_distinct_classes_are_compared_where_runs_trained_too(page):
    table = {(row["strategy"], row["round"]): row for row in rows(page.parent, "diversity.csv")}
    one = table["margin, topk-then-uniform", "2"]
    assert (float(one["difference"]), one["verdict"]) == (pytest.approx(0.8), "more classes")
    assert table["margin, topk-then-uniform", "0"]["verdict"] == "shared first round"
    assert "Nothing was trained after the first round" not in page.read_text()


def test_the_correction_is_over_all_tests_against_a_reference(page):
    table = [row for row in rows(page.parent, "differences.csv") if row["p_value"]]
    for reference in ("random", "entropy, topk-then-uniform"):
        family = [row for row in table if row["reference"] == reference]
        assert len(family) == 6
        corrected = holm([float(row["p_value"]) for row in family])
        assert [float(row["p_holm"]) for row in family] == pytest.approx(corrected)
        needed = [seeds_needed(float(row["difference"]), float(row["difference_std"]), 6) for row in family]
        assert [row["seeds_needed"] for row in family] == ["" if n is None else str(n) for n in needed]


def test_figures_are_files_whose_text_is_text(page):
    folder = page.parent / "figures"
    names = {"pixels", "seconds", "difference-from-random", "difference-from-baseline", "diversity", "classes"}
    assert {path.stem for path in folder.glob("[!.]*")} == names
    for name in names:
        assert min(Image.open(folder / f"{name}.png").size) > 200
        tree = ElementTree.parse(folder / f"{name}.svg")
        assert any(element.text for element in tree.iter("{http://www.w3.org/2000/svg}text"))
    said = (folder / "pixels.svg").read_text()
    for words in ("pixels asked per image", "mean IoU on val (%)", "best epoch on test", "all pixels (upper line)"):
        assert words in said


def test_the_order_of_runs_does_not_matter(study, tmp_path):
    for name, runs in (("a", study), ("b", study[::-1])):
        compare(runs, tmp_path / name)
    for name in ("summary.csv", "differences.csv", "area.csv", "comparison.html", "summary.md"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_one_seed_allows_no_verdict(tmp_path):
    table = compare(write_study(tmp_path / "runs", GAINS, seeds=1), tmp_path / "out")
    margin = [row for row in table if row["acquirer"] == "margin"]
    assert [row["verdict"] for row in margin] == ["shared first round", "one seed", "one seed"]
    assert margin[1]["difference"] and not margin[1]["p_value"] and not margin[1]["miou_std"]
    assert "nothing can be said on a difference" in (tmp_path / "out/comparison.html").read_text()


def test_runs_without_a_common_seed_are_not_paired(tmp_path):
    runs = [write_run(tmp_path / f"m{s}", [0.4, 0.6], seed=s) for s in (0, 1)]
    random = {"acquirer": "random", "selector": "uniform"}
    runs += [write_run(tmp_path / f"r{s}", [0.4, 0.5], seed=s, **random) for s in (2, 3)]
    table = [row for row in compare(runs, tmp_path / "out") if row["acquirer"] == "margin"]
    assert [(row["difference"], row["verdict"]) for row in table] == [("", "shared first round"), ("", "")]
    assert "no seed and budget in common with random" in (tmp_path / "out/comparison.html").read_text()


def test_the_first_rounds_pixels_are_none_that_a_strategy_chose(tmp_path):
    runs = [write_run(tmp_path / "margin", [0.4, 0.5]), write_run(tmp_path / "entropy", [0.4], acquirer="entropy")]
    comparison = Comparison(group(read_runs(runs), RANDOM))
    assert {one.acquirer: bool(comparison.class_shares(one)) for one in comparison.asking} == {
        "margin": True,
        "entropy": False,
    }
    captions = {drawn.name: drawn.caption for drawn in draw(comparison)}
    assert captions["classes"] == "Of the pixels chosen after the first round, the % of each class."
    captions = {drawn.name: drawn.caption for drawn in draw(Comparison(group(read_runs(runs[1:]), RANDOM)))}
    assert captions["classes"] == "Of the pixels of the first round, the % of each class."


def test_random_is_taken_with_the_same_pixels_per_round(tmp_path):
    runs = []
    for step in (5, 10):
        for acquirer, selector, gain in (("margin", B, 0.01 * step), ("random", "uniform", 0.0)):
            for seed in range(3):
                options = {"acquirer": acquirer, "selector": selector, "seed": seed, "step": step}
                mious = [0.4, 0.4 + gain + 0.001 * seed * (gain > 0)]
                runs.append(
                    write_run(
                        tmp_path / f"{acquirer}{step}{seed}", mious, settings={"pixels_per_round": step}, **options
                    )
                )
    found = {(row["strategy"], row["round"]): row for row in compare(runs, tmp_path / "out")}
    assert float(found["margin, topk-then-uniform, pixels_per_round=5", "1"]["difference"]) == pytest.approx(0.051)
    assert float(found["margin, topk-then-uniform, pixels_per_round=10", "1"]["difference"]) == pytest.approx(0.101)
    assert found["random, pixels_per_round=10", "1"]["verdict"] == "reference"


def test_without_random_nothing_is_tested(tmp_path):
    runs = write_study(tmp_path / "runs", {("margin", B): 0.0, ("entropy", B): 0.01}, seeds=2)
    table = compare(runs, tmp_path / "out")
    assert {row["verdict"] for row in table} == {"shared first round", ""}
    assert "There is no random baseline" in (tmp_path / "out/comparison.html").read_text()
    assert rows(tmp_path / "out", "differences.csv") == []
    assert compare(runs[:1], tmp_path / "alone")[0]["seeds"] == "1"


def test_unfinished_runs_pair_where_both_are(tmp_path):
    runs = write_study(tmp_path / "runs", GAINS, seeds=4)
    margin = [path for path in runs if "margin" in path.name]
    lines = (margin[0] / "rounds.jsonl").read_bytes().splitlines(keepends=True)
    (margin[0] / "rounds.jsonl").write_bytes(b"".join(lines[:2]))
    (margin[1] / "rounds.jsonl").unlink()
    table = [row for row in compare(runs, tmp_path / "out") if row["acquirer"] == "margin"]
    assert [row["seeds"] for row in table] == ["3", "3", "2"]
    pairs = [r["pairs"] for r in rows(tmp_path / "out", "differences.csv") if r["strategy"].startswith("margin")]
    assert pairs == ["3", "3", "2"]
    area = next(r for r in rows(tmp_path / "out", "area.csv") if r["acquirer"] == "margin")
    assert area["seeds"] == "2", "runs that do not reach the end have no area"
    assert ">0 rounds<" in (tmp_path / "out/comparison.html").read_text()


def test_no_round_and_no_mask_at_all(tmp_path):
    runs = [write_run(tmp_path / f"r{s}", [], acquirer=a, seed=s) for s, a in enumerate(("margin", "entropy"))]
    assert compare(runs, tmp_path / "none") == []
    assert "No round is finished yet" in (tmp_path / "none/comparison.html").read_text()
    runs = [write_run(tmp_path / f"u{s}", [None, None], seed=s) for s in range(2)]
    table = compare(runs, tmp_path / "unscored")
    assert [row["miou_mean"] for row in table] == ["", ""]
    assert table[1]["classes_per_image"] == "3.0" and table[1]["seeds"] == "2"


def test_runs_without_masks_have_no_mean_iou_rather_than_no_seed_in_common(tmp_path):
    pieces = (("margin", B), ("random", "uniform"))
    runs = [
        write_run(tmp_path / f"{a}{s}", [None, None], acquirer=a, selector=b, seed=s)
        for a, b in pieces
        for s in range(2)
    ]
    compare(runs, tmp_path / "out")
    said = (tmp_path / "out/summary.md").read_text()
    assert "There is no mean IoU, as no image to evaluate on has a mask" in said
    assert "in common" not in said


def test_full_supervision_alone_has_a_column_for_its_mean_iou(tmp_path):
    full = write_run(tmp_path / "full", [0.6], settings={"labels": "all"})
    compare([full], tmp_path / "out")
    table = [line for line in (tmp_path / "out/summary.md").read_text().splitlines() if line.startswith("|")][:3]
    assert "all pixels" in table[0] and "60.0" in table[2]
    assert len({line.count("|") for line in table}) == 1


def test_full_supervision_stands_under_no_budget(tmp_path):
    full = write_run(tmp_path / "full", [0.6], settings={"labels": "all"})
    compare([write_run(tmp_path / "margin", [0.2, 0.3]), full], tmp_path / "out")
    table = [line for line in (tmp_path / "out/summary.md").read_text().splitlines() if line.startswith("|")][:4]
    header, _, asked, whole = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table)
    assert header[-1] == "all pixels" and header[-2].endswith("px")
    assert asked[-1] == "" and whole[-1].startswith("60.0") and whole[-2] == ""


@pytest.mark.parametrize("budget", ["0", "-5", "nan"])
def test_a_published_figure_is_at_some_pixels(budget):
    with pytest.raises(UserMistake, match=f"the budget '{budget}' must be above 0"):
        published_figures([{"strategy": "margin", "source": "a paper", "miou": {budget: 50.8}}])


def test_names_with_commas_quotes_and_markup(tmp_path):
    runs = [write_run(tmp_path / f"run{s}", [0.4, 0.5], seed=s) for s in range(2)]
    name = 'my "best", <script>alert(1)</script> | $x_1^ & _'
    names = {str(path.resolve()): name for path in runs}
    table = compare(runs, tmp_path / "out", names=names, baseline=name)
    assert {row["strategy"] for row in table} == {name}
    text = (tmp_path / "out/comparison.html").read_text()
    assert "<script" not in text
    assert "\\|" in (tmp_path / "out/summary.md").read_text()


def test_an_unknown_baseline_names_the_nearest(study, tmp_path):
    with pytest.raises(UserMistake, match=r"no strategy 'margin, topk'.*did you mean .*margin, topk-then-uniform"):
        compare(study, tmp_path / "out", baseline="margin, topk")
    assert not (tmp_path / "out").exists()


def test_figures_of_an_earlier_page_do_not_stay(study, tmp_path):
    compare(study, tmp_path, baseline="random")
    assert (tmp_path / "figures/difference-from-baseline.png").exists()
    compare(study, tmp_path)
    assert not (tmp_path / "figures/difference-from-baseline.png").exists()


def test_many_strategies_have_a_panel_each(tmp_path):
    pieces = [(f"acquirer{i}", selector) for i in range(5) for selector in (A, B)]
    runs = write_study(tmp_path / "runs", {("random", "uniform"): 0.0} | dict.fromkeys(pieces, 0.01), seeds=2, rounds=2)
    compare(runs, tmp_path / "out")
    text = (tmp_path / "out/figures/pixels.svg").read_text()
    assert len(re.findall(r'id="axes_\d+"', text)) == 10


def test_a_comparison_needs_no_torch(study, tmp_path):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from alseg.compare.page import write_comparison\n"
        f"runs = [Path(p) for p in {[str(path) for path in study[:3]]!r}]\n"
        f"write_comparison(runs, Path({str(tmp_path)!r}), random={RANDOM!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_damaged_files_are_named(study, tmp_path):
    copy = shutil.copytree(study[0], tmp_path / "copy")
    (copy / "rounds.jsonl").write_text("{}\n")
    with pytest.raises(AlsegError, match=r"rounds\.jsonl"):
        compare([copy], tmp_path / "out")
