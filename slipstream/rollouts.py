"""The commands that change who answers."""

from __future__ import annotations

import click
import msgspec

from models import routes
from models.actions import Action
from models.errors import GatesNotPassed
from models.rollout import Route, Rule
from monitoring import control
from slipstream import places
from slipstream.places import EXIT, json_option, screen

reason_option = click.option("--reason", default="", help="Kept in the audit.")


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
@click.argument("version", type=int, required=False)
@click.option("--header", help="Name of a request header.")
@click.option("--equals", help="Value that the header must have.")
@click.option("--matches", help="Regular expression that all of the header must match.")
@reason_option
@json_option
def target(
    model: str,
    version: int | None,
    header: str | None,
    equals: str | None,
    matches: str | None,
    reason: str,
    as_json: bool,
) -> None:
    """Send requests with a certain header to VERSION; without VERSION, drop all such rules."""
    route = routes.read(places.client(), model)
    rules = route.rules if route else ()
    if version is None:
        rules = ()
    elif header is None:
        raise click.UsageError("a rule needs --header, and --equals or --matches")
    else:
        places.known(model, version)
        rules = (*rules, Rule(header, version, equals, matches))
    revision = route.revision if route else 0
    action = Action("target", reason=reason, rules=rules, revision=revision)
    change(model, action, as_json)


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
        places.known(model, action.version)
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


def exit_code(error: GatesNotPassed) -> int:
    return EXIT["fail" if error.failed else "insufficient"]
