"""The operators' door: console, JSON, live events, metrics."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from models import routes
from models.actions import Action
from models.errors import (
    GatesNotPassed,
    IllegalTransition,
    InvalidRequest,
    NotFound,
    RouteConflict,
    SlipstreamError,
    UnknownModel,
)
from models.policy import named
from models.version import ModelVersion
from monitoring import control
from monitoring.monitor import Monitor
from monitoring.views import overview, rollout, timeline

log = logging.getLogger("slipstream.api")

CONSOLE = Path(__file__).parent / "console"
_POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'"


def application(monitor: Monitor) -> Starlette:
    """The monitor's web application."""

    def view(make: Callable[[Request], Any]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            try:
                return JSONResponse(await run_in_threadpool(make, request))
            except SlipstreamError as error:
                return JSONResponse({"error": str(error)}, status_of(error))
            except (ValueError, KeyError) as error:
                return JSONResponse({"error": f"the query cannot be read: {error}"}, 400)
            except (RedisError, OSError) as error:
                sentence = f"Redis does not answer ({error}); start it and try again"
                return JSONResponse({"error": sentence}, 503)

        return endpoint

    def feature(request: Request) -> Any:
        query = request.query_params
        version = int(query["version"]) if "version" in query else None
        return timeline.feature(
            monitor,
            request.path_params["model"],
            request.path_params["feature"],
            version,
            int(query.get("from", 0)),
            int(query.get("to", 0)),
        )

    async def act(request: Request) -> Response:
        """A change of route: token, reason, then one compare-and-set."""
        if not _allowed(request, monitor.settings.token):
            sentence = "writes need 'Authorization: Bearer …' with the token in SLIPSTREAM_TOKEN"
            return JSONResponse({"error": sentence}, 401)
        body = await request.body()
        return await view(lambda r: _act(monitor, r, body))(request)

    async def events(request: Request) -> Response:
        return StreamingResponse(_changes(monitor, request), media_type="text/event-stream")

    async def ready(request: Request) -> Response:
        if monitor.failed:
            return JSONResponse({"error": f"the numbers stand still: {monitor.failed}"}, 503)
        return JSONResponse({"ready": True})

    async def scrape(request: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    async def console(request: Request) -> Response:
        return FileResponse(
            CONSOLE / "index.html",
            headers={"content-security-policy": _POLICY, "cache-control": "no-cache"},
        )

    async def live(request: Request) -> Response:
        return JSONResponse({"live": True})

    model = "/api/v1/models/{model}"
    return Starlette(
        routes=[
            Route("/", console),
            Route("/livez", live),
            Route("/readyz", ready),
            Route("/metrics", scrape),
            Route("/api/v1/overview", view(lambda _: overview.overview(monitor))),
            Route("/api/v1/models", view(lambda _: overview.overview(monitor)["models"])),
            Route(
                model + "/timeline",
                view(lambda r: timeline.timeline(monitor, r.path_params["model"])),
            ),
            Route(
                model + "/months", view(lambda r: timeline.months(monitor, r.path_params["model"]))
            ),
            Route(
                model + "/rollout",
                view(lambda r: rollout.rollout(monitor, r.path_params["model"])),
                methods=["GET"],
            ),
            Route(model + "/rollout", act, methods=["POST"]),
            Route(
                model + "/audit",
                view(lambda r: routes.audit(monitor.client, r.path_params["model"], 200)),
            ),
            Route(model + "/features/{feature:path}", view(feature)),
            Route("/api/v1/events", events),
            Mount("/", StaticFiles(directory=CONSOLE)),
        ]
    )


def _allowed(request: Request, token: str) -> bool:
    """Without a token the monitor answers this machine alone. Other pages in its browser may not
    write either: they cannot send JSON across origins unasked, nor name this host as theirs."""
    given = request.headers.get("authorization", "")
    if token:
        return hmac.compare_digest(given.encode(), f"Bearer {token}".encode())
    is_json = request.headers.get("content-type", "").startswith("application/json")
    return is_json and request.url.hostname in ("127.0.0.1", "localhost")


def _act(monitor: Monitor, request: Request, body: bytes) -> Any:
    try:
        action = msgspec.json.decode(body, type=Action)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the change cannot be read: {error}") from None
    if action.policy not in named():
        raise InvalidRequest(f"no policy '{action.policy}'; there are: {', '.join(named())}")
    model = request.path_params["model"]
    versions = monitor.repository.versions(model)
    if not versions:
        raise UnknownModel(model, monitor.histories)
    if action.version is not None:
        monitor.repository.open(ModelVersion(model, action.version))
    route = control.act(
        monitor.client,
        model,
        action,
        first=max(versions),
        who=request.headers.get("x-slipstream-who", "console")[:80],
        once=request.headers.get("idempotency-key", "")[:80],
    )
    return msgspec.to_builtins(route)


def status_of(error: SlipstreamError) -> int:
    """The HTTP status of a domain error."""
    known: dict[type[SlipstreamError], int] = {
        NotFound: 404,
        InvalidRequest: 400,
        RouteConflict: 409,
        IllegalTransition: 409,
        GatesNotPassed: 409,
    }
    return next((known[cls] for cls in type(error).__mro__ if cls in known), 500)


async def _changes(monitor: Monitor, request: Request) -> AsyncIterator[str]:
    """One event whenever numbers changed, at most once a second; a comment keeps it alive."""
    seen = -1
    for beat in range(3_600):
        if await request.is_disconnected():
            return
        if monitor.changed_ms != seen:
            seen = monitor.changed_ms
            yield f"event: window\ndata: {json.dumps({'as_of_ms': seen})}\n\n"
        elif beat % 15 == 0:
            yield ": alive\n\n"
        await asyncio.sleep(1)
