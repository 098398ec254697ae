"""The commands that change who answers, and those that say what the evidence is."""

from __future__ import annotations

import json
import time

import click
import msgspec
import redis
from rich.live import Live
from rich.table import Table

from models import routes
from models.actions import Action
from models.errors import GatesNotPassed, UnknownVersion
from models.rollout import Route
from models.version import ModelVersion
from monitoring import control, rollouts
from monitoring.gates import Gate
from monitoring.rollouts import Kept
from slipstream import places
from slipstream.places import screen

FAILED, INSUFFICIENT = 3, 4

_STYLE = {"pass": "green", "fail": "red", "insufficient": "yellow"}

reason_option = click.option("--reason", default="", help="Kept in the audit.")
json_option = click.option("--json", "as_json", is_flag=True)


@click.group()
def rollout() -> None:
    """Take a version from shadow to champion on evidence."""


@rollout.command()
@click.argument("model")
@click.argument("version", type=int)
@click.option("--policy", default="improvement", show_default=True, help="A name or a TOML file.")
@click.option("--shadow", default=100.0, show_default=True, help="Percent that the shadow sees.")
@click.option("--steps", default="1,5,25,50", show_default=True, help="Percent of each canary.")
@click.option("--by-hand", is_flag=True, help="The gates tell; only you advance.")
@reason_option
@json_option
def start(
    model: str,
    version: int,
    policy: str,
    shadow: float,
    steps: str,
    by_hand: bool,
    reason: str,
    as_json: bool,
) -> None:
    """Let VERSION ride along, then answer more and more, as far as the gates let it."""
    percents = tuple(float(step) for step in steps.split(","))
    action = Action("start", version, shadow, reason, policy=policy, steps=percents)
    change(model, msgspec.structs.replace(action, automatic=not by_hand), as_json)


@click.command()
@click.argument("model")
@click.argument("version", type=int)
@click.option("--percent", default=100.0, show_default=True, help="0 takes the shadow away.")
@reason_option
@json_option
def shadow(model: str, version: int, percent: float, reason: str, as_json: bool) -> None:
    """Let VERSION see MODEL's requests too; it answers nobody."""
    change(model, Action("shadow", version, percent, reason), as_json)


@click.command()
@click.argument("model")
@click.argument("version", type=int)
@click.option("--percent", required=True, type=float, help="0 takes the canary away.")
@reason_option
@json_option
def canary(model: str, version: int, percent: float, reason: str, as_json: bool) -> None:
    """Let VERSION answer a share of MODEL's requests, by hand and without gates."""
    change(model, Action("canary", version, percent, reason), as_json)


@click.command()
@click.argument("model")
@click.option("--force", is_flag=True, help="Against the gates; takes a reason.")
@reason_option
@json_option
def advance(model: str, force: bool, reason: str, as_json: bool) -> None:
    """Take MODEL's rollout to its next step."""
    change(model, Action("advance", reason=reason, force=force), as_json)


@click.command()
@click.argument("model")
@reason_option
@json_option
def pause(model: str, reason: str, as_json: bool) -> None:
    """Keep MODEL's rollout where it is; a failing gate still ends it."""
    change(model, Action("pause", reason=reason), as_json)


@click.command()
@click.argument("model")
@reason_option
@json_option
def resume(model: str, reason: str, as_json: bool) -> None:
    """Let a paused rollout go on."""
    change(model, Action("resume", reason=reason), as_json)


@click.command()
@click.argument("model")
@click.argument("version", type=int)
@click.option("--force", is_flag=True, help="Against the gates; takes a reason.")
@reason_option
@json_option
def promote(model: str, version: int, force: bool, reason: str, as_json: bool) -> None:
    """Make VERSION the champion of MODEL."""
    change(model, Action("promote", version, reason=reason, force=force), as_json)


@click.command()
@click.argument("model")
@reason_option
@json_option
def rollback(model: str, reason: str, as_json: bool) -> None:
    """End what is under way, else go back to the previous champion. Needs no monitor."""
    change(model, Action("rollback", reason=reason), as_json)


def change(model: str, action: Action, as_json: bool) -> None:
    versions = places.versions_or_unknown(model)
    if action.version is not None:
        if action.version not in versions:
            raise UnknownVersion(model, action.version, versions)
        places.repository().open(ModelVersion(model, action.version))
    route = control.act(places.client(), model, action, first=max(versions), who=places.who())
    if as_json:
        click.echo(msgspec.json.encode(route).decode())
    else:
        screen.print(f"{model}: {told(route)} (revision {route.revision})")


def told(route: Route) -> str:
    """A route in one line."""
    parts = [f"v{route.champion} answers"]
    if route.canary is not None:
        parts.append(f"v{route.canary} answers {route.weight / 100:g} %")
    if route.shadow is not None:
        parts.append(f"v{route.shadow} shadows {route.shadow_percent:g} %")
    if route.rules:
        parts.append(f"{len(route.rules)} targeting rules")
    if route.rollout is not None:
        how = "paused" if route.rollout.paused else "by hand"
        how = "by itself" if route.rollout.automatic and not route.rollout.paused else how
        parts.append(f"rollout of v{route.rollout.version} {how}")
    return ", ".join(parts)


# --- looking --------------------------------------------------------------------------------------


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
    context.exit({"pass": 0, "fail": FAILED, "insufficient": INSUFFICIENT}[kept.verdict.status])


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


def exit_code(error: GatesNotPassed) -> int:
    return FAILED if error.failed else INSUFFICIENT
