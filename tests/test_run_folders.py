"""Runs that are there already, damaged, or where they cannot be: refused in one sentence and left alone."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL, one_sentence, write_camvid
from PIL import Image
from test_errors import CAMVID, SHAPES, cases, resized, save

from alseg.cli.app import run_cli
from alseg.data import refuse_changed
from alseg.errors import UserMistake
from alseg.store import RunFolder


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run of one round."""
    folder = tmp_path_factory.mktemp("finished")
    words = [*CAMVID, write_camvid(folder / "camvid"), "--out", folder / "run"]
    assert run_cli([str(word) for word in words]) == 0
    return folder / "run"


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_run_is_not_written_over(cli, finished):
    before = contents(finished)
    one_sentence(cli(*SHAPES, "--out", finished), str(finished), "alseg resume", "--out")
    assert contents(finished) == before


@cases(["busy", "file", "file/inside", "x" * 300])
def test_other_files_are_not_written_over(refused, tmp_path, case):
    (tmp_path / "runs" / "busy").mkdir()
    (tmp_path / "runs" / "busy" / "thesis.tex").touch()
    (tmp_path / "runs" / "file").touch()
    refused(SHAPES, str(tmp_path / "runs" / case), out=tmp_path / "runs" / case)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_may_not_be_written(refused, tmp_path):
    (tmp_path / "runs").chmod(0o555)
    refused(SHAPES, str(tmp_path / "runs" / "run"), "ermission")


def test_a_users_home_is_meant_by_a_tilde_that_no_shell_has_seen(cli, tmp_path, monkeypatch):
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.chdir(here)
    (home / "plugin.py").write_text("raise RuntimeError('it was loaded')", "utf-8")
    one_sentence(cli("--plugin=~/plugin.py", "report", "nothing"), "it was loaded")
    (home / "settings.toml").write_text("seed = 7\n", "utf-8")
    write_camvid(home / "camvid")
    assert cli(*CAMVID, "~/camvid", "--config=~/settings.toml", "--out=~/run").code == 0
    assert "seed = 7" in (home / "run/run.toml").read_text("utf-8")
    for words in (
        ("report", "~/run", "--out=~/report"),
        ("export", "~/run", "--format", "csv", "--out=~/labels.csv"),
        ("import", "~/labels.csv", "--out=~/again.csv"),
        ("predict", "~/run", "~/camvid/val", "--out=~/predicted"),
        ("compare", "~/run", "--out=~/comparison"),
        ("plugins", "new", "mine", "--kind", "acquirer", "--out=~/mine"),
    ):
        outcome = cli(*words)
        assert outcome.code == 0, outcome.err
        assert (home / words[-1].removeprefix("--out=~/")).exists()
    assert not list(here.iterdir())


def test_a_tilde_that_is_no_users_is_a_letter(cli, finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (20, 20)).save("~x.png")
    assert cli("predict", finished, "~x.png", "--out", "~nobody-of-this-name").code == 0
    assert (tmp_path / "~nobody-of-this-name/masks/~x.png").exists()
    one_sentence(cli(*CAMVID, "~nobody-of-this-name"), "~nobody-of-this-name")


@cases(["nothing", "folder", "file"])
def test_only_a_run_is_resumed(cli, tmp_path, case):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    one_sentence(cli("resume", tmp_path / case), str(tmp_path / case), "no run", "run.toml")


