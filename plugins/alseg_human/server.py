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
GRACE = 4.0  # seconds in which somebody at a page may take the last answer of a round back


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
        names = {host, address[0]} | ({f"[{address[0]}]"} if ":" in address[0] else set())
        app = Guard(application(self.desk, log), token=token, cookie=f"alseg-{port}", names=names, log=log)
        config = uvicorn.Config(
            app, log_level="critical", access_log=False, lifespan="off", ws="none", server_header=False
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True, name="alseg page")
        shown = address[0] if self._loopback else host
        shown = socket.gethostname() if shown in ("0.0.0.0", "::", "") else shown
        shown = f"[{shown}]" if ":" in shown else shown
        self.address = f"http://{shown}:{port}/" + (f"?token={token}" if token else "")
        self._opened = not attendance.browser

    def ask(self, round: OpenRound) -> None:
        """Show the round on the page until it is complete."""
        self.desk.open(round)
        if not self.alive:
            self._start()
            self._say(f"Label at {self.address} (Ctrl-C stops; what is answered is kept).")
            if not self._loopback:
                self._say("Whoever has this address can see the images and label them, and nothing is encrypted.")
        if not self._opened:
            self._opened = True
            open_browser(self.address)
        complete = False
        while not complete:
            while not round.wait(1.0):
                if not self.alive:
                    raise AlsegError(f"The page's server at {self.address} has stopped; what is answered is kept.")
            complete = self._stays_complete(round)
        self.desk.pause()

    @property
    def alive(self) -> bool:
        """Whether it serves."""
        return self._thread.is_alive()

    @property
    def broken(self) -> bool:
        """Whether it served once and does no more."""
        return self._server.started and not self.alive

    def close(self, message: str, done: bool) -> None:
        """Say a last word to the pages that are open, and stop. done: the run asks nothing more."""
        self.desk.finish(message, done)
        end = time.monotonic() + LAST_WORD
        while not self.desk.all_heard() and time.monotonic() < end:
            time.sleep(0.05)
        self.stop()

    def stop(self) -> None:
        """Serve no more."""
        self._server.should_exit = True
        if self.alive:
            self._thread.join(5)
        _pages.pop(self.desk.run.resolve(), None)

    def _stays_complete(self, round: OpenRound) -> bool:
        """Whether nobody at a page takes the last answer back before it is too late."""
        end = time.monotonic() + GRACE
        while self.desk.pages() and round.complete and time.monotonic() < end:
            time.sleep(0.05)
        return round.seal()

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
    known = _pages.get(run)
    if known is None or known.broken:
        _pages[run] = PageServer(round)
    return _pages[run]


def stop_page(run: Path) -> None:
    """Stop a run's page where there is one."""
    if (page := _pages.get(run.resolve())) is not None:
        page.stop()


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
        known = path.read_text("utf-8").strip()
        if len(known) >= 32:
            return known
    made = secrets.token_urlsafe(32)
    with (
        contextlib.suppress(OSError),
        open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file,
    ):
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
        handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace", delay=True)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        handler.handleError = lambda record: None  # type: ignore[method-assign]  # a full disk is said to the page
        log.addHandler(handler)
    log.setLevel(logging.INFO)
    return log
