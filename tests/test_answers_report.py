"""The report on a run that somebody answered: cost, agreement, mistakes, why a pixel, when to stop."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotator import answer_all, by_masks, post, served
from conftest import write_camvid
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image
from test_human import TINY, classes_of, folder_of
from test_run import lines

import alseg
from alseg.plugins import Registry
from alseg.report.answer_figures import audited
from alseg.report.crops import LEAST, window
from alseg.report.page import write_report
from alseg.report.reading import RunView
from alseg.report.table import table_rows
from alseg.settings import TrustSettings
from alseg.trust import plan_of

few = hypothesis_settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
FIGURES = {"labelling-time", "acts", "seconds", "agreement"}


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> dict[str, Any]:
    data = write_camvid(tmp_path_factory.mktemp("answered") / "camvid")
    pixels = {"first_pixels": 3, "pixels_per_round": 3, "rounds": 4}
    return {"dataset": "camvid", "dataset.data": str(data), **TINY, **pixels, "report": True}


@pytest.fixture(scope="module")
def run(settings, tmp_path_factory) -> Path:
    """Answered by a program that puts one off, takes one back and cannot tell one."""
    out = tmp_path_factory.mktemp("answers") / "run"
    name_of = by_masks(folder_of(settings), classes_of(settings))
    with served(settings | {"oracle": "human"}, out) as (client, work):
        first, second, third = client.get("/api/state").json()["queue"][:3]
        post(client, "skip", item=first["item"])
        post(client, "answer", item=second["item"], **{"class": "sky"}, seconds=30.0)
        post(client, "undo")
        post(client, "answer", item=second["item"], **{"class": "road"}, seconds=2.0)
        post(client, "unsure", item=third["item"], seconds=4.0)
        answer_all(client, lambda item: name_of(item) or "sky")
        work.done()
    return out


def confident(run: Path, where: Path, probability: float = 0.93) -> Path:
    """A copy whose guesses are all as sure."""
    copy = shutil.copytree(run, where)
    for path in copy.glob("rounds/*/questions.jsonl"):
        rewrite(path, lambda line: line | ({"probability": probability} if line["guess"] else {}))
    return copy


def rewrite(path: Path, change: Any) -> None:
    path.write_text("".join(json.dumps(change(line)) + "\n" for line in lines(path)))


def text_of(runs: Path | Iterable[Path], out: Path, files: bool = False) -> str:
    page = write_report([runs] if isinstance(runs, Path) else list(runs), out, files).read_text()
    page = re.sub(r"<svg.*?</svg>|<style.*?</style>", "", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def test_what_labelling_cost(run, tmp_path):
    """Sums over the journal's lines, taken here by hand."""
    events = lines(run / "journal.jsonl")
    seconds = [event["seconds"] for event in events if event.get("seconds") is not None]
    said = text_of(run, tmp_path)
    assert f"took {sum(seconds) / 60:.1f} minutes" in said
    assert '72 answers, 1 of them "can\'t tell", 1 put off, 1 taken back.' in said
    assert f"{sum(seconds) / 60:.1f} minutes, {len(events)} key presses and clicks" in said
    stand = sorted([0.5] * 70 + [2.0, 4.0])
    assert f"An answer took {np.median(stand):.1f} seconds" in said
    view = RunView.read(run)
    assert view.acts_so_far() == [18 + 3, 39, 57, 75]
    assert view.labelling_minutes()[-1] == pytest.approx(sum(seconds) / 60)


def test_the_figures_are_files_and_in_the_page(run, tmp_path):
    write_report([run], tmp_path)
    for name in FIGURES:
        assert (tmp_path / "figures" / f"{name}.svg").exists() and (tmp_path / "figures" / f"{name}.png").exists()
    page = (tmp_path / "report.html").read_text()
    for title in ("When to stop", "Agreement with the model", "Cost of labelling", "Likeliest mistakes", "Why these"):
        assert f"<h2>{title}" in page


def test_agreement_is_that_of_the_rounds(run):
    from alseg.report.agreement import agreement_by_round

    view = RunView.read(run)
    shares = {one.round: one.share for one in agreement_by_round(view.answered)}
    assert shares == {r["round"]: r["agreement"] for r in view.records if r["agreement"] is not None}
    assert 0 not in shares