@cases(["before the run", "in the run"])
def test_an_interrupt_says_how_to_go_on(cli, tmp_path, monkeypatch, case):
    def interrupt(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("alseg.api.Experiment" if case == "before the run" else "alseg.api.run_rounds", interrupt)
    outcome = cli(*SHAPES, "--out", tmp_path / "my run")
    hint = "Interrupted" if case == "before the run" else f"alseg resume '{tmp_path / 'my run'}'"
    one_sentence(outcome, "Interrupted", hint, code=130)


DAMAGED = {
    "broken TOML": ("run.toml", lambda text: text[:-1] + "["),
    "not text": ("run.toml", lambda text: "\udcff"),
    "empty settings": ("run.toml", lambda text: ""),
    "half of the settings": ("run.toml", lambda text: text[: text.index("[train]")]),
    "a setting of another version": ("run.toml", lambda text: "sed = 1\n" + text),
    "a round that is no JSON": ("rounds.jsonl", lambda text: text[:-5]),
    "a round that is none": ("rounds.jsonl", lambda text: "{}\n"),
    "a label without class": ("labels.jsonl", lambda text: text.replace('"class"', '"klass"', 1)),
    "no labels": ("labels.jsonl", lambda text: ""),
    "a torn question": ("rounds/01/questions.jsonl", lambda text: text[:-5]),
    "a question of nothing": ("rounds/01/questions.jsonl", lambda text: "{}\n"),
    "an event that is none": ("journal.jsonl", lambda text: "{}\n" + text),
    "an event of brackets": ("journal.jsonl", lambda text: "[" * 100_000 + "\n" + text),
    "an image of brackets": ("images.jsonl", lambda text: "[" * 100_000),
}


@cases(DAMAGED)
def test_a_damaged_run_names_its_bad_file(cli, finished, tmp_path, monkeypatch, case):
    name, damage = DAMAGED[case]
    run = shutil.copytree(finished, tmp_path / "run")
    settings = (run / "run.toml").read_text()
    (run / "run.toml").write_text(settings.replace("rounds = 1", "rounds = 2"))  # one is still to do
    shutil.copytree(run / "rounds" / "00", run / "rounds" / "01")
    (run / "rounds" / "01" / "model.safetensors").unlink()
    damaged = damage((run / name).read_text())
    (run / name).write_bytes(damaged.encode("utf-8", "surrogateescape"))
    if name == "run.toml":
        monkeypatch.setattr("alseg.api.Experiment", None)  # it must not come to a run of other settings
    outcome = cli("resume", run)
    assert outcome.code in (1, 2)
    one_sentence(outcome, name, code=outcome.code)


def renamed(folder: Path, new: str) -> None:
    for path in [*folder.glob("*/train03.png")]:
        path.rename(path.with_name(f"{new}.png"))


def as_format(folder: Path, suffix: str) -> None:
    for path in [*folder.glob("train/*.png"), *folder.glob("val/*.png")]:
        Image.open(path).save(path.with_suffix(suffix))
        path.unlink()


def linked(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to("elsewhere")


WORKS = {
    "spaces and letters": lambda r: renamed(r, "Größe  zwei, 例 'é'"),
    "a line separator": lambda r: renamed(r, "line\u2028separator"),
    "a control character": lambda r: renamed(r, "next\x85line"),
    "a newline": lambda r: renamed(r, "new\nline"),
    "bytes that are no text": lambda r: renamed(r, "\udcff\udcfe"),
    "16-bit image": lambda r: save(r / "train/train03.png", 5000, kind=np.uint16),
    "JPEG": lambda r: as_format(r, ".JPEG"),
    "WebP": lambda r: as_format(r, ".webp"),
    "symbolic link": linked,
    "files of the system": lambda r: [(r / "train" / name).touch() for name in ("._train00.png", "Thumbs.db")],
    "an image of another size": lambda r: resized(r, 33, 91),
    "no masks to evaluate on": lambda r: shutil.rmtree(r / "valannot"),
    "no val": lambda r: shutil.rmtree(r / "val"),
}


@cases(WORKS)
def test_what_must_work(cli, tmp_path, case):
    data = write_camvid(tmp_path / "Datensätze für die Straße" / "cam vid", train=4, val=2)
    WORKS[case](data)
    run = tmp_path / "ein Lauf é 例"
    words = [*CAMVID, data, "--first-pixels", 2, "--pixels-per-round", 2, "--rounds", 2, "--out", run]
    outcome = cli(*words)
    assert outcome.code == 0, outcome.err
    assert len((run / "rounds.jsonl").read_bytes().splitlines()) == 2
    assert (run / "labels.jsonl").read_bytes().count(b"\n") == 4 * 4
    again = cli("resume", run, "--json")
    assert again.code == 0, again.err
    assert len(json.loads(again.out)["rounds"]) == 2


@pytest.mark.parametrize("words", [("export",), ("report",), ("resume",)])
def test_labels_that_were_cut_off_are_missed(cli, finished, tmp_path, words):
    """At the end of a line, after which the file is as sound as before."""
    run = shutil.copytree(finished, tmp_path / "run")
    lines = (run / "labels.jsonl").read_text().splitlines(keepends=True)
    (run / "labels.jsonl").write_text("".join(lines[:-3]))
    outcome = cli(*words, run, *(("--format", "csv", "--out", tmp_path / "labels.csv") if words == ("export",) else ()))
    one_sentence(outcome, "labels.jsonl lacks 3 answers of round 0: put it back from a copy", code=outcome.code)
    assert outcome.code and not (tmp_path / "labels.csv").exists()


def test_how_long_choosing_took_may_be_unknown(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    (run / "rounds" / "00" / "asking.json").write_text("{}")
    assert RunFolder(run).acquire_seconds(0) == 0.0


def test_the_image_that_is_gone_is_named():
    """Not one that is held out, or no more, since another is gone."""
    line = {"height": 1, "width": 1, "pixels": "x", "mask": "x"}

    def of(**splits: str) -> list[dict[str, object]]:
        return [line | {"split": split, "image": image} for split, images in splits.items() for image in images]

    with pytest.raises(UserMistake, match="The image b of split 'val', which the run began with, is gone"):
        refuse_changed(of(train="acd", val="be"), of(train="ad", val="ce"))
    refuse_changed(of(train="ab"), of(train="ba"))


def test_earlier_models_go_before_the_record_with_which_a_run_is_complete(cli, tmp_path, monkeypatch):
    """Where the process is killed in between, the run goes on from the last model."""
    from alseg.experiment import Experiment

    words = ["run", *SMALL, "--rounds", "2", "-o", "keep_models=last", "--out", tmp_path / "run"]
    record = Experiment.record

    def killed(self, round, *given):
        if round:
            raise KeyboardInterrupt
        record(self, round, *given)

    monkeypatch.setattr(Experiment, "record", killed)
    assert cli(*words).code == 130
    monkeypatch.undo()
    models = [path.parent.name for path in sorted((tmp_path / "run").rglob("model.safetensors"))]
    assert models == ["01"]
    assert cli("resume", tmp_path / "run").code == 0
    assert len(RunFolder(tmp_path / "run").rounds()) == 2
