"""The journal and the run directory."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alseg.errors import AlsegError, UserMistake
from alseg.journal import Journal, as_events, fold
from alseg.store import RECORDED, RunFolder, read_lines
from alseg.values import Answer, PixelLabel, PixelLabels, Question
from alseg.writing import write_whole

ANSWERS = [Answer("a", "sky", "me", 1.5), Answer("b", None, "me"), Answer("c", "tree ü\n\u2028", "me")]


def test_answers_come_back_from_the_journal(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(as_events(ANSWERS[:1]))
    journal.append(as_events(ANSWERS[1:]))
    assert list(fold(journal.events()).values()) == ANSWERS


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_torn_last_line_is_cut_off_and_the_rest_kept(tmp_path, cut):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(as_events(ANSWERS))
    whole = (tmp_path / "journal.jsonl").read_bytes()
    (tmp_path / "journal.jsonl").write_bytes(whole[:-cut])
    assert list(fold(journal.events())) == ["a", "b"]
    journal.append(as_events([Answer("d", "road", "me")]))
    assert list(fold(journal.events())) == ["a", "b", "d"]


def test_the_last_event_counts_and_a_retracted_item_is_open():
    events = as_events([Answer("a", "sky", "x"), Answer("b", "sky", "x"), Answer("a", "road", "y")])
    state = fold([*events, {"event": "retracted", "item": "b", "time": "", "who": "x"}])
    assert state == {"a": Answer("a", "road", "y")}


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text('{"event": "unsure", "item": "a"}\nnonsense\n')
    with pytest.raises(AlsegError, match=r"Line 2 of .*journal\.jsonl"):
        Journal(path).events()
    with pytest.raises(AlsegError, match="unknown event 'voted'"):
        fold([{"event": "voted", "item": "a"}])


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_with_a_sentence(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    path.write_bytes(content)
    with contextlib.suppress(AlsegError):
        assert isinstance(fold(Journal(path).events()), dict)


def test_a_run_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "some" / "run"
    with pytest.raises(TypeError):
        RunFolder.create(path, {"seed": object()})
    assert not path.exists()
    assert list((tmp_path / "some").iterdir()) == []
    folder = RunFolder.create(path, {"seed": 3})
    assert folder.settings() == {"seed": 3}


def test_labels_questions_and_rounds_come_back(tmp_path):
    folder = RunFolder.create(tmp_path / "run", {})
    labels = PixelLabels(
        (
            PixelLabel("r00-0000000", "bild ä", 1, 2, "sky", 0, "ground-truth", "me", None),
            PixelLabel("r01-0000000", "b", 3, 4, None, 1, "human", "me", 2.5),
        )
    )
    folder.write_labels(labels)
    assert folder.labels() == labels
    assert folder.questions(0) is None
    written = folder.write_questions(0, [Question("", "a", 1, 2), Question("", "a", 1, 3, -0.5, 0, "sky", 0.7, "car")])
    assert [question.item for question in written] == ["r00-0000000", "r00-0000001"]
    assert folder.questions(0) == written
    folder.write_round(dict.fromkeys(RECORDED) | {"round": 0})
    first = (folder.path / "rounds.jsonl").read_bytes()
    folder.write_round(dict.fromkeys(RECORDED) | {"round": 1, "miou": 0.5})
    assert (folder.path / "rounds.jsonl").read_bytes().startswith(first)
    assert [row["round"] for row in folder.rounds()] == [0, 1]


def test_what_a_round_was_to_ask_is_kept_or_else_counted(tmp_path):
    folder = RunFolder.create(tmp_path / "run", {})
    three = [Question("", image, 1, x) for image, x in (("a", 1), ("a", 2), ("b", 1))]
    audit = Question("", "a", 1, 3, audit=True)
    folder.write_questions(0, three, most=7)
    folder.write_questions(1, [*three, audit])
    folder.write_questions(2, [], most=5)
    folder.round_folder(3)
    assert folder.asked() == (7, 2, 5)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_whole(path, b"old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_second_writer_is_refused_and_a_dead_ones_lock_is_free(tmp_path):
    folder = RunFolder.create(tmp_path / "run", {})
    hold = (
        "import sys; from pathlib import Path; from alseg.store import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).lock():\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", hold, str(folder.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    with pytest.raises(UserMistake, match=f"process {process.pid}"), folder.lock():
        pass
    process.kill()
    process.wait()
    with folder.lock():
        pass


def test_lines_of_a_damaged_file_are_named(tmp_path):
    path = tmp_path / "rounds.jsonl"
    path.write_text(json.dumps({"round": 0}) + "\n{")
    with pytest.raises(AlsegError, match=r"Line 2 of .*rounds\.jsonl"):
        read_lines(path)


def test_who_comes_second_is_told_of_the_run_that_is_there(tmp_path, monkeypatch):
    """Both found the name free."""
    rename = os.rename

    def late(source, target):
        monkeypatch.setattr(os, "rename", rename)
        RunFolder.create(tmp_path / "run", {})
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    with pytest.raises(UserMistake, match="is a run already"):
        RunFolder.create(tmp_path / "run", {})
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_full_disk_names_the_file(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_whole(tmp_path / "run.toml", b"")
    assert str(caught.value) == f"[Errno {errno.ENOSPC}] {os.strerror(errno.ENOSPC)}: {str(tmp_path / 'run.toml')!r}"
    assert not list(tmp_path.iterdir())
