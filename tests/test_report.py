"""The report: one page without a network, and its figures as files."""

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
from conftest import SMALL, one_sentence, write_camvid
from PIL import Image

from alseg.cli.app import run_cli
from alseg.colours import levels
from alseg.report.figures import draw_run, over_labels, shortened, some
from alseg.report.page import themed, write_report
from alseg.report.reading import RunView

FIGURES = {"learning-curve", "time", "class-iou", "confusion", "diversity", "asked-classes", "places", "agreement"}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("reported")
    data = write_camvid(root / "camvid")
    words = ["run", "--dataset", "camvid", "--data", data, *SMALL, "--rounds", "2", "--out", root / "run"]
    assert run_cli([*map(str, words), "-o", "report=true"]) == 0
    return root / "run"


class Page(html.parser.HTMLParser):
    """What a page would fetch, its ids and what refers to them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "data", "action") and not (value or "").startswith(("data:", "#")):
                self.fetched.append(f"{tag} {name}={value}")
            if name == "id":
                self.ids.append(value or "")


def test_the_page_stands_alone(run):
    text = (run / "report.html").read_text()
    page = Page(text)
    assert page.fetched == []
    assert len(set(page.ids)) == len(page.ids)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    assert used <= set(page.ids)
    assert "@import" not in text and "//fonts" not in text
    for word in ("learning", "margin", "train.epochs", "Sample images", "prefers-color-scheme: dark"):
        assert word in text
    assert text.count("<img") - text.count('class="crop"') == 4 * (2 + 2 * 2), (
        "image and truth, and two maps a round, of four images"
    )


def test_every_figure_is_there_as_png_and_svg(run):
    for name in FIGURES:
        assert min(Image.open(run / "figures" / f"{name}.png").size) > 300
        tree = ElementTree.parse(run / "figures" / f"{name}.svg")
        texts = [element.text for element in tree.iter("{http://www.w3.org/2000/svg}text")]
        assert any(texts), "text is text"


def test_a_round_s_numbers_are_the_run_s(run):
    view = RunView.read(run)
    assert len(view.records) == 2
    assert view.minutes()[1] > view.minutes()[0] > 0
    assert sum(view.label_counts().values()) == view.records[-1]["labelled_pixels"]
    assert view.confusion(1).sum() == 3 * 62 * 64, "all val pixels but the void border"
    assert [len(asked) for asked in view.asked] == [60, 60]


def test_two_runs_side_by_side(cli, run, tmp_path):
    other = shutil.copytree(run, tmp_path / "<b>other")
    outcome = cli("report", run, other, "--out", tmp_path / "both", "--json")
    assert outcome.code == 0, outcome.err
    text = (tmp_path / "both" / "report.html").read_text()
    assert "<b>other" not in text
    assert "&lt;b&gt;other" in text
    names = {path.name for path in (tmp_path / "both" / "figures").iterdir()}
    assert {"curves.png", "times.svg"} <= names
    assert {"1-run-confusion.png", "2--b-other-confusion.png"} <= names


def test_a_report_needs_neither_torch_nor_data(run, tmp_path):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from alseg.cli.app import run_cli\n"
        f"sys.exit(run_cli(['report', {str(run)!r}, '--out', {str(tmp_path)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.html").exists()


def test_reports_of_runs_that_have_little_to_show(cli, camvid, tmp_path, run):
    shutil.rmtree(camvid / "valannot")
    words = ("--dataset", "camvid", "--data", camvid, *SMALL, "--rounds", 2, "-o", "report=true")
    outcome = cli("run", *words, "--out", tmp_path / "unscored")
    assert outcome.code == 0, outcome.err
    assert "no new report" not in outcome.err
    assert not (tmp_path / "unscored/figures/learning-curve.png").exists()
    outcome = cli("run", *words, "--labels", "all", "--out", tmp_path / "all")
    assert outcome.code == 0 and "no new report" not in outcome.err
    fresh = shutil.copytree(run, tmp_path / "fresh")
    (fresh / "rounds.jsonl").unlink()
    assert cli("report", fresh).code == 0
    text = (fresh / "report.html").read_text()
    assert "No round is finished yet" in text and "<h2>Rounds" not in text


def test_classes_without_a_label_are_in_the_figure_of_labels(run, tmp_path):
    """They are what one looks for: there in the evaluated masks, and never asked."""
    copy = shutil.copytree(run, tmp_path / "copy")
    names = RunView.read(run).classes
    labels = [json.loads(line) for line in (run / "labels.jsonl").read_text().splitlines()]
    only = (label | {"class": names[0]} for label in labels)
    (copy / "labels.jsonl").write_text("".join(json.dumps(label) + "\n" for label in only))
    view = RunView.read(copy)
    figure = next(drawn.figure for drawn in draw_run(view) if drawn.name == "asked-classes")
    seen = view.confusion(1).sum(1)
    shown = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert shown == [name for name, count in zip(names, seen, strict=True) if count or name == names[0]]
    assert len(shown) > 1


def test_audits_do_not_hide_where_pixels_were_chosen(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    path = copy / "rounds/01/questions.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    audits = [line | {"item": f"audit {line['item']}", "y": 0, "x": 0, "audit": True} for line in lines]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines + audits))
    told = [json.loads(line) for line in (copy / "labels.jsonl").read_text().splitlines() if '"r01-' in line]
    with open(copy / "labels.jsonl", "a") as labels:
        labels.writelines(json.dumps(one | {"item": f"audit {one['item']}", "audit": True}) + "\n" for one in told)

    def drawn(folder: Path) -> np.ndarray:
        (one,) = (drawn for drawn in draw_run(RunView.read(folder)) if drawn.name == "places")
        assert "after the first round" in one.caption
        return one.figure.axes[0].get_images()[0].get_array()

    assert np.array_equal(drawn(run), drawn(copy))


def test_long_names_leave_room_for_what_is_drawn():
    names = ["road", "a name that is far longer than any axis has room for"]
    assert shortened(names) == ["road", "a name that…has room for"]


def test_long_names_are_told_apart():
    ends = [f"construction--barrier--{end}" for end in ("curb", "fence", "wall")]
    assert len(set(shortened(ends))) == 3
    alike = ["construction--barrier--of-one-kind", "road", "construction--fence--of-one-kind"]
    assert shortened(alike) == ["constructio…-of-one-kind (1)", "road", "constructio…-of-one-kind (2)"]


BROKEN = {
    "confusion.csv": ("rounds/01/confusion.csv", b"truth,a\nx,1,2,z\n"),
    "a matrix that is none": ("rounds/01/confusion.csv", b"truth,a\n"),
    "no images": ("images.jsonl", b"{}\n"),
    "a label": ("labels.jsonl", b"{}\n"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_damaged_file_is_named(cli, run, tmp_path, case):
    copy = shutil.copytree(run, tmp_path / "copy")
    name, content = BROKEN[case]
    (copy / name).write_bytes(content)
    outcome = cli("report", copy)
    assert outcome.code == 1
    assert name in outcome.err


def test_unlike_runs_have_no_report_together(cli, run, tmp_path):
    other = shutil.copytree(run, tmp_path / "other")
    text = (other / "run.toml").read_text()
    for before, after, what in (('name = "camvid"', 'name = "voc12"', "datasets"), ('"sky"', '"heaven"', "classes")):
        assert before in text
        (other / "run.toml").write_text(text.replace(before, after, 1))
        one_sentence(cli("report", run, other, "--out", tmp_path / "both"), f"have different {what}", ": give each")
    assert not (tmp_path / "both").exists()


def test_a_report_that_cannot_be_written_is_to_go_elsewhere(cli, run, tmp_path):
    (tmp_path / "file").write_text("")
    one_sentence(cli("report", run, "--out", tmp_path / "file" / "page"), "Cannot write the report to", "another --out")


def test_no_run_to_report_on(cli, tmp_path):
    outcome = cli("report", tmp_path)
    assert outcome.code == 2
    assert "is no run" in outcome.err


def test_ids_and_ink_of_an_svg_in_the_page():
    svg = '<?xml?><svg width="1pt" height="2pt"><g id="a" style="fill: #1b1d20"/><use href="#a"/></svg>'
    found = themed(svg, "7")
    assert found == '<svg><g id="7-a" style="fill: var(--ink)"/><use href="#7-a"/></svg>'


def test_levels_go_from_lowest_to_highest():
    assert levels(np.array([[0.0, 0.5], [1.0, np.inf]])).tolist() == [[0, 128], [255, 255]]
    assert levels(np.full((2, 2), 3.0)).tolist() == [[0, 0], [0, 0]]


def test_a_page_is_the_same_again(run, tmp_path):
    first, second = (write_report([run], tmp_path / name).read_bytes() for name in ("a", "b"))
    assert first == second


def test_a_finished_run_whose_report_is_old_gets_a_new_one(cli, run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "figures/.made-by-alseg").write_text("before the last round")
    (copy / "report.html").write_text("old")
    (copy / "figures/places.png").unlink()
    assert cli("resume", copy).code == 0
    assert "Sample images" in (copy / "report.html").read_text()
    assert (copy / "figures/places.png").exists()
    before = (copy / "report.html").stat().st_mtime_ns
    assert cli("resume", copy).code == 0
    assert (copy / "report.html").stat().st_mtime_ns == before, "once is enough"


def test_runs_of_one_name_and_odd_names_have_a_legend_each(run, tmp_path):
    paths = [shutil.copytree(run, tmp_path / name) for name in ("x/run", "y/run", "_under", "日本")]
    views = [RunView.read(path) for path in paths]
    figure = over_labels(views)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["x/run", "y/run", "_under", "日本"]


def test_a_damaged_or_missing_picture_is_left_out(cli, run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "rounds/00/samples/00-utility.png").write_bytes(b"no picture")
    (copy / "samples/01-image.jpg").unlink()
    assert cli("report", copy).code == 0
    for path in copy.glob("rounds/*/samples/00-prediction.png"):
        path.unlink()  # that image has nothing to show
    assert cli("report", copy).code == 0
    page = (copy / "report.html").read_text()
    assert "Sample images" in page and page.count('<div class="sample">') == 2


def test_many_rounds_have_few_ticks(run):
    assert some(list(range(40))) == list(range(3, 40, 4))
    assert some([1, 2]) == [1, 2]
