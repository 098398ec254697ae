"""What every command needs: the screen, the folder, the repository, Redis, and who asks."""

from __future__ import annotations

import getpass
import os
from pathlib import Path

import click
import redis
from rich.console import Console

from models.errors import UnknownModel, UnknownVersion
from models.repository import Repository
from models.version import ModelVersion

screen = Console(highlight=False)
#: What a verdict is as an exit code.
EXIT = {"pass": 0, "fail": 3, "insufficient": 4}
json_option = click.option("--json", "as_json", is_flag=True, help="For programs.")


def home() -> Path:
    return Path(os.environ.get("SLIPSTREAM_HOME", ".slipstream"))


def repository() -> Repository:
    return Repository(Path(os.environ.get("SLIPSTREAM_REPOSITORY", home() / "repository")))


def redis_url() -> str:
    """The URL that is set, or that of the embedded server of this home."""
    written = home() / "redis.url"
    default = written.read_text().strip() if written.is_file() else "redis://127.0.0.1:6379/0"
    return os.environ.get("SLIPSTREAM_REDIS_URL", default)


def client() -> redis.Redis:
    return redis.Redis.from_url(redis_url(), socket_timeout=5, socket_connect_timeout=2)


def who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def model_names() -> list[str]:
    return sorted({version.model for version in repository().scan()})


def versions_or_unknown(model: str) -> list[int]:
    """The model's versions in the repository. Raises UnknownModel."""
    versions = repository().versions(model)
    if not versions:
        raise UnknownModel(model, model_names())
    return versions


def known(model: str, version: int) -> None:
    """Raises UnknownModel, UnknownVersion, or RepositoryError where it cannot be used."""
    versions = versions_or_unknown(model)
    if version not in versions:
        raise UnknownVersion(model, version, versions)
    repository().open(ModelVersion(model, version))
