"""The commands that say how things are: routes, verdicts, comparisons, and a trial run."""

from __future__ import annotations

import json
import time
from typing import Any

import click
import msgspec
import redis
from rich.live import Live
from rich.progress import Progress, TextColumn
from rich.table import Table

from models import routes
from models.policy import read_policy
from models.rollout import Route
from monitoring import control, rollouts
from monitoring.gates import Gate
from monitoring.history import History
from monitoring.rollouts import Kept
from monitoring.slices import Rated, Slice, rated, slices
from monitoring.stream import Store
from monitoring.views.rollout import DAYS, comparison
from monitoring.window import ANSWERING
from slipstream import places
from slipstream.places import EXIT, json_option, screen

_STYLE = {"pass": "green", "fail": "red", "insufficient": "yellow"}


@click.command()
@click.argument("model", required=False)
@click.option("--watch", is_flag=True, help="Until Ctrl-C, or until the rollout has ended.")
@json_option
def status(model: str | None, watch: bool, as_json: bool) -> None:
    """Who answers, who rides along, and what the gates say."""
    client = places.client()
    names = [model] if model else places.model_names()
    for name in names:
        places.versions_or_unknown(name)
    if as_json:
        found = {name: routes.read(client, name) for name in names}
        click.echo(msgspec.json.encode(found).decode())
    elif watch:
        _watch(client, names)
    else:
        screen.print(_routes(client, names))


def _watch(client: redis.Redis, names: list[str]) -> None:
    seen = False
    with Live(_routes(client, names), console=screen) as live:
        while True:
            found = [routes.read(client, name) for name in names]
            running = any(route and route.rollout for route in found)
            live.update(_routes(client, names))
            if seen and not running:
                return
            seen = running
            time.sleep(0.5)


def _routes(client: redis.Redis, names: list[str]) -> Table:
    table = Table("model", "champion", "canary", "shadow", "previous", "revision", "verdict")
    for name in names:
        route = routes.read(client, name)
        if route is None:
            table.add_row(name, "highest version found", "–", "–", "–", "0", "")
            continue
        kept = control.standing(client, name) if route.rollout else None
        table.add_row(
            name,
            f"v{route.champion}",
            f"v{route.canary} {route.weight / 100:g} %" if route.canary else "–",
            f"v{route.shadow} {route.shadow_percent:g} %" if route.shadow else "–",
            f"v{route.previous}" if route.previous else "–",
            str(route.revision),
            _styled(kept) if kept else "",
        )
    return table


def _styled(kept: Kept) -> str:
    return f"[{_STYLE[kept.verdict.status]}]{kept.verdict.sentence}[/]"


@click.command()
@click.argument("model")
@click.option("--verify", is_flag=True, help="Compute every kept verdict again.")
@json_option
@click.pass_context
def verdict(context: click.Context, model: str, verify: bool, as_json: bool) -> None:
    """What each gate says of MODEL's rollout. Exit code 3: one fails, 4: evidence lacks."""
    client = places.client()
    places.versions_or_unknown(model)
    if verify:
        context.exit(_verify(client, model))
    kept = control.standing(client, model)
    if kept is None:
        screen.print(f"{model} has no rollout under way, or the monitor has not looked at it")
        return
    if as_json:
        click.echo(msgspec.json.encode(kept).decode())
    else:
        screen.print(f"v{kept.evidence.candidate} at {kept.evidence.stage}: {_styled(kept)}")
        screen.print(gate_table(kept.verdict.gates))
    context.exit(EXIT[kept.verdict.status])


def gate_table(gates: tuple[Gate, ...]) -> Table:
    table = Table("gate", "says", "because", "missing")
    for gate in gates:
        says = f"[{_STYLE[gate.status]}]{gate.status}[/]" + ("" if gate.blocks else " (tells)")
        missing = f"{gate.needs:,} {gate.of}" if gate.needs else ""
        table.add_row(gate.name, says, gate.sentence, missing)
    return table


def _verify(client: redis.Redis, model: str) -> int:
    wrong = 0
    found = rollouts.verdicts(client, model, 10_000)
    for name, kept in found:
        problem = rollouts.verify(kept)
        if problem:
            wrong += 1
            screen.print(f"[red]{name}[/]: {problem}")
    screen.print(f"{len(found) - wrong} of {len(found)} verdicts are what their evidence says")
    return 1 if wrong else 0


@click.command()
@click.argument("model")
@click.option("--last", default=20, show_default=True)
@json_option
def audit(model: str, last: int, as_json: bool) -> None:
    """Who changed MODEL's route, when, and why."""
    places.versions_or_unknown(model)
    entries = routes.audit(places.client(), model, last)
    if as_json:
        click.echo(json.dumps(entries))
        return
    table = Table("revision", "when", "who", "what", "why", "evidence")
    for entry in entries:
        after = entry["after"]
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry["at_ms"] / 1000))
        row = (str(after["revision"]), when, entry["who"], entry["action"], entry["why"])
        table.add_row(*row, str(entry.get("evidence", "")))
    screen.print(table)