def test_agreement_is_told_by_whether_the_guess_was_in_sight(run, tmp_path):
    assert "guess in sight" not in text_of(run, tmp_path / "page")
    copy = shutil.copytree(run, tmp_path / "copy")
    text = (copy / "run.toml").read_text()
    assert "blind = 0.0" in text
    (copy / "run.toml").write_text(text.replace("blind = 0.0", "blind = 0.5"))
    said, view = text_of(copy, tmp_path / "page"), RunView.read(copy)
    asked = [question for number in range(4) for question in view.folder.questions(number)]
    plans = [plan_of(view.folder.questions(number), TrustSettings(blind=0.5), 0, number) for number in range(4)]
    blind, guesses = set().union(*(plan.blind for plan in plans)), {q.item: q.guess for q in asked}
    told = [label for label in view.labels if label.name is not None and guesses[label.item] is not None]
    for name, of in (("all, blind", blind), ("all, guess in sight", guesses.keys() - blind)):
        mine = [guesses[label.item] == label.name for label in told if label.item in of]
        assert len(mine) > 10 and f"{name} {sum(mine)} {len(mine)} {100 * sum(mine) / len(mine):.1f} " in said


def test_mistakes_are_listed_with_their_place_and_a_picture(run, tmp_path):
    copy = confident(run, tmp_path / "copy")
    questions = {q["item"]: q for r in range(4) for q in lines(copy / f"rounds/{r:02}/questions.jsonl")}
    wrong = [p for p in lines(copy / "labels.jsonl") if p["class"] and questions[p["item"]]["guess"]]
    wrong = [p for p in wrong if questions[p["item"]]["guess"] != p["class"]]
    said = text_of(copy, tmp_path / "page")
    assert wrong and f"{min(20, len(wrong))} to look at again" in said
    one = min(wrong, key=lambda p: p["item"])
    guess = questions[one["item"]]["guess"]
    assert f"{one['class']} {guess} 93 % {one['image']} {one['y']}, {one['x']} {one['round']} {one['who']}" in said
    assert "None: no answer differs" in text_of(confident(run, tmp_path / "unsure", 0.4), tmp_path / "none")


def test_crops_show_the_pixel_from_the_image(run, settings, tmp_path):
    """The ring lies on the pixel: the crop, undone, is that part of the image's file."""
    kept = sorted((run / "samples/pixels").glob("*.jpg"))
    assert kept and len(kept) <= 20 * 4
    label = next(line for line in lines(run / "labels.jsonl") if line["item"] == kept[-1].stem)
    part = window(label["y"], label["x"], 64, 64)
    image = np.asarray(Image.open(Path(settings["dataset.data"]) / "train" / f"{label['image']}.png"))
    cut = image[part.top : part.top + part.height, part.left : part.left + part.width].astype(float)
    assert np.abs(np.asarray(Image.open(kept[-1])).astype(float) - cut).mean() < 12, "but for JPEG"


