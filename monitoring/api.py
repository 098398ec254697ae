"""The operators' door: console, JSON, live events, metrics."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from models.errors import NotFound
from monitoring.monitor import Monitor
from monitoring.views import overview, timeline

log = logging.getLogger("slipstream.api")

CONSOLE = Path(__file__).parent / "console"
_POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'"


def application(monitor: Monitor) -> Starlette:
    """The monitor's web application."""

    def view(make: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            try:
                return JSONResponse(await run_in_threadpool(make, request))
            except NotFound as error:
                return JSONResponse({"error": str(error)}, 404)
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

    async def events(request: Request) -> Response:
        return StreamingResponse(_changes(monitor, request), media_type="text/event-stream")

    async def ready(request: Request) -> Response:
        if monitor.failed:
            sentence = f"Redis does not answer: {monitor.failed}"
            return JSONResponse({"error": sentence}, 503)
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
            Route(model + "/features/{feature:path}", view(feature)),
            Route("/api/v1/events", events),
            Mount("/", StaticFiles(directory=CONSOLE)),
        ]
    )


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
