"""A factory gets the same value of an option from a default, a flag and the run.toml that the run goes on from."""

from __future__ import annotations

import inspect
import tomllib
from pathlib import Path
from typing import Any, Literal

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from alseg.errors import UserMistake
from alseg.options import MISSING, Longer, Size, convert
from alseg.pieces import Piece, Plugin
from alseg.several import Choice

TYPES: dict[Any, list[Any]] = {  # and defaults that are of them
    int: [3],
    float: [1, 1.5],
    bool: [True],
    str: ["x", "none", "3"],
    Path: [Path("a"), Path("~/a")],
    Size: [Size(4, 6)],
    int | None: [None, 2],
    int | float: [1, 1.0],
    bool | int: [True, 1, 0],
    str | int: ["1", 1],
    str | bool | None: [True, None, "no"],
    str | Path: ["a", Path("a")],
    Size | Longer | str: [Size(4, 6), Longer(5), "own"],
    Literal[None, "a"]: [None, "a"],
    Literal[True, False, "auto"]: [True, False, "auto"],
    Literal[1, True, "1"]: [1, True],
    tuple[int, ...]: [[1, 2], (1, 2), ()],
    tuple[Path, ...]: [(Path("a"),)],
    tuple[int | None, ...]: [(1, None)],
    tuple[int, ...] | tuple[float, ...]: [(1.0, 2.0), (1, 2)],
    tuple[Literal["a", None], float]: [[None, 1]],
}


def piece(kind: Any = MISSING, default: Any = MISSING) -> Piece:
    """An acquirer with one option."""

    def factory(**given):
        return given

    option = inspect.Parameter("k", inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
    vars(factory)["__signature__"] = inspect.Signature([option])
    return Piece("acquirer", "mine", factory, Plugin("test", "test", "-"))


def goes_on_with(piece: Piece, values: dict[str, Any]) -> dict[str, Any]:
    """The options of a run that goes on from what was written of these."""
    return dict(piece.resolve(tomllib.loads(tomli_w.dumps(Choice("mine", values).written()))))


@pytest.mark.parametrize(("kind", "default"), [(kind, each) for kind, all in TYPES.items() for each in all])
def test_a_default_is_what_a_run_goes_on_with(kind, default):
    mine = piece(kind, default)
    values = mine.resolve({})
    assert repr(goes_on_with(mine, values)) == repr(values)
    if not isinstance(default, list | tuple | Path) and kind is not float:
        assert repr(values["k"]) == repr(default)


@given(st.sampled_from(list(TYPES)), st.text("01.,xaetruno:~/ ", max_size=6) | st.sampled_from(["true", "none", "1x2"]))
def test_what_a_flag_gives_is_what_a_run_goes_on_with(kind, text):
    try:
        values = piece(kind).resolve({"k": text})
    except UserMistake:
        return
    assert repr(goes_on_with(piece(kind), values)) == repr(values)


def test_defaults_are_converted_as_given_values_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for kind, default, value in (
        (tuple[Path, ...], (Path("a"),), (tmp_path / "a",)),
        (tuple[int, ...], [1, 2], (1, 2)),
        (float, 1, 1.0),
    ):
        assert repr(piece(kind, default).resolve({})["k"]) == repr(value)


@pytest.mark.parametrize("default", [1, 1.5, True, "x", Path("/a"), Size(1, 2)])
def test_an_option_without_a_type_has_its_defaults(default):
    values = piece(default=default).resolve({"k": str(default)})
    assert repr(values["k"]) == repr(default)


def test_choices_that_are_no_text_are_given_as_a_flag_says_them():
    assert convert("k", "none", Literal[None, "a"]) is None
    assert convert("k", "True", Literal[True, False, "auto"]) is True
    assert convert("k", "false", Literal[True, False, "auto"]) is False
    with pytest.raises(UserMistake, match="k takes none or true, not 'yes'"):
        convert("k", "yes", Literal[None, True])
