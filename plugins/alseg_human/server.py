"""The page's server: in a thread of its own while a run lives, with one round open at a time."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import secrets
import socket
import sys
import threading
import time
import webbrowser
from pathlib import Path

from alseg.answering import Attendance, OpenRound
from alseg.errors import AlsegError, UserMistake

try:
    import uvicorn

    from alseg_human.guard import Guard
    from alseg_human.routes import application
except ImportError as error:
    raise UserMistake(f"The page needs {error.name}: pip install 'alseg[human]'.") from error

from alseg_human.desk import Desk

FIRST_PORT = 8420  # the page keeps its address when the server is started again
LAST_WORD = 3.0  # seconds in which open pages fetch it


class PageServer:
    """Serves one run's page. Built on the first round that is asked; later rounds use it again."""

    def __init__(self, round: OpenRound) -> None:
        attendance, self._say = round.attendance, round.say
        self._socket = bound(attendance)
        address = self._socket.getsockname()
        host, port = attendance.host, address[1]
        self._loopback = ipaddress.ip_address(address[0]).is_loopback
        token = None if self._loopback else token_of(round.folder.path)
        self.desk = Desk(round, beyond=not self._loopback)
        log = refusals(round.folder.path / "page.log").info
        app = Guard(application(self.desk, log), token=token, cookie=f"alseg-{port}", log=log)
        config = uvicorn.Config(
            app, log_level="critical", access_log=False, lifespan="off", ws="none", server_header=False
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True, name="alseg page")
        shown = "127.0.0.1" if self._loopback and ":" not in host else host
        shown = socket.gethostname() if shown in ("0.0.0.0", "::", "") else shown
        shown = f"[{shown}]" if ":" in shown else shown
        self.address = f"http://{shown}:{port}/" + (f"?token={token}" if token else "")
        self._opened = not attendance.browser

    def ask(self, round: OpenRound) -> None:
        """Show the round on the page until it is complete."""
        self.desk.open(round)
        if not self._thread.is_alive():
            self._start()
            self._say(f"Label at {self.address} (Ctrl-C stops; what is answered is kept).")
            if not self._loopback:
                self._say("Whoever has this address can see the images and label them, and nothing is encrypted.")
        if not self._opened:
            self._opened = True
            open_browser(self.address)
        while not round.wait(1.0):
            if not self._thread.is_alive():
                raise AlsegError(f"The page's server at {self.address} has stopped; what is answered is kept.")
        self.desk.pause()

    def close(self, message: str) -> None:
        """Say a last word to the pages that are open, and stop."""
        self.desk.finish(message)
        end = time.monotonic() + LAST_WORD
        while self.desk.watchers() and not self.desk.heard and time.monotonic() < end:
            time.sleep(0.05)
        self._server.should_exit = True
        self._thread.join(5)
        _pages.pop(self.desk.run.resolve(), None)

    def _start(self) -> None:
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise AlsegError(f"The page's server could not start at {self.address}.")
            time.sleep(0.01)


_pages: dict[Path, PageServer] = {}


def page_of(round: OpenRound) -> PageServer:
    """The page of a round's run, which the one who picks and the one who answers share."""
    run = round.folder.path.resolve()
    if run not in _pages:
        _pages[run] = PageServer(round)
    return _pages[run]


def bound(attendance: Attendance) -> socket.socket:
    """A socket at the wanted address, or at the first free port from FIRST_PORT on; UserMistake where there is none."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(attendance.host or None, 0, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError) as error:
        raise UserMistake(f"There is no address {attendance.host!r} on this machine: give another --host.") from error
    wanted = (attendance.port,) if attendance.port is not None else (*range(FIRST_PORT, FIRST_PORT + 20), 0)
    failure = OSError()
    for port in wanted:
        made = socket.socket(family, kind, protocol)  # named: asyncio else leaves small packets waiting 40 ms
        try:
            if os.name == "posix":
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((place[0], port, *place[2:]))
            made.listen(128)
            return made
        except OSError as error:
            made.close()
            failure = error
    flag = "--host" if attendance.port is None else "--port or --host"
    where = attendance.host if attendance.port is None else f"{attendance.host}, port {attendance.port}"
    raise UserMistake(f"The page cannot be served at {where}: {failure.strerror}; give another {flag}.") from failure


def token_of(run: Path) -> str:
    """The run's token, made at first and kept beside it, so that open pages go on after a restart."""
    path = run / ".page-token"
    with contextlib.suppress(OSError):
        known = path.read_text().strip()
        if len(known) >= 32:
            return known
    made = secrets.token_urlsafe(32)
    with contextlib.suppress(OSError), open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(made + "\n")
    return made


def open_browser(address: str) -> None:
    """Where there is a screen."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return
    with contextlib.suppress(webbrowser.Error, OSError):
        webbrowser.open(address)


def refusals(path: Path) -> logging.Logger:
    """A log of what was refused and of what failed, in the run's folder; its file comes with the first line."""
    log = logging.getLogger(f"alseg_human.{path}")
    log.propagate = False
    if not log.handlers:
        handler = logging.FileHandler(path, encoding="utf-8", delay=True)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        handler.handleError = lambda record: None  # type: ignore[method-assign]  # a full disk is said to the page
        log.addHandler(handler)
    log.setLevel(logging.INFO)
    return log
