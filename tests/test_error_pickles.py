"""Errors come whole out of other processes."""

from __future__ import annotations

import inspect
import pickle

import pytest

from alseg import errors
from alseg.pieces import BrokenPiece, Piece, Plugin
from alseg.testing import ContractError, check_acquirer

CLASSES = [each for _, each in inspect.getmembers(errors, inspect.isclass)]


def through(error: BaseException) -> BaseException:
    found = pickle.loads(pickle.dumps(error))
    assert (type(found), str(found), vars(found)) == (type(error), str(error), vars(error))
    return found


@pytest.mark.parametrize("kind", CLASSES)
def test_errors(kind):
    error = kind("It is wrong.")
    error.add_note("Go on.")
    assert errors.notes_of(through(error)) == ["Go on."]


def untyped(k=None):
    return len


def test_a_broken_piece():
    with pytest.raises(BrokenPiece) as caught:
        Piece("acquirer", "mine", untyped, Plugin("test", "test", "-")).options()
    found = through(caught.value)
    assert isinstance(found, BrokenPiece)
    assert str(found) == f"The acquirer 'mine' of test (plugin test) is broken: {found.reason}."


@pytest.mark.parametrize("factory", [untyped, lambda: lambda batch: None])
def test_a_contract(factory):
    with pytest.raises(ContractError) as caught:
        check_acquirer(factory, name="mine")
    found = through(caught.value)
    assert isinstance(found, ContractError)
    assert str(found).startswith("acquirer 'mine'")
