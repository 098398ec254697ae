"""Canaries over real HTTP: split, pins, rules, and a champion that answers for a broken one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from models import rollout, routes
from models.contract import keys, wire
from models.rollout import Rule
from slipstream.embedded import EmbeddedRedis
from tests import onnx_models
from tests.serving import Gateway, eventually

ROW = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1.0, 2.0, 3.0, 4.0]}


@pytest.fixture
def serving(
    tmp_path: Path, redis_server: EmbeddedRedis, client: redis.Redis
) -> Iterator[tuple[Gateway, redis.Redis]]:
    """`m` with two versions; its route's database is its own."""
    for number, weight in ((1, 1.0), (2, 2.0)):
        onnx_models.softmax(tmp_path / f"repository/m/{number}/model.onnx", weight)
    onnx_models.identity(tmp_path / "repository/m/3/model.onnx", "INT8")
    url = redis_server.url.replace("/0", "/9")
    first = rollout.Route("m", 1)
    routes.write(client, None, first, action="push", who="me", why="first version")
    running = Gateway(tmp_path, tmp_path / "repository", url, SLIPSTREAM_TOKEN="open sesame")
    yield running, client
    running.stop()


def change(gateway: Gateway, client: redis.Redis, transition: Any) -> None:
    """Change the route and wait until the gateway applies it."""
    route = routes.change(client, "m", transition, first=1, action="test", who="me", why="")
    eventually(lambda: arm(gateway.infer("m", [ROW]))["revision"] == route.revision, 5)


def same(route: rollout.Route) -> rollout.Route:
    return route


