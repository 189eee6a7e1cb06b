"""Who may talk to the page: what every request is checked for before it is looked at."""

from __future__ import annotations

import hmac
import html
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

LARGEST = 64 * 1024  # bytes of a request's body
DRAINED = 8 * 1024 * 1024
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
REFUSAL = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    "<title>alseg</title><h1>alseg</h1><p>{}</p></html>"
)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class TooLarge(Exception):
    """A body beyond LARGEST."""

    def __str__(self) -> str:
        return f"A request holds {LARGEST} bytes at most."


class Guard:
    """ASGI middleware: host, token, origin, kind and size of a request, and the headers of an answer.

    token: what each request must carry, as ?token=, as the cookie that this sets, or as a bearer token; None
    on loopback, where the request must be addressed to one of `names` instead (a name that somebody's DNS points
    here is refused). log: takes a line on each refusal.
    """

    def __init__(
        self, app: App, *, token: str | None, cookie: str, names: Iterable[str], log: Callable[[str], None]
    ) -> None:
        self._app, self._token, self._cookie, self._log = app, token, cookie, log
        self._names = {*LOOPBACK, *names}

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refused = self._refusal(scope, headers)
        if refused is not None:
            await _drained(receive)
            readable = scope["path"] == "/" and "text/html" in headers.get("accept", "")
            await self._refuse(scope, send, *refused, readable)
            return
        size = 0

        async def bounded() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > LARGEST:
                raise TooLarge
            return message

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *HEADERS, *self._set_cookie(scope)]
            await send(message)

        await self._app(scope, bounded, guarded)

    def _refusal(self, scope: MutableMapping[str, Any], headers: dict[str, str]) -> tuple[int, str] | None:
        """The status and sentence with which a request is refused, or None."""
        host = headers.get("host", "")
        if self._token is None:
            if host.rpartition(":")[0] not in self._names and host not in self._names:
                return 403, "The page is served on this machine only."
        elif not self._has_token(scope, headers):
            return 401, "This needs the address with its token, as it was printed."
        origin = headers.get("origin")
        if origin is not None and _place_of(origin) != host:
            return 403, "Requests from other pages are refused."
        site, method = headers.get("sec-fetch-site", "none"), scope["method"]
        arrives = method == "GET" and scope["path"] == "/" and headers.get("sec-fetch-mode") == "navigate"
        if site not in ("same-origin", "none") and not arrives:
            return 403, "Requests from other pages are refused."
        if method not in ("GET", "HEAD", "POST"):
            return 405, f"{method} is not understood here."
        if method == "POST" and headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return 415, "A request's body is application/json."
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > LARGEST:
            return 413, str(TooLarge())
        return None

    def _has_token(self, scope: MutableMapping[str, Any], headers: dict[str, str]) -> bool:
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [])
        for pair in headers.get("cookie", "").split(";"):  # http.cookies gives none where another of the host's is odd
            name, _, value = pair.strip().partition("=")
            if name == self._cookie:
                given.append(value)
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            given.append(bearer)
        wanted = (self._token or "").encode()
        return any(hmac.compare_digest(one.encode("utf-8", "replace"), wanted) for one in given)

    def _set_cookie(self, scope: MutableMapping[str, Any]) -> list[tuple[bytes, bytes]]:
        if self._token is None or scope["path"] != "/":
            return []
        return [(b"set-cookie", f"{self._cookie}={self._token}; HttpOnly; SameSite=Strict; Path=/".encode())]

    async def _refuse(
        self, scope: MutableMapping[str, Any], send: Send, status: int, sentence: str, readable: bool
    ) -> None:
        client = (scope.get("client") or ("?",))[0]
        self._log(f"refused {scope['method']} {scope['path'][:200]!r} from {client}: {status} {sentence}")
        body = (REFUSAL.format(html.escape(sentence)) if readable else json.dumps({"error": sentence})).encode()
        kind = (b"content-type", b"text/html; charset=utf-8" if readable else b"application/json")
        start = {
            "type": "http.response.start",
            "status": status,
            "headers": [kind, (b"connection", b"close"), *HEADERS],
        }
        await send(start)
        await send({"type": "http.response.body", "body": body})


def _place_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


async def _drained(receive: Receive) -> None:
    """Read what is left of a body that nobody wants, up to DRAINED, so that the sender gets to read the answer."""
    size, more = 0, True
    while more and size < DRAINED:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
