"""The monitor's settings, read from the environment once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """Frozen at start. Each comes from SLIPSTREAM_<NAME>; the default stands beside it."""

    repository: Path = Path(".slipstream/repository")
    redis_url: str = "redis://127.0.0.1:6379/0"
    host: str = "127.0.0.1"
    port: int = 3001
    #: A file whose values replace some of rules.toml.
    rules: Path | None = None
    #: Seconds between looks at the streams when there was nothing new.
    interval: float = 0.5
    #: What writers show; without one, only pages of this machine may write.
    token: str = ""
    otlp_endpoint: str = ""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        home = Path(environ.get("SLIPSTREAM_HOME", ".slipstream"))
        rules = environ.get("SLIPSTREAM_RULES")
        return cls(
            repository=Path(environ.get("SLIPSTREAM_REPOSITORY", home / "repository")),
            redis_url=environ.get("SLIPSTREAM_REDIS_URL", cls.redis_url),
            port=int(environ.get("SLIPSTREAM_MONITOR_PORT", cls.port)),
            token=environ.get("SLIPSTREAM_TOKEN", ""),
            rules=Path(rules) if rules else None,
            otlp_endpoint=environ.get(
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
                environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", ""),
            ),
        )
