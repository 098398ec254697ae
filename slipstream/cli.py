"""The commands. Each one calls one function of another room and shows what it says."""

from __future__ import annotations

import getpass
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec
import redis
from redis.exceptions import RedisError
from rich.console import Console
from rich.table import Table

from models import rollout, routes
from models.errors import (
    IllegalTransition,
    RouteConflict,
    SlipstreamError,
    UnknownModel,
    UnknownVersion,
)
from models.repository import Repository
from models.rollout import Route
from models.version import ModelVersion

CONFLICT = 5
screen = Console(highlight=False)


class Exits(click.Group):
    """Domain errors become a sentence and an exit code: 5 for a conflict, else 1."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except (RouteConflict, IllegalTransition) as error:
            click.echo(f"slipstream: {error}", err=True)
            context.exit(CONFLICT)
        except SlipstreamError as error:
            click.echo(f"slipstream: {error}", err=True)
            context.exit(1)
        except RedisError as error:
            sentence = (
                f"Redis does not answer at {_redis_url()} ({error}); "
                f"start it with `slipstream up`, or set SLIPSTREAM_REDIS_URL"
            )
            click.echo(f"slipstream: {sentence}", err=True)
            context.exit(1)


@click.group(cls=Exits, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="slipstream-serving")
def main() -> None:
    """Serve versioned ONNX models, let a new version ride along, and see how both do."""


# --- start ----------------------------------------------------------------------------------------


@main.command()
@click.option("--repository", type=click.Path(path_type=Path), help="Folder of the models.")
@click.option("--port", default=3000, show_default=True, help="Port of the gateway.")
@click.option("--monitor-port", default=3001, show_default=True, help="Port of the console.")
@click.option("--redis", "redis_url", help="Redis to use; else an embedded one is started.")
@click.option("--workers", default=1, show_default=True, help="Worker processes of the gateway.")
def up(
    repository: Path | None, port: int, monitor_port: int, redis_url: str | None, workers: int
) -> None:
    """Start gateway, monitor and, where none is named, Redis. Ctrl-C stops them all."""
    from slipstream.launch import House

    house = House(
        home=_home(),
        repository=repository or _repository().root,
        port=port,
        monitor_port=monitor_port,
        workers=workers,
        redis_url=redis_url or os.environ.get("SLIPSTREAM_REDIS_URL"),
    )
    stopping = stop_signals()
    run_house(house, lambda: house.watch(lambda: bool(stopping)))


def run_house(house: Any, work: Callable[[], None]) -> None:
    """Start, say where, do the work, stop."""
    from slipstream.embedded import RedisUnavailable
    from slipstream.launch import LaunchFailed

    try:
        with screen.status("starting gateway, monitor and Redis"):
            house.start()
        screen.print(f"gateway {house.gateway_url}")
        screen.print(f"console {house.console_url}")
        screen.print("ready")
        work()
    except (LaunchFailed, RedisUnavailable) as error:
        raise click.ClickException(str(error)) from error
    finally:
        house.stop()


def stop_signals() -> list[int]:
    """A list that is no longer empty once Ctrl-C or SIGTERM came."""
    came: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda signum, _: came.append(signum))
    return came


@main.command()
@click.option("--once", is_flag=True, help="Replay the year, print the table, and end.")
@click.option("--rate", type=float, help="Requests per second; as fast as it goes without.")
@click.option("--rows", type=int, help="Flights to replay; the whole year without.")
@click.option("--port", default=3000, show_default=True)
@click.option("--monitor-port", default=3001, show_default=True)
def demo(once: bool, rate: float | None, rows: int | None, port: int, monitor_port: int) -> None:
    """A real year of flights: two versions, shadow traffic, late labels, real drift."""
    try:
        from examples.flights.demo import run
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"the demo needs its extra and the repository's examples ({error}); "
            f"run `make demo` in a clone"
        ) from error
    run(_home(), once=once, rate=rate, rows=rows, port=port, monitor_port=monitor_port)


# --- versions -------------------------------------------------------------------------------------


@main.command()
@click.argument("model")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--version", type=int, help="Number of the version; the next one without.")
@click.option("--reference", type=click.Path(path_type=Path, exists=True), help="Parquet or CSV.")
@click.option("--target", help="Column of the truth in the reference data.")
@click.option("--holdout", type=click.Path(path_type=Path, exists=True), help="For the metrics.")
@click.option("--classes", help="Values of the label, comma-separated, in the score's order.")
@click.option("--description", default="", help="What this version is, in a few words.")
@click.option("--non-finite", type=click.Choice(["allow", "refuse"]), default="allow")
@click.option("--json", "as_json", is_flag=True)
def push(
    model: str,
    file: Path,
    version: int | None,
    reference: Path | None,
    target: str | None,
    holdout: Path | None,
    classes: str | None,
    description: str,
    non_finite: str,
    as_json: bool,
) -> None:
    """Add FILE to the repository as a version of MODEL. Moves no traffic."""
    from slipstream.push import Reference
    from slipstream.push import push as push_version

    data = Reference(reference, target, holdout) if reference else None
    manifest, new = push_version(
        _repository(),
        model,
        file,
        version=version,
        reference=data,
        classes=classes.split(",") if classes else None,
        training={"description": description},
        non_finite=non_finite,
    )
    _first_route(model, manifest.version)
    if as_json:
        click.echo(msgspec.json.encode(manifest).decode())
        return
    state = "pushed" if new else "was there already"
    screen.print(f"{model} v{manifest.version} {state} ({manifest.digest[:19]}…)")
    if reference is None:
        screen.print("without --reference, only traffic and latency are monitored")


def _first_route(model: str, version: int) -> None:
    """Write down who answers, if nobody did; from then on nothing moves by itself."""
    try:
        client = _redis()
        if routes.read(client, model) is None:
            first = Route(model, champion=version)
            routes.write(client, None, first, action="push", who=_who(), why="first version")
    except (RedisError, RouteConflict):
        return  # no Redis yet: the gateway answers with the highest version it finds


@main.command("list")
@click.option("--json", "as_json", is_flag=True)
def list_versions(as_json: bool) -> None:
    """Every version in the repository."""
    repository = _repository()
    packages = [repository.open(version) for version in repository.scan()]
    if as_json:
        click.echo(msgspec.json.encode([package.manifest for package in packages]).decode())
        return
    table = Table("model", "version", "task", "features", "AUC", "created", "note")
    for package in packages:
        metrics = package.profile.metrics if package.profile else {}
        table.add_row(
            package.version.model,
            str(package.version.number),
            package.manifest.task,
            str(len(package.manifest.features)),
            f"{metrics['auc']:.3f}" if "auc" in metrics else "–",
            package.manifest.created[:10],
            package.missing or str(package.manifest.training.get("description", "")),
        )
    screen.print(table)


# --- routes ---------------------------------------------------------------------------------------


@main.command()
@click.argument("model", required=False)
@click.option("--json", "as_json", is_flag=True)
def status(model: str | None, as_json: bool) -> None:
    """Who answers and who rides along."""
    client, repository = _redis(), _repository()
    names = [model] if model else sorted({version.model for version in repository.scan()})
    found = [(name, routes.read(client, name)) for name in names]
    if as_json:
        click.echo(json.dumps({n: msgspec.to_builtins(r) if r else None for n, r in found}))
        return
    table = Table("model", "champion", "shadow", "previous", "revision")
    for name, route in found:
        _versions_or_unknown(repository, name)
        if route is None:
            table.add_row(name, "highest version found", "–", "–", "0")
            continue
        shadow = f"v{route.shadow} {route.shadow_percent:g} %" if route.shadow else "–"
        previous = f"v{route.previous}" if route.previous else "–"
        table.add_row(name, f"v{route.champion}", shadow, previous, str(route.revision))
    screen.print(table)


@main.command()
@click.argument("model")
@click.argument("version", type=int)
@click.option("--percent", default=100.0, show_default=True, help="0 takes the shadow away.")
@click.option("--reason", default="")
def shadow(model: str, version: int, percent: float, reason: str) -> None:
    """Let VERSION see MODEL's requests too; it answers nobody."""
    _known(model, version)
    _change(model, "shadow", reason, lambda r: rollout.start_shadow(r, version, percent))