@click.command()
@click.argument("model")
@click.argument("version", type=int)
@click.option("--last", default="24h", show_default=True, help="E.g. 30m, 24h or 7d.")
@click.option("--policy", default="improvement", show_default=True, help="A name or a TOML file.")
@json_option
@click.pass_context
def replay(
    context: click.Context, model: str, version: int, last: str, policy: str, as_json: bool
) -> None:
    """Judge VERSION on MODEL's recorded requests, before anybody is exposed to it."""
    from slipstream.replay import replay as run  # brings ONNX Runtime

    places.known(model, version)
    client = places.client()
    route = routes.read(client, model) or Route(model, max(places.versions_or_unknown(model)))
    since = int((time.time() - _seconds(last)) * 1000)
    with Progress(
        TextColumn("{task.completed:,.0f} requests"), console=screen, transient=True
    ) as bar:
        task = bar.add_task("", total=None)
        found = run(
            client,
            places.repository(),
            route,
            version,
            since,
            read_policy(policy),
            lambda count: bar.update(task, advance=count),
        )
    if as_json:
        click.echo(msgspec.json.encode(found.verdict).decode())
    else:
        _show_replayed(found, route.champion)
    context.exit(EXIT[found.verdict.status])


def _show_replayed(found: Any, champion: int) -> None:
    span = (time.localtime(ms / 1000) for ms in (found.first_ms, found.last_ms))
    first, last = (time.strftime("%H:%M:%S", moment) for moment in span)
    requests = found.evidence.candidate_arm.requests
    screen.print(f"{requests:,} requests that v{champion} answered, {first} to {last}")
    screen.print(f"[{_STYLE[found.verdict.status]}]{found.verdict.sentence}[/]")
    screen.print(gate_table(found.verdict.gates))
    for sentence, count in found.sentences.most_common(3):
        screen.print(f"{count:,} times: {sentence}")
    if found.slices:
        screen.print(slice_table(found.slices[:8]))


def _seconds(written: str) -> float:
    units = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
    try:
        return float(written[:-1]) * units[written[-1:]]
    except (ValueError, KeyError):
        raise click.BadParameter(f"'{written}' is no duration; e.g. 30m, 24h or 7d") from None


@click.command()
@click.argument("model")
@click.argument("version", type=int)
@json_option
def compare(model: str, version: int, as_json: bool) -> None:
    """VERSION beside MODEL's champion on the same requests, and where the two differ."""
    places.known(model, version)
    client = places.client()
    history = History(model, Store(client), places.repository())
    history.learn(version)
    found = comparison(history, version)
    last = history.newest("day")
    window = history.window(version, ("shadow",), "day", last - DAYS + 1, last)
    differing = slices(window)
    better = _rated(history, model, version, last)
    if as_json:
        shown = {
            "comparison": found,
            "slices": [one._asdict() for one in differing],
            "rated": [one._asdict() for one in better],
        }
        click.echo(json.dumps(shown))
        return
    if found is None:
        screen.print(f"v{version} rode along with nobody in the last {DAYS} days")
        return
    screen.print(_compared(found, version))
    if differing:
        screen.print(slice_table(differing[:12]))
    if better:
        screen.print(rated_table(better[:12]))


def _rated(history: History, model: str, version: int, last: int) -> list[Rated]:
    """Slices in which one is right more often, over the last days."""
    route = routes.read(places.client(), model)
    if route is None or route.champion not in history.layouts:
        return []
    first = last - DAYS + 1
    one = history.window(route.champion, ANSWERING, "day", first, last)
    two = history.window(version, ("shadow", "canary"), "day", first, last)
    return rated(one, two)


def rated_table(found: list[Rated]) -> Table:
    table = Table("feature", "where", "labels", "champion", "this one", "difference")
    table.title = "where one is right more often"
    for one in found:
        points = " ".join(f"{value * 100:+.1f}" for value in (one.difference, one.low, one.high))
        cells = f"{one.rows:,}", f"{one.champion:.1%}", f"{one.candidate:.1%}", points
        table.add_row(one.feature, one.where, *cells)
    return table


def _compared(found: dict[str, Any], version: int) -> Table:
    same, difference = found["agreement"], found["accuracy"]["difference"]
    notes = [f"agreement {_interval(same)} on {found['compared']:,} rows of {DAYS} days"]
    if difference:
        notes.append(f"accuracy differs by {_interval(difference)} on {found['labels']:,} labels")
    notes.append(f"without labels it differs by at most {found['bound']:.3f}")
    table = Table("", "champion", f"v{version}", caption="\n".join(notes))
    accuracy, latency = found["accuracy"], found["latency"]
    table.add_row("accuracy", _interval(accuracy["champion"]), _interval(accuracy["candidate"]))
    for quantile in ("p50", "p95", "p99"):
        cells = (latency[one][quantile] for one in ("champion", "candidate"))
        table.add_row(f"{quantile} of the model, ms", *(f"{c:.3g}" if c else "–" for c in cells))
    return table


def _interval(found: Any) -> str:
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})" if found else "–"


def slice_table(found: list[Slice]) -> Table:
    table = Table("feature", "where", "rows", "they differ", "elsewhere", title="where they differ")
    for one in found:
        rate = f"{one.rate:.1%} ({one.low:.1%} to {one.high:.1%})"
        table.add_row(one.feature, one.where, f"{one.rows:,}", rate, f"{one.elsewhere:.1%}")
    return table
