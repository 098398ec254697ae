"""The gateway's settings, read from the environment once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """Frozen at start. Each comes from SLIPSTREAM_<NAME>; the default stands beside it."""

    home: Path = Path(".slipstream")
    repository: Path = Path(".slipstream/repository")
    redis_url: str = "redis://127.0.0.1:6379/0"
    #: Share of requests, 0 to 1, whose payload is kept. Outcomes and counts are kept for all.
    sample: float = 1.0
    #: Seconds until a request is answered 504.
    deadline: float = 10.0
    #: Largest body in bytes, compressed or not.
    body_limit: int = 8 * 1024 * 1024
    #: ONNX Runtime threads per session.
    threads: int = 1
    #: Requests of slow models that may wait for a thread; one more is answered 429.
    backlog: int = 128
    #: Worker processes.
    workers: int = 1
    #: Facts that may wait for Redis, and their bytes; the oldest is dropped beyond.
    buffer_facts: int = 50_000
    buffer_bytes: int = 64 * 1024 * 1024
    #: Seconds between flushes.
    flush: float = 0.05
    #: Entries kept per stream if no monitor trims it.
    stream_entries: int = 20_000
    #: Requests that may wait for a shadow; the oldest is dropped beyond.
    shadow_queue: int = 1_000
    #: Seconds that a request may wait for a shadow, and that the shadow may take for it.
    shadow_deadline: float = 5.0
    #: Bytes of memory that all shadows of a worker may take beyond their bare process.
    shadow_memory: int = 1024 * 1024 * 1024
    #: Largest request that a shadow sees, and largest answer that is heard, in bytes.
    shadow_bytes: int = 1024 * 1024
    #: Share of its requests, 0 to 1, that a shadow gets however busy the gateway is. With 1 it
    #: is no guest either: it has its share of the processor like other processes of low priority.
    shadow_floor: float = 0.02
    #: Seconds between looks at the routes.
    poll: float = 0.25
    #: Where prometheus_client keeps the numbers of several workers; BentoML sets it.
    prometheus_dir: str = ""
    #: What callers show who pin a version by header; nobody may without one.
    token: str = ""
    #: OpenTelemetry's own switches.
    otlp_endpoint: str = ""
    traces_sampler: str = "parentbased_always_on"
    traces_sampler_arg: str = ""
    otel_disabled: bool = False

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Raises ValueError, naming the variable, where one cannot be read."""
        home = Path(environ.get("SLIPSTREAM_HOME", cls.home))
        return cls(
            home=home,
            repository=Path(environ.get("SLIPSTREAM_REPOSITORY", home / "repository")),
            redis_url=environ.get("SLIPSTREAM_REDIS_URL", cls.redis_url),
            sample=_number(environ, "SLIPSTREAM_SAMPLE", 1.0),
            deadline=_number(environ, "SLIPSTREAM_DEADLINE", 10.0),
            body_limit=int(_number(environ, "SLIPSTREAM_BODY_LIMIT", 8 * 1024 * 1024)),
            threads=int(_number(environ, "SLIPSTREAM_THREADS", 1)),
            backlog=int(_number(environ, "SLIPSTREAM_BACKLOG", 128)),
            workers=int(_number(environ, "SLIPSTREAM_WORKERS", 1)),
            stream_entries=int(_number(environ, "SLIPSTREAM_STREAM_ENTRIES", 20_000)),
            buffer_facts=int(_number(environ, "SLIPSTREAM_BUFFER_FACTS", 50_000)),
            shadow_queue=int(_number(environ, "SLIPSTREAM_SHADOW_QUEUE", 1_000)),
            shadow_deadline=_number(environ, "SLIPSTREAM_SHADOW_DEADLINE", 5.0),
            shadow_memory=int(_number(environ, "SLIPSTREAM_SHADOW_MEMORY", 1024 * 1024 * 1024)),
            shadow_bytes=int(_number(environ, "SLIPSTREAM_SHADOW_BYTES", 1024 * 1024)),
            shadow_floor=_number(environ, "SLIPSTREAM_SHADOW_FLOOR", 0.02),
            token=environ.get("SLIPSTREAM_TOKEN", ""),
            prometheus_dir=environ.get("PROMETHEUS_MULTIPROC_DIR", ""),
            otlp_endpoint=environ.get(
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
                environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", ""),
            ),
            traces_sampler=environ.get("OTEL_TRACES_SAMPLER", "parentbased_always_on"),
            traces_sampler_arg=environ.get("OTEL_TRACES_SAMPLER_ARG", ""),
            otel_disabled=environ.get("OTEL_SDK_DISABLED", "").lower() == "true",
        )


def _number(environ: Mapping[str, str], name: str, default: float) -> float:
    written = environ.get(name)
    if not written:
        return default
    try:
        return float(written)
    except ValueError:
        raise ValueError(f"{name}={written!r} is not a number") from None
