"""Calls of a piece's own code: what it raises names the piece, and where in its code that was."""

from __future__ import annotations

import errno
import os
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from alseg.errors import MISTAKES, AlsegError, UserMistake, notes_of

T = TypeVar("T")

LIBRARIES = {"torch", "numpy", "pluggy", "typer", "click"}  # which call pieces, or are what a backward pass is in
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EIO}  # a disk's own errors, which are no piece's
OWN = " of alseg"  # how the names of alseg's own pieces end
LONGEST = 200  # letters of an error's own words


def called(
    name: str,
    call: Callable[[], T],
    where: str = "",
    passes: Callable[[BaseException], bool] = lambda error: False,
    reads: bool = False,
    names: bool = True,
) -> T:
    """What `call` gives; where it raises, AlsegError, or UserMistake for a file that is not there or not to be had.

    name: what the sentence begins with, such as "The oracle 'x' of mine". where: which of its methods. passes: errors
    that whoever called handles. reads: it is there to read somebody's files, and any error of theirs is UserMistake.
    names: whether a UserMistake of other people's code gets the name. Another AlsegError goes through as it is, and so
    does a full disk.
    """
    try:
        return call()
    except UserMistake as mistake:
        if names and (own := named(name, mistake)) is not mistake:
            raise own from mistake
        raise
    except (AlsegError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a library's panic is no Exception
        if passes(error) or (isinstance(error, OSError) and error.errno in FULL - ({errno.EIO} if reads else set())):
            raise
        raise failure(f"{name} failed{f' in {where}' if where else ''}", error, reads) from error


def failure(what: str, error: BaseException, reads: bool = False) -> AlsegError:
    """What a piece raised as a sentence that begins with `what`; reads: see `called`."""
    kind = UserMistake if isinstance(error, OSError) and (reads or error.errno in MISTAKES) else AlsegError
    return kind(f"{what}: {in_words(error)}{place_of(error)}.")


def named(name: str, mistake: UserMistake) -> UserMistake:
    """A mistake that other people's code speaks of, with the name of their piece before it; alseg's own as it is."""
    trace = mistake.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    bears_one = mistake.named or str(mistake).startswith(name)
    if bears_one or name.endswith(OWN) or trace is None or _is_no_piece(trace.tb_frame.f_code.co_filename):
        return mistake
    found = UserMistake(f"{name}: {mistake}")
    found.named = True
    for note in notes_of(mistake):
        found.add_note(note)
    return found


def mistaken(name: str, sentence: str) -> UserMistake:
    """Something is wrong with what a piece gave: `sentence`, after the piece's name where there is one."""
    return UserMistake(f"{name} is wrong: {sentence[0].lower()}{sentence[1:]}" if name else sentence)


def in_words(error: BaseException) -> str:
    """An error's type and its own words, in one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    words = " ".join(own_words(error).split()).rstrip(".")
    if len(words) > LONGEST:
        words = f"{words[:LONGEST].rstrip()}..."
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def own_words(error: BaseException) -> str:
    """What an error says; nothing where its class's own code is broken too."""
    try:
        return str(error)
    except Exception:
        return ""


def first_line(error: Exception) -> str:
    """The first line of what an error says, without its full stop; its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def place_of(error: BaseException) -> str:
    """The last line of somebody's own code that an error went through, in brackets; empty where there is none.

    Their code is the first that is neither alseg's nor of a library that alseg itself calls, and what lies beside it.
    """
    trace, place, root = error.__traceback__, "", None
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        theirs = not _is_no_piece(file)
        if root is None and theirs:
            root = str(Path(file).parent)
        if root is not None and theirs and _lies_in(file, root):
            place = f" ({file}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return place


def _is_no_piece(file: str) -> bool:
    """Whether a line belongs to alseg, to Python or to what alseg calls pieces by."""
    import alseg

    if file.startswith("<") or _lies_in(file, alseg.__path__[0]):
        return True
    inside = Path(file).parts
    if "site-packages" in inside:
        return inside[inside.index("site-packages") + 1] in LIBRARIES
    return _lies_in(file, sysconfig.get_path("stdlib"))


def _lies_in(file: str, folder: str) -> bool:
    return file.startswith(folder.rstrip(os.sep) + os.sep) and "site-packages" not in file[len(folder) :]


def described(value: Any) -> str:
    """A value's type, and of a tensor or array its dtype and shape."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype} {list(value.shape)}"
    return type(value).__name__
