"""Damaged files and odd settings: a sentence or a result, never anything else."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from conftest import SMALL, write_camvid
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alseg.api import _is_finished, resolve_stored
from alseg.cli.app import run_cli
from alseg.config import flatten, resolve
from alseg.errors import AlsegError
from alseg.journal import Journal, fold
from alseg.plugins import load_plugins
from alseg.report.page import write_report
from alseg.settings_file import read_toml
from alseg.store import RunFolder

FILES = ("run.toml", "images.jsonl", "journal.jsonl", "labels.jsonl", "rounds.jsonl", "rounds/00/questions.jsonl")
REGISTRY = load_plugins()
many = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("fuzzed")
    data = write_camvid(root / "camvid", train=3, val=2)
    words = ["run", "--dataset", "camvid", "--data", data, *SMALL, "--rounds", "1", "--out", root / "run"]
    assert run_cli([*map(str, words)]) == 0
    return root / "run"


def damaged(content: bytes, data: st.DataObject) -> bytes:
    """Cut, overwritten, doubled or mixed up."""
    at = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(at, min(len(content), at + 40)))
    junk = data.draw(st.one_of(st.binary(max_size=20), st.sampled_from([b"", b"null", b"{}", b"[]", b"\n", b"1e999"])))
    return content[:at] + junk + content[end:]


def said(read: Callable[[], Any]) -> Any:
    """What a call gives, or None where it says in a sentence why it cannot."""
    try:
        return read()
    except AlsegError as error:
        text = str(error)
    assert text.strip()
    return None


@many
@given(data=st.data(), name=st.sampled_from(FILES))
def test_a_damaged_file_gives_a_sentence_or_a_result(run, data, name):
    path = run / name
    before = path.read_bytes()
    try:
        path.write_bytes(damaged(before, data))
        folder = RunFolder(run)
        for read in (
            lambda: folder.settings(),
            lambda: folder.images(),
            lambda: folder.questions(0),
            lambda: folder.check_labels(len(folder.rounds())),
            lambda: _is_finished(REGISTRY, folder, 1),
            lambda: resolve_stored(REGISTRY, folder, folder.settings()),
            lambda: fold(folder.journal.events()),
        ):
            said(read)
    finally:
        path.write_bytes(before)


@settings(many, max_examples=20)
@given(data=st.data(), name=st.sampled_from((*FILES, "rounds/00/confusion.csv")))
def test_a_report_on_damaged_files(run, data, name):
    path = run / name
    before = path.read_bytes()
    try:
        path.write_bytes(damaged(before, data))
        said(lambda: write_report([run], run / "page", files=False))
    finally:
        path.write_bytes(before)


@many
@given(content=st.binary(max_size=200))
def test_a_journal_of_any_bytes(tmp_path, content):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(content)
    said(lambda: fold(Journal(path).events()))


@many
@given(
    content=st.one_of(st.binary(max_size=100), st.text(max_size=100).map(lambda text: text.encode("utf-8", "replace")))
)
def test_settings_of_any_bytes(tmp_path, content):
    path = tmp_path / "settings.toml"
    path.write_bytes(content)
    said(lambda: resolve(REGISTRY, read_toml(path), {}))


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**12), 10**12),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.one_of(st.integers(), st.floats(), st.text(max_size=3)), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.sampled_from(["none", "own", "longer:10", "32x32", "0x0", "1e999", "true", "val", "adam", "fpn", "uniform"]),
)


@many
@given(data=st.data())
def test_any_value_of_any_setting_is_taken_or_refused(run, data):
    known = flatten(tomllib.loads((run / "run.toml").read_text()))
    names = st.sampled_from([name for name in known if not name.startswith("record")])
    given_settings = data.draw(st.dictionaries(names, VALUES, max_size=4))
    known = {name: value for name, value in known.items() if not name.startswith("record")}
    resolved = said(lambda: resolve(REGISTRY, known, given_settings))
    if resolved is not None:
        again = flatten(tomllib.loads(tomli_w.dumps(resolved.config.nested())))
        assert resolve(REGISTRY, again, {}).config == resolved.config, "what is written is what is read"