@main.command()
@click.argument("model")
@click.argument("version", type=int)
@click.option("--reason", default="")
def promote(model: str, version: int, reason: str) -> None:
    """Make VERSION the champion of MODEL."""
    _known(model, version)
    _change(model, "promote", reason, lambda r: rollout.promote(r, version))


@main.command()
@click.argument("model")
@click.option("--reason", default="")
def rollback(model: str, reason: str) -> None:
    """Give the traffic back to the previous champion. Needs no monitor."""
    _change(model, "rollback", reason, rollout.rollback)


def _change(model: str, action: str, reason: str, transition: Callable[[Route], Route]) -> None:
    first = max(_versions_or_unknown(_repository(), model))
    route = routes.change(
        _redis(), model, transition, first=first, action=action, who=_who(), why=reason
    )
    riding = f", v{route.shadow} shadows {route.shadow_percent:g} %" if route.shadow else ""
    screen.print(f"{model}: v{route.champion} answers{riding} (revision {route.revision})")


def _known(model: str, version: int) -> None:
    versions = _versions_or_unknown(_repository(), model)
    if version not in versions:
        raise UnknownVersion(model, version, versions)
    _repository().open(ModelVersion(model, version))


def _versions_or_unknown(repository: Repository, model: str) -> list[int]:
    versions = repository.versions(model)
    if not versions:
        raise UnknownModel(model, {version.model for version in repository.scan()})
    return versions


# --- where things are -----------------------------------------------------------------------------


def _home() -> Path:
    return Path(os.environ.get("SLIPSTREAM_HOME", ".slipstream"))


def _repository() -> Repository:
    return Repository(Path(os.environ.get("SLIPSTREAM_REPOSITORY", _home() / "repository")))


def _redis_url() -> str:
    """The URL that is set, or that of the embedded server of this home."""
    written = _home() / "redis.url"
    default = written.read_text().strip() if written.is_file() else "redis://127.0.0.1:6379/0"
    return os.environ.get("SLIPSTREAM_REDIS_URL", default)


def _redis() -> redis.Redis:
    return redis.Redis.from_url(_redis_url(), socket_timeout=5, socket_connect_timeout=2)


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


if __name__ == "__main__":
    sys.exit(main())
