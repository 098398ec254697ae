"""The commands. Each one calls one function of another room and shows what it says."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec
from redis.exceptions import RedisError
from rich.table import Table

from models import routes
from models.errors import GatesNotPassed, IllegalTransition, RouteConflict, SlipstreamError
from models.rollout import Route
from slipstream import looking, places, rollouts
from slipstream.places import screen

CONFLICT = 5


class Exits(click.Group):
    """Domain errors become a sentence and an exit code: 3 a gate fails, 4 evidence lacks,
    5 conflict, else 1."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except (RouteConflict, IllegalTransition) as error:
            click.echo(f"slipstream: {error}", err=True)
            context.exit(CONFLICT)
        except GatesNotPassed as error:
            click.echo(f"slipstream: {error}", err=True)
            context.exit(rollouts.exit_code(error))
        except SlipstreamError as error:
            click.echo(f"slipstream: {error}", err=True)
            context.exit(1)
        except RedisError as error:
            sentence = (
                f"Redis does not answer at {places.redis_url()} ({error}); "
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
        home=places.home(),
        repository=repository or places.repository().root,
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
    run(places.home(), once=once, rate=rate, rows=rows, port=port, monitor_port=monitor_port)


# --- versions -------------------------------------------------------------------------------------


@main.command()
@click.argument("model")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--version", type=int, help="Number of the version; the next one without.")
@click.option("--reference", type=click.Path(path_type=Path, exists=True), help="Parquet or CSV.")
@click.option("--target", help="Column of the truth in the reference data.")
@click.option("--time", help="Column of the rows' times: how much days differ is learned.")
@click.option("--holdout", type=click.Path(path_type=Path, exists=True), help="For the metrics.")
@click.option("--classes", help="Values of the label, comma-separated, in the score's order.")
@click.option("--segment", "segments", multiple=True, help="Tell accuracy by this feature.")
@click.option("--fairness", multiple=True, help="Groups of this feature are to be treated alike.")
@click.option("--description", default="", help="What this version is, in a few words.")
@click.option("--non-finite", type=click.Choice(["allow", "refuse"]), default="allow")
@click.option("--json", "as_json", is_flag=True)
def push(
    model: str,
    file: Path,
    version: int | None,
    reference: Path | None,
    target: str | None,
    time: str | None,
    holdout: Path | None,
    classes: str | None,
    segments: tuple[str, ...],
    fairness: tuple[str, ...],
    description: str,
    non_finite: str,
    as_json: bool,
) -> None:
    """Add FILE to the repository as a version of MODEL. Moves no traffic."""
    from slipstream.push import push as push_version
    from slipstream.reference import Reference

    data = Reference(reference, target, holdout, time) if reference else None
    manifest, new = push_version(
        places.repository(),
        model,
        file,
        version=version,
        reference=data,
        classes=classes.split(",") if classes else None,
        training={"description": description},
        non_finite=non_finite,
        segments=segments,
        fairness=fairness,
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
        client = places.client()
        if routes.read(client, model) is None:
            first = Route(model, champion=version)
            routes.write(client, None, first, action="push", who=places.who(), why="first version")
    except (RedisError, RouteConflict):
        return  # no Redis yet: the gateway answers with the highest version it finds


@main.command("list")
@click.option("--json", "as_json", is_flag=True)
def list_versions(as_json: bool) -> None:
    """Every version in the repository."""
    repository = places.repository()
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


for command in (
    rollouts.rollout,
    rollouts.shadow,
    rollouts.canary,
    rollouts.target,
    rollouts.advance,
    rollouts.pause,
    rollouts.resume,
    rollouts.promote,
    rollouts.rollback,
    looking.status,
    looking.verdict,
    looking.audit,
    looking.compare,
    looking.replay,
):
    main.add_command(command)


if __name__ == "__main__":
    sys.exit(main())
