"""The HTTP routes: read a body, call, answer. No rule lives here."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from contracts.deadline import Deadline
from orchestrator.logs import LOGGER
from orchestrator.metrics import CONTENT_TYPE
from orchestrator.openapi import DESCRIPTION, EVENTS, RECOMMEND
from orchestrator.parts import Parts
from orchestrator.probes import error_body
from orchestrator.request import BadRequest, parse_recommend

PROBE_HEADER = "x-nextclick-probe"
RETRY_AFTER_SECONDS = "2"

Handler = Callable[[Request, Parts], Awaitable[Response]]


def json_response(answer: object, status: int = 200) -> Response:
    body = json.dumps(answer, separators=(",", ":")).encode()
    return Response(body, status, media_type="application/json")


async def read_body(request: Request, most: int) -> bytes:
    """The whole body; BadRequest (413) as soon as it is longer than `most` bytes, whether or not
    its length was announced."""
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced[:20]) > most:
        raise _too_large(f"{announced[:20]} bytes", most)
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > most:
            raise _too_large(f"over {most} bytes", most)
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large(got: str, most: int) -> BadRequest:
    return BadRequest("", got, f"a body of at most {most} bytes", status=413)


async def _recommend(request: Request, parts: Parts) -> Response:
    settings = parts.settings
    deadline = Deadline(settings.deadline_ms / 1000)
    body = await read_body(request, settings.max_body_bytes)
    asked = parse_recommend(body, settings, now_ms())
    probe = PROBE_HEADER in request.headers
    return json_response(await parts.pipeline.recommend(asked, deadline, probe=probe))


async def _events(request: Request, parts: Parts) -> Response:
    body = await read_body(request, parts.settings.max_body_bytes)
    status, answer = await parts.events.accept(body, now_ms())
    response = json_response(answer, status)
    if status == 503:
        response.headers["retry-after"] = RETRY_AFTER_SECONDS
    return response


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def _counted(route: str, handler: Handler, request: Request) -> Response:
    """A handler's answer, counted and timed; what is wrong with a request becomes its answer."""
    parts: Parts = request.app.state.parts
    begun = time.perf_counter()
    with parts.metrics.in_flight.track_inprogress():
        response = await _answered(route, handler, request, parts)
    parts.metrics.answered(route, response.status_code, time.perf_counter() - begun)
    return response


async def _answered(route: str, handler: Handler, request: Request, parts: Parts) -> Response:
    try:
        return await handler(request, parts)
    except BadRequest as bad:
        return json_response(bad.as_dict(), bad.status)
    except ClientDisconnect:
        return json_response(error_body("the client left before its request was whole"), 400)
    except Exception:  # noqa: BLE001  the last net: a client never sees a traceback
        LOGGER.exception("an error in %s that should not be possible", route)
        return json_response(error_body("an error of ours: it is logged; please try again"), 500)


def create_app() -> FastAPI:
    """The app; `app.state.parts` is set before it is asked anything."""
    app = FastAPI(
        title="Nextclick", version="1", description=DESCRIPTION, docs_url=None, redoc_url=None
    )

    @app.post("/v1/recommend", openapi_extra=RECOMMEND)
    async def recommend(request: Request) -> Response:
        """A ranked list of the items that this visitor may click next."""
        return await _counted("/v1/recommend", _recommend, request)

    @app.post("/v1/events", openapi_extra=EVENTS, status_code=202)
    async def events(request: Request) -> Response:
        """Take what visitors did. 202 when at least one event is stored (acknowledged)."""
        return await _counted("/v1/events", _events, request)

    @app.get("/v1/release")
    async def release(request: Request) -> Response:
        """The release that answers, and the one that was refused, if any, with the reason."""
        parts: Parts = request.app.state.parts
        return json_response(parts.release_state())

    @app.get("/metrics", include_in_schema=False)
    async def metrics(request: Request) -> Response:
        parts: Parts = request.app.state.parts
        return Response(parts.metrics.page(), media_type=CONTENT_TYPE)

    @app.exception_handler(HTTPException)
    async def as_json(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        headers: Any = getattr(error, "headers", None) or {}
        allowed = headers.get("Allow", "")
        body = error_body(f"{request.method}: {error}", request.method, allowed)
        response = json_response(body, status)
        response.headers.update(headers)
        return response

    return app
