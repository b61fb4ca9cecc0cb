"""Errors outside the two routes in the same shape as theirs, and probes with a body."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_JSON = (b"content-type", b"application/json")


def error_body(message: str, got: str = "", expected: str = "") -> dict[str, Any]:
    """The shape of every error: here about no field in particular."""
    return {"error": {"field": "", "got": got, "expected": expected, "message": message}}


class Probes:
    """ASGI middleware: `/livez` and `/readyz` with a JSON body, and JSON for paths that are not
    there. BentoML's own routes come before every mounted app and answer with an empty line.

    state: what `/readyz` says; it is ready from the moment the service listens.
    """

    def __init__(self, app: App, state: Callable[[], dict[str, Any]]) -> None:
        self._app, self._state = app, state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] in ("/livez", "/readyz") and scope["method"] in ("GET", "HEAD"):
            body = (
                {"ready": True, **self._state()} if scope["path"] == "/readyz" else {"live": True}
            )
            await _send_json(send, 200, body)
        else:
            await self._app(scope, receive, _NotFound(scope["path"], send))


class _NotFound:
    """Passes messages on, but turns a 404 without a JSON body into one with it."""

    def __init__(self, path: str, send: Send) -> None:
        self._path, self._send, self._replaced = path, send, False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] in (404, 405):
            self._replaced = not _is_json(message)
            if self._replaced:
                what = "no such path" if message["status"] == 404 else "not with this method"
                body = error_body(f"{what}: {self._path[:200]!r}; see /openapi.json")
                await _send_json(self._send, message["status"], body)
        if not self._replaced:
            await self._send(message)


def _is_json(message: Message) -> bool:
    headers = dict(message.get("headers", ()))
    return bool(headers.get(b"content-type", b"").startswith(b"application/json"))


async def _send_json(send: Send, status: int, body: dict[str, Any]) -> None:
    content = json.dumps(body).encode()
    headers = [_JSON, (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