def arm(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    headers = answer.headers
    return {
        "version": int(headers["x-model-version"]),
        "role": headers["x-model-role"],
        "reason": headers["x-route-reason"],
        "revision": int(headers["x-route-revision"]),
    }


def ask(gateway: Gateway, **headers: str) -> tuple[int, str, str]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    told = arm(gateway.infer("m", [ROW], headers=named))
    return told["version"], told["role"], told["reason"]


def test_a_canary_gets_its_share_and_keeps_its_callers(
    serving: tuple[Gateway, redis.Redis],
) -> None:
    """By x-routing-key; who is in the canary at 20 % is in it at 60 %; the id sticks as well."""
    gateway, client = serving
    change(gateway, client, same)
    callers = [f"caller {i}" for i in range(150)]

    def canaries() -> set[str]:
        return {c for c in callers if ask(gateway, x_routing_key=c)[0] == 2}

    change(gateway, client, partial(rollout.start_canary, version=2, percent=20, salt="r1"))
    few = canaries()
    assert 12 < len(few) < 50
    assert few == canaries()
    change(gateway, client, partial(rollout.start_canary, version=2, percent=60, salt="r2"))
    many = canaries()
    assert few < many
    assert 65 < len(many) < 115
    caller = next(iter(many))
    told = gateway.infer("m", [ROW], id=caller)
    assert (arm(told)["role"], arm(told)["reason"]) == ("canary", "split")
    change(gateway, client, rollout.rollback)
    assert not canaries()


def test_a_pin_needs_the_token_and_a_rule_needs_its_header(
    serving: tuple[Gateway, redis.Redis],
) -> None:
    """The URL first, then the pin, then rules, then the split."""
    gateway, client = serving
    rules = (Rule("x-team", 2, equals="beta"), Rule("x-region", 2, matches="eu-.*"))
    change(gateway, client, lambda r: rollout.target(r, rules))
    assert ask(gateway)[2] == "champion"
    assert ask(gateway, x_team="beta") == (2, "canary", "rule")
    assert ask(gateway, x_region="eu-west") == (2, "canary", "rule")
    assert ask(gateway, x_region="us-east")[2] == "champion"
    pin = {"x-slipstream-version": "2"}
    refused = gateway.infer("m", [ROW], headers=pin)
    assert (refused.status_code, "token" in refused.json()["error"]) == (403, True)
    token = {"x-slipstream-token": "open sesame"}
    assert arm(gateway.infer("m", [ROW], headers={**pin, **token}))["reason"] == "header"
    told = gateway.infer("m", [ROW], headers={**pin, **token}, path="/v2/models/m/versions/1/infer")
    assert (arm(told)["version"], arm(told)["reason"]) == (1, "url")


def test_the_champion_answers_for_a_canary_that_cannot(
    serving: tuple[Gateway, redis.Redis],
) -> None:
    """Nobody sees a failure; the canary's faults are counted as its own, by reason."""
    gateway, client = serving
    change(gateway, client, same)
    client.delete(keys.facts("m"))
    change(gateway, client, partial(rollout.start_canary, version=3, percent=100, salt="s"))
    expected = gateway.infer("m", [ROW], path="/v2/models/m/versions/1/infer").json()["outputs"]
    for _ in range(20):
        answer = gateway.infer("m", [ROW])
        assert arm(answer)["reason"] == "fallback"
        assert answer.json()["outputs"] == expected
    counted: Counter[tuple[int, str, str]] = Counter()

    def both() -> bool:
        counted.clear()
        entries: Any = client.xrange(keys.facts("m"))
        for _, fields in entries:
            for tally in wire.unpack(fields[wire.FIELD]).tallies:
                counted[tally.version, tally.role, tally.kind] += tally.requests
        return counted[3, "canary", "error"] >= 20 and counted[1, "champion", "ok"] >= 20

    eventually(both, 5)
    bad = {**ROW, "data": [1.0, 2.0]}
    assert gateway.infer("m", [bad]).status_code == 400


def test_the_reason_is_recorded(serving: tuple[Gateway, redis.Redis]) -> None:
    gateway, client = serving
    change(gateway, client, same)
    client.delete(keys.facts("m"))
    change(gateway, client, partial(rollout.start_canary, version=2, percent=50, salt="s"))
    for i in range(20):
        ask(gateway, x_routing_key=str(i))

    def reasons() -> set[tuple[str, str]]:
        entries: Any = client.xrange(keys.facts("m"))
        rows = [row for _, f in entries for row in wire.unpack(f[wire.FIELD]).rows]
        return {(row.role, row.reason) for row in rows}

    eventually(lambda: {("canary", "split"), ("champion", "champion")} <= reasons(), 5)


def test_the_last_route_outlives_redis_and_a_restart(tmp_path: Path) -> None:
    """Redis gone, gateway started anew: the copy on disk says who answers."""
    for number, weight in ((1, 1.0), (2, 2.0)):
        onnx_models.softmax(tmp_path / f"repository/m/{number}/model.onnx", weight)
    with EmbeddedRedis(tmp_path / "redis") as own:
        gateway = Gateway(tmp_path, tmp_path / "repository", own.url)
        client = redis.Redis.from_url(own.url)
        change(gateway, client, same)
        change(gateway, client, partial(rollout.start_canary, version=2, percent=50, salt="s"))
        before = [ask(gateway, x_routing_key=str(i))[0] for i in range(30)]
        eventually((tmp_path / "routes.json").is_file, 5)
        eventually(lambda: b'"weight":5000' in (tmp_path / "routes.json").read_bytes(), 5)
        client.close()
    gateway.stop()
    assert len(set(before)) == 2
    again = Gateway(tmp_path, tmp_path / "repository", own.url)
    try:
        assert [ask(again, x_routing_key=str(i))[0] for i in range(30)] == before
    finally:
        again.stop()


def test_models_without_a_manifest_are_compared_and_so_is_the_champion_with_itself(
    serving: tuple[Gateway, redis.Redis],
) -> None:
    """The gateway compares every output, row by row; one request in a hundred is the floor's."""
    gateway, client = serving
    change(gateway, client, same)
    client.delete(keys.facts("m"))
    change(gateway, client, partial(rollout.start_shadow, version=2, percent=100))
    for _ in range(400):
        gateway.infer("m", [ROW])
    verdicts: Counter[tuple[int, str, bytes]] = Counter()

    def compared() -> bool:
        verdicts.clear()
        entries: Any = client.xrange(keys.facts("m"))
        for _, fields in entries:
            for rows in wire.unpack(fields[wire.FIELD]).rows:
                for one in rows.agree:
                    verdicts[rows.version, rows.role, bytes([one])] += 1
        return sum(n for (_, role, _), n in verdicts.items() if role == "shadow") >= 400

    eventually(compared, 20)
    assert {key for key in verdicts if key[1] == "shadow"} == {(2, "shadow", b"\x00")}

    def floor() -> set[tuple[int, str, bytes]]:
        for _ in range(100):
            gateway.infer("m", [ROW])
        compared()
        return {key for key in verdicts if key[1] == "floor"}

    eventually(floor, 60)
    assert floor() == {(1, "floor", b"\x01")}
    durations = gateway.http.get("/metrics").text
    assert 'role="champion"' in durations
    assert 'role="floor"' not in durations