def test_a_crop_comes_from_a_sample_image_where_none_was_kept(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    shutil.rmtree(copy / "samples/pixels")
    page = write_report([copy], tmp_path / "page").read_text()
    found = re.findall(r'class="crop"><img src="data:image/jpeg;base64,([^"]+)"', page)
    assert found
    assert max(Image.open(io.BytesIO(base64.b64decode(found[0]))).size) <= 112
    shutil.rmtree(copy / "samples")
    page = write_report([copy], tmp_path / "page").read_text()
    assert 'class="crop"' not in page and "examples</summary>" in page, "coordinates alone"


def test_why_a_pixel_was_asked(run, tmp_path, registry):
    best = max(lines(run / "rounds/03/questions.jsonl"), key=lambda q: q["utility"])
    said = text_of(run, tmp_path)
    assert f"{best['utility']:.3g} {best['rank'] + 1} {best['entropy']:.2f} {best['image']} {best['y']}, " in said
    assert "12 examples" in said, "two of each of six images"
    assert "Minus the gap between the two likeliest classes." in said
    page = write_report([run], tmp_path, registry=Registry(registry.manager)).read_text()
    assert "Minus the gap" not in page and "the acquirer margin gives" in page, "an acquirer that is not installed"


def test_when_to_stop_is_said(run, tmp_path):
    said = text_of(run, tmp_path)
    assert "From one round to the next mIoU changed by" in said
    assert "Over the last 3 of these steps the trend is" in said
    assert "The model had guessed" in said


def test_a_program_s_answers_cost_nobody_anything(settings, run, tmp_path):
    truth = tmp_path / "truth"
    alseg.run(settings | {"oracle": "ground-truth", "rounds": 2}, out=truth)
    page = (truth / "report.html").read_text()
    assert "Cost of labelling" not in page and "key presses" not in page and "Likeliest mistakes" in page
    assert not (truth / "figures/acts.png").exists()
    both = text_of([truth, run], tmp_path / "both", files=True)
    assert "labelling minutes" in both and "Over seeds" not in both
    names = {path.stem for path in (tmp_path / "both" / "figures").iterdir()}
    assert {"labelling-times", "all-acts", "2-run-seconds"} <= names


def test_what_was_asked_twice_is_told(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    given = [event for event in lines(copy / "journal.jsonl") if event["event"] == "answered"][-10:]
    with open(copy / "journal.jsonl", "a") as journal:
        for number, event in enumerate(given):
            name = event["class"] if number else "car"
            other = {"event": "vote", "ask": event["item"] + "/2", "who": "bob", "class": name}
            journal.write(json.dumps(event | other) + "\n")
            again = {"event": "vote", "ask": event["item"] + "/again"}
            journal.write(json.dumps(event | again) + "\n")
    said = text_of(copy, tmp_path / "page")
    assert "Agreement of people" in said and "the same person again 10 100.0" in said
    assert f"bob and {given[0]['who']} 10 90.0" in said
    assert "95 answers" not in said and "92 answers" in said and "Agreement of people" not in text_of(run, tmp_path)


def test_several_seeds_are_told_together(run, tmp_path):
    other = shutil.copytree(run, tmp_path / "other")
    file = other / "run.toml"
    assert "seed = 0" in file.read_text()
    file.write_text(file.read_text().replace("seed = 0", "seed = 1"))
    rewrite(other / "rounds.jsonl", lambda line: line | {"miou": 0.1 + 0.05 * line["round"]})
    said = text_of([run, other], tmp_path / "page")
    assert "Over seeds" in said and "camvid, margin, topk-then-uniform: over 2 seeds mIoU changed by" in said
    file.write_text(file.read_text().replace("epochs = 1", "epochs = 2"))
    assert "Over seeds" not in text_of([run, other], tmp_path / "page"), "other settings are another experiment"


def test_audits_are_in_the_table_and_in_a_figure(run, cli, tmp_path):
    """Of rounds with audits, without, and of an earlier version that says nothing of them."""
    copy = shutil.copytree(run, tmp_path / "copy")
    audit = {"pixels": 40, "unsure": 1, "accuracy": 0.85, "low": 0.709, "high": 0.929}
    more: list[dict[str, Any]] = [{"audit": None}, {}, {"audit": audit}, {"audit": audit | {"accuracy": 0.9}}]
    records = [{k: v for k, v in line.items() if k != "audit"} for line in lines(copy / "rounds.jsonl")]
    rows = [record | new for record, new in zip(records, more, strict=True)]
    (copy / "rounds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    header, *table = table_rows(rows)
    assert [row[header.index("audited %")] for row in table] == ["-", "-", "85.0 (71 to 93)", "90.0 (71 to 93)"]
    assert "audited %" not in table_rows(records)[0] and len({len(row) for row in (header, *table)}) == 1
    shown = cli("resume", copy).out
    assert "audited %" in shown and "85.0 (71 to 93)" in shown
    said = text_of(copy, tmp_path / "page", files=True)
    assert "audited % " in said and "85.0 (71 to 93)" in said
    (bars,) = audited(rows).axes[0].containers
    places, heights = bars.lines[0].get_data()
    (segments,) = (bar.get_segments() for bar in bars.lines[2])
    assert (list(places), list(heights)) == ([2, 3], [85, 90])
    assert np.array(segments)[0] == pytest.approx(np.array([[2, 70.9], [2, 92.9]]))
    assert (tmp_path / "page/figures/audit.svg").exists()
    assert "audit.svg" not in {path.name for path in (run / "figures").iterdir()}


def test_a_run_that_records_less_is_reported_on(run, tmp_path):
    """No journal, no times, no agreement, no guesses, no masks: what is not there is not told."""
    old = shutil.copytree(run, tmp_path / "old")
    (old / "journal.jsonl").unlink()
    rewrite(old / "labels.jsonl", lambda line: line | {"seconds": None})
    empty = dict.fromkeys(("utility", "rank", "guess", "probability", "rival", "entropy"))
    for path in old.glob("rounds/*/questions.jsonl"):
        rewrite(path, lambda line: line | empty)
    unscored = dict.fromkeys(("split", "miou", "iou", "pixel_accuracy"))
    rewrite(old / "rounds.jsonl", lambda line: {k: v for k, v in (line | unscored).items() if k != "agreement"})
    said = text_of(old, tmp_path / "page")
    for title in ("When to stop", "Agreement with the model", "Cost of labelling", "Likeliest mistakes", "Why these"):
        assert title not in said
    bare = shutil.copytree(run, tmp_path / "bare")
    rewrite(bare / "rounds.jsonl", lambda line: line | unscored)
    said = text_of(bare, tmp_path / "page")
    assert "only sign" in said and "Cost of labelling" in said


@few
@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_window_holds_its_pixel_and_stays_inside(height, width, down, across):
    y, x = down % height, across % width
    top, left, tall, wide = window(y, x, height, width)
    assert 0 <= top <= y < top + tall <= height and 0 <= left <= x < left + wide <= width
    assert tall >= min(height, LEAST) and wide >= min(width, LEAST)
