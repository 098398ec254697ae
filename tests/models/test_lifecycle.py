"""models.lifecycle: tables of what stands, and the one step that follows."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from models import rollout
from models.lifecycle import Action, Standing, Step, next_step, refuse_unload, roles
from models.rollout import Route, Rule
from models.version import ModelVersion, State

ONE, TWO = ModelVersion("m", 1), ModelVersion("m", 2)


@pytest.mark.parametrize(
    ("state", "what", "action"),
    [
        (State.REGISTERED, {}, Action.LOAD),
        (State.REGISTERED, {"unloaded": True}, None),
        (State.REGISTERED, {"unloaded": True, "role": "the canary"}, Action.LOAD),
        (State.REGISTERED, {"on_disk": False}, Action.FORGET),
        (State.REGISTERED, {"on_disk": False, "role": "the canary"}, None),
        (State.LOADING, {"unloaded": True}, None),
        (State.LOADED, {}, Action.WARM),
        (State.LOADED, {"unloaded": True}, Action.DRAIN),
        (State.WARMING, {"on_disk": False}, None),
        (State.READY, {}, None),
        (State.READY, {"unloaded": True}, Action.DRAIN),
        (State.READY, {"on_disk": False}, Action.DRAIN),
        (State.READY, {"unloaded": True, "role": "the champion"}, None),
        (State.READY, {"on_disk": False, "role": "the champion"}, None),
        (State.DRAINING, {"unloaded": True, "held": True}, None),
        (State.DRAINING, {"unloaded": True}, Action.CLOSE),
        (State.DRAINING, {"on_disk": False}, Action.CLOSE),
        (State.DRAINING, {"held": True}, Action.RESUME),
        (State.DRAINING, {}, Action.CLOSE),
        (State.RETIRED, {"unloaded": True}, None),
        (State.RETIRED, {}, Action.LOAD),
        (State.RETIRED, {"unloaded": True, "on_disk": False}, Action.FORGET),
        (State.FAILED, {}, None),
        (State.FAILED, {"role": "the champion"}, None),
        (State.FAILED, {"on_disk": False}, Action.FORGET),
    ],
)
def test_what_follows_for_one_version(
    state: State, what: dict[str, object], action: Action | None
) -> None:
    """Wanted is what a route names, else what is on disk and was not unloaded."""
    standing = replace(Standing(ONE, state), **what)  # type: ignore[arg-type]
    assert next_step([standing]) == (action and Step(action, ONE))


@pytest.mark.parametrize(
    ("one", "two", "step"),
    [
        ({}, {"role": "the champion"}, Step(Action.LOAD, TWO)),
        ({}, {}, Step(Action.LOAD, ONE)),
        ({}, {"state": State.LOADED}, Step(Action.WARM, TWO)),
        ({}, {"state": State.DRAINING}, Step(Action.CLOSE, TWO)),
        (
            {"role": "the canary"},
            {"state": State.READY, "unloaded": True},
            Step(Action.LOAD, ONE),
        ),
        ({}, {"state": State.READY, "unloaded": True}, Step(Action.DRAIN, TWO)),
        ({"state": State.READY}, {"state": State.READY}, None),
    ],
)
def test_what_comes_first(
    one: dict[str, object], two: dict[str, object], step: Step | None
) -> None:
    """What a route needs; then memory is freed before more is taken."""
    standings = [replace(Standing(ONE), **one), replace(Standing(TWO), **two)]  # type: ignore[arg-type]
    assert next_step(standings) == step
    assert next_step(reversed(standings)) == step


#: What each step makes of a state, where nothing goes wrong.
AFTER = {
    Action.LOAD: State.LOADED,
    Action.WARM: State.READY,
    Action.RESUME: State.READY,
    Action.DRAIN: State.DRAINING,
    Action.CLOSE: State.RETIRED,
}
RESTING = (State.REGISTERED, State.LOADED, State.READY, State.DRAINING, State.RETIRED, State.FAILED)
BOTH = (False, True)


@pytest.mark.parametrize(
    ("state", "on_disk", "role", "unloaded", "held"),
    itertools.product(RESTING, BOTH, ("", "the champion"), BOTH, BOTH),
)
def test_every_life_comes_to_rest(
    state: State, on_disk: bool, role: str, unloaded: bool, held: bool
) -> None:
    """From any start, a few steps lead to where the version should be; no step takes away what a
    route needs, and none closes what somebody holds."""
    at = Standing(ONE, state, on_disk, role, unloaded, held and state == State.DRAINING)
    for _ in range(5):
        step = next_step([at])
        if step is None:
            break
        assert not (role and step.action in (Action.DRAIN, Action.FORGET))
        assert not (at.held and step.action == Action.CLOSE)
        if step.action == Action.FORGET:
            return
        draining = step.action == Action.DRAIN
        at = replace(at, state=AFTER[step.action], held=held and draining)
    else:
        pytest.fail(f"no rest: {at}")
    if state == State.FAILED:
        assert at.state == State.FAILED
    elif at.wanted and on_disk:
        assert at.state == State.READY
    else:
        assert at.state != State.LOADED


ROUTE = Route(
    "m",
    champion=1,
    revision=7,
    previous=2,
    shadow=3,
    canary=4,
    weight=100,
    rules=(Rule("x-tester", 5, equals="1"),),
)


def test_a_version_has_its_weightiest_role() -> None:
    """The champion is the champion, even where a rule names it and it was so before."""
    assert list(roles(ROUTE)) == [2, 5, 3, 4, 1]
    assert roles(replace(ROUTE, previous=1, rules=(Rule("a", 1, "b"),)))[1] == "the champion"
    assert set(roles(Route("m", 1))) == {1}


@pytest.mark.parametrize(
    ("route", "number", "sentence"),
    [
        (ROUTE, 1, "m v1 is the champion, and is not unloaded; promote another version first"),
        (ROUTE, 2, "m v2 is the previous champion, .* after the next promotion"),
        (ROUTE, 3, "m v3 is the shadow, .* take the shadow away first"),
        (ROUTE, 4, "m v4 is the canary, .* take the canary away first"),
        (ROUTE, 5, "m v5 is named by a targeting rule on 'x-tester', .* change the rules first"),
        (Route("m", 1), 1, "promote another version first, or unload the whole model"),
        (
            rollout.begin(Route("m", 1), rollout.Rollout("r", 2)),
            2,
            "m v2 is the shadow, .* end its rollout first",
        ),
    ],
)
def test_a_refusal_names_the_role_and_the_way(route: Route, number: int, sentence: str) -> None:
    """So that an operator knows what to do first."""
    with pytest.raises(Exception, match=sentence):
        raise refuse_unload(route, number)


def test_the_protocol_has_a_word_for_every_state() -> None:
    """Four words, and nothing but READY where requests are taken."""
    words = {state: state.word for state in State}
    assert {"LOADING", "READY", "UNLOADING", "UNAVAILABLE"} == set(words.values())
    assert [state for state, word in words.items() if word == "READY"] == [State.READY]
