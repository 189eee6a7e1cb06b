"""What alseg raises, and the exit code that goes with it."""

from __future__ import annotations

import errno

PROTOCOLS = "alseg's documentation, docs/reference/protocols.md"  # what each kind of piece must have

# What whoever gave the path can put right; a full disk or a broken one is not among it.
MISTAKES = {
    errno.ENAMETOOLONG,
    errno.EACCES,
    errno.EPERM,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.EROFS,
    errno.ELOOP,
}


class AlsegError(Exception):
    """One sentence for the person at the terminal: what is wrong, where, and what to do."""

    exit_code = 1


class UserMistake(AlsegError):
    """Something that whoever started alseg can put right."""

    exit_code = 2
    named = False  # whether the piece that raised it was put before its sentence


class Lasting(AlsegError):
    """What ended a run and would end it again: its own files are damaged, or its settings ask too much."""


class Interrupted(KeyboardInterrupt):
    """Somebody pressed Ctrl-C; what was finished is on the disk. Its sentence says how to go on."""

    exit_code = 130


class Unreachable(AlsegError):
    """Another process of a team has ended, which said why itself."""


class Waiting(AlsegError):
    """The run waits for answers that are not in yet."""

    exit_code = 3


def stopped(sentence: str) -> str:
    """A sentence with its full stop, where it does not end with a question."""
    return sentence if sentence.endswith("?") else f"{sentence}."


def notes_of(error: BaseException) -> list[str]:
    """What is to be said after an error: how to go on."""
    return list(getattr(error, "__notes__", []))


def disk_sentence(error: OSError) -> str:
    """What the operating system refused, and where."""
    place = f": {error.filename}" if error.filename else ""
    return f"{error.strerror or error}{place}. Whatever was finished before is kept."
