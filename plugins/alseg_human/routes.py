"""The page's addresses."""

from __future__ import annotations

import json
import traceback
import unicodedata
from collections.abc import Callable
from importlib import resources
from typing import Any
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from alseg.answering import NotOpen, OpenRound
from alseg.attending import user_name
from alseg.errors import AlsegError
from alseg_human.desk import Desk
from alseg_human.guard import TooLarge
from alseg_human.pictures import class_map, heat_map

KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
FRESH = {"cache-control": "no-store"}
UNWRITABLE = ("Cc", "Cs", "Zl", "Zp")  # categories of letters that no name has; joiners, which Persian needs, are none
LONGEST = 86_400.0  # seconds for an answer that are believed

Act = Callable[[OpenRound, dict[str, Any], str], None]


class Reply(JSONResponse):
    """JSON in which a file's name that is no text has question marks, as a browser takes no lone surrogates."""

    def render(self, content: Any) -> bytes:
        """The body."""
        return json.dumps(content, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")


class Unfit(Exception):
    """A request that cannot be understood, and why."""


def application(desk: Desk, log: Callable[[str], None]) -> Starlette:
    """The routes over a desk; what they refuse is logged."""
    files = page_files()

    def page(request: Request) -> Response:
        return asset(files, request.path_params.get("name", "index.html"))

    def state(request: Request) -> Response:
        return Reply(desk.state(person(request, desk.asks_name), page_id(request)), headers=FRESH)

    routes = [Route("/", page), Route("/page/{name}", page), Route("/api/state", state)]
    routes += [acting(desk, name, act) for name, act in ACTS.items()]
    return Starlette(routes=routes + pictures(desk), exception_handlers=handlers(log))


def pictures(desk: Desk) -> list[Route]:
    """An image of the pool, the maps over it, and its points."""

    def image(request: Request) -> Response:
        content, kind = desk.pictures.image(number(request, desk))
        return Response(content, media_type=kind, headers={"cache-control": "private, max-age=3600"})

    def drawn(request: Request, find: Callable[[OpenRound, str], Any], draw: Callable[[Any], bytes]) -> Response:
        found = find(desk.round, desk.keys[number(request, desk)])
        if found is None:
            return refusal(404, "There is no model yet.")
        return Response(draw(found), media_type="image/png", headers=FRESH)

    def prediction(request: Request) -> Response:
        return drawn(request, OpenRound.predicted, lambda mask: class_map(mask, desk.round.classes))

    def utility(request: Request) -> Response:
        return drawn(request, OpenRound.utility, heat_map)

    def points(request: Request) -> Response:
        labels = desk.round.points(desk.keys[number(request, desk)])
        rows = [{"y": p.y, "x": p.x, "class": p.name, "round": p.round, "item": p.item} for p in labels]
        return Reply(rows, headers=FRESH)

    found = {"image": image, "prediction": prediction, "utility": utility, "points": points}
    return [Route(f"/api/{name}/{{number}}", function) for name, function in found.items()]


def acting(desk: Desk, name: str, act: Act) -> Route:
    """What a person does, and the state after it."""

    async def handle(request: Request) -> Response:
        given, who = await body(request), person(request, desk.asks_name)
        if not who:
            raise Unfit("Say who you are first.")

        def work() -> dict[str, Any]:
            desk.check_run(request.headers.get("x-alseg-run", ""))
            desk.once(act_name(given), lambda: act(desk.round, given, who))
            return desk.state(who, page_id(request), whole=False)

        return Reply(await run_in_threadpool(work), headers=FRESH)

    return Route(f"/api/{name}", handle, methods=["POST"])


def _answer(round: OpenRound, given: dict[str, Any], who: str) -> None:
    round.answer(text(given, "item"), text(given, "class"), who, spent(given), seen(given))


def _unsure(round: OpenRound, given: dict[str, Any], who: str) -> None:
    round.answer(text(given, "item"), None, who, spent(given), seen(given))


def _pick(round: OpenRound, given: dict[str, Any], who: str) -> None:
    round.pick(text(given, "item"), whole(given, "y"), whole(given, "x"), who, spent(given))


ACTS: dict[str, Act] = {
    "answer": _answer,
    "unsure": _unsure,
    "skip": lambda round, given, who: round.skip(text(given, "item"), who),
    "undo": lambda round, given, who: round.undo(who),
    "pick": _pick,
}


def handlers(log: Callable[[str], None]) -> dict[Any, Callable[[Request, Any], Response]]:
    """A sentence for each thing that may go wrong, which is logged too; the server goes on."""

    def refused(status: int, say: Callable[[Any], str] = str) -> Callable[[Request, Any], Response]:
        def handle(request: Request, error: Any) -> Response:
            code = getattr(error, "status_code", status)
            log(f"refused {request.method} {request.url.path[:200]!r}: {code} {say(error)}")
            return refusal(code, say(error))

        return handle

    def unexpected(request: Request, error: Exception) -> Response:
        log("failed " + "".join(traceback.format_exception(error)))
        return refusal(500, f"Something went wrong ({type(error).__name__}); the run's page.log tells more.")

    return {
        NotOpen: refused(409),
        Unfit: refused(400),
        TooLarge: refused(413),
        AlsegError: refused(500),
        OSError: refused(500, lambda error: f"It could not be kept: {error.strerror or error}."),
        HTTPException: refused(400, lambda error: f"{error.detail}."),
        Exception: unexpected,
    }


def page_files() -> dict[str, bytes]:
    """The page's files by name: nothing else is served."""
    return {path.name: path.read_bytes() for path in (resources.files("alseg_human") / "page").iterdir()}


def asset(files: dict[str, bytes], name: str) -> Response:
    """A file of the page."""
    kind = KINDS.get(name.rpartition(".")[2])
    if name not in files or kind is None:
        return refusal(404, "There is no such page.")
    return Response(files[name], media_type=kind, headers={"cache-control": "no-cache"})


def person(request: Request, asks_name: bool = False) -> str:
    """Who is at the page: the name that they gave, or the name under which this process runs.

    "" is a page that knows no name yet.
    """
    given = request.headers.get("x-alseg-who")
    name = " ".join(unquote(given or "").split())
    if len(name) > 60 or any(unicodedata.category(letter) in UNWRITABLE for letter in name):
        raise Unfit("A name has 60 letters at most, and no control characters.")
    if name or (given is not None and asks_name):
        return name
    return user_name()


def page_id(request: Request) -> str:
    """What tells an open page from others; "" is a program."""
    return request.headers.get("x-alseg-page", "")[:40]


def refusal(status: int, sentence: str) -> Response:
    """An error as the page understands it."""
    return Reply({"error": sentence}, status_code=status, headers=FRESH)


def number(request: Request, desk: Desk) -> int:
    """The image's number in the address."""
    given = request.path_params["number"]
    if not given.isascii() or not given.isdecimal() or len(given) > 9 or int(given) >= len(desk.keys):
        raise Unfit(f"There is no image {given[:20]!r}; there are {len(desk.keys)}.")
    return int(given)


async def body(request: Request) -> dict[str, Any]:
    """The JSON object that was sent."""
    try:
        given = await request.json()
    except (TooLarge, ClientDisconnect):
        raise
    except (ValueError, RecursionError) as error:
        raise Unfit("The body is no JSON.") from error
    if not isinstance(given, dict):
        raise Unfit("The body is no JSON object.")
    return given


def text(given: dict[str, Any], key: str) -> str:
    """A text that must be there; what is not asked, or no class, is refused where it is looked up."""
    value = given.get(key)
    if not isinstance(value, str) or len(value) > 1000:
        raise Unfit(f"{key} must be a text of at most 1000 letters.")
    return value


def act_name(given: dict[str, Any]) -> str | None:
    """The name by which an act that is sent again is known."""
    name = given.get("act")
    if name is not None and (not isinstance(name, str) or not 8 <= len(name) <= 64 or not name.isascii()):
        raise Unfit("act must be a text of 8 to 64 ASCII letters that no other act has.")
    return name


def whole(given: dict[str, Any], key: str) -> int:
    """A whole number that must be there."""
    value = given.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > 10**6:
        raise Unfit(f"{key} must be a whole number.")
    return value


def seen(given: dict[str, Any]) -> tuple[int, int] | None:
    """The pixel (y, x) that was looked at, where whoever answers says it."""
    return (whole(given, "y"), whole(given, "x")) if "y" in given or "x" in given else None


def spent(given: dict[str, Any]) -> float | None:
    """The seconds that an answer took, as far as they are believed."""
    value = given.get("seconds")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LONGEST:
        raise Unfit("seconds must be a number from 0 to 86400.")
    return round(float(value), 3)
