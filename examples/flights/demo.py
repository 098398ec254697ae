"""`slipstream demo`: train, push, serve, shadow, replay the year, and show what the monitor saw."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
import urllib.request
from pathlib import Path
from typing import Any

import click
import numpy as np
import polars
import redis
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from sklearn.metrics import roc_auc_score

from examples.flights import data, train
from examples.flights.replay import Replay, Replayed
from models import rollout, routes
from models.repository import Repository
from models.rollout import Route
from slipstream.cli import run_house, stop_signals
from slipstream.embedded import in_use
from slipstream.launch import House
from slipstream.places import screen
from slipstream.push import push
from slipstream.reference import Reference

MODEL = "flights-delay"
#: Seconds that the monitor may take to fold what is left after the replay.
CATCH_UP = 120

Rows = list[dict[str, Any]]


def run(
    home: Path,
    *,
    once: bool,
    rate: float | None,
    rows: int | None,
    port: int,
    monitor_port: int,
) -> None:
    """The whole story. With `once` it ends by itself, else with Ctrl-C."""
    work = home / "flights"
    with screen.status("reading a year of flights") as status:
        frame = data.load()
        train.train(work, status.update)
    # A demo starts from nothing: yesterday's windows would add up with today's.
    house_home = home / "demo"
    if in_use(house_home / "redis"):
        raise click.ClickException(f"another demo runs in {house_home}; stop it first (Ctrl-C)")
    shutil.rmtree(house_home, ignore_errors=True)
    repository = Repository(house_home / "repository")
    _push_versions(repository, work)
    if rows is not None:
        frame = frame.head(rows)
    house = House(
        house_home,
        repository.root,
        port=port,
        monitor_port=monitor_port,
        # Everything shares this machine, and here every flight is to be seen by both versions.
        environment={"SLIPSTREAM_SHADOW_QUEUE": "10000", "SLIPSTREAM_SHADOW_FLOOR": "1"},
    )
    stopping = stop_signals()
    run_house(house, lambda: _story(house, work, frame, rate, once, stopping))


def _push_versions(repository: Repository, work: Path) -> None:
    reference = Reference(work / "reference.parquet", "late", work / "holdout.parquet", "event_ms")
    for trained in train.train(work, lambda _: None):
        facts = {
            "description": trained.description,
            "rows": trained.rows,
            "seconds": trained.seconds,
        }
        push(
            repository,
            MODEL,
            trained.file,
            version=trained.version,
            reference=reference,
            classes=["0", "1"],
            training=facts,
        )


def _story(
    house: House,
    work: Path,
    frame: polars.DataFrame,
    rate: float | None,
    once: bool,
    stopping: list[int],
) -> None:
    _shadow(house)
    replayed = _replay(house, frame, rate, stopping)
    if replayed is None:
        return
    _catch_up(house, replayed)
    _show(house, work, frame)
    if not once:
        screen.print(f"the console stays at {house.console_url}; Ctrl-C stops everything")
        screen.print(f"look around: SLIPSTREAM_HOME={house.home} slipstream status {MODEL}")
        house.watch(lambda: bool(stopping))


def _shadow(house: House) -> None:
    """Version 1 answers, version 2 rides in its slipstream."""
    assert house.redis_url is not None
    client = redis.Redis.from_url(house.redis_url)
    first = Route(MODEL, champion=1)
    routes.write(client, None, first, action="push", who="demo", why="logistic regression")
    routes.change(
        client,
        MODEL,
        lambda route: rollout.start_shadow(route, 2, 100),
        first=1,
        action="shadow",
        who="demo",
        why="do trees take heat better?",
    )
    applied = f'slipstream_route_revision{{model="{MODEL}"}} 2.0'
    house.watch(lambda: applied in _text(f"{house.gateway_url}/metrics"))


def _replay(
    house: House, frame: polars.DataFrame, rate: float | None, stopping: list[int]
) -> Replayed | None:
    bar = Progress(
        TextColumn("replaying 2013"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}/s"),
        TimeRemainingColumn(),
        console=screen,
    )
    replay = Replay(house.gateway_url, MODEL, frame, rate)
    with bar:
        task = bar.add_task("", total=len(frame), rate=0)
        started = time.monotonic()

        def advance(count: int) -> None:
            if stopping:
                raise KeyboardInterrupt
            done = replay.result.predictions
            bar.update(task, advance=count, rate=int(done / (time.monotonic() - started + 1e-9)))

        try:
            replayed = asyncio.run(replay.run(advance))
        except KeyboardInterrupt:
            return None
    if replayed.failures:
        raise click.ClickException(
            f"{len(replayed.failures)} requests failed; the first: {replayed.failures[0]}"
        )
    screen.print(
        f"{replayed.predictions:,} predictions and {replayed.labels:,} outcomes "
        f"in {replayed.seconds:.0f} s"
    )
    return replayed


def _catch_up(house: House, replayed: Replayed) -> None:
    """Wait until the monitor has folded every prediction, shadows too, and every label."""
    end = time.monotonic() + CATCH_UP
    with screen.status("the monitor catches up"):
        while time.monotonic() < end:
            months = _months(house)
            rows = {v: sum(m["rows"] for m in months if m["version"] == v) for v in (1, 2)}
            labels = sum(m["labels"] for m in months)
            if min(rows.values()) >= replayed.predictions and labels >= 2 * replayed.labels:
                return
            time.sleep(0.5)
    screen.print(f"the monitor has not seen everything after {CATCH_UP} s: {rows}, {labels} labels")


def _months(house: House) -> Rows:
    months: Rows = json.loads(_text(f"{house.console_url}/api/v1/models/{MODEL}/months"))
    return months


def _text(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as answer:
        text: str = answer.read().decode()
        return text


# --- what came of it ------------------------------------------------------------------------------


def _show(house: House, work: Path, frame: polars.DataFrame) -> None:
    months = _months(house)
    offline = offline_months(work, frame)
    table = Table(title="2013, as the monitor saw it", caption="v1 answers, v2 rides along")
    for name in ("month", "rows", "drifted features", "acc v1", "acc v2", "AUC v1", "AUC v2"):
        table.add_column(name, justify="left" if name in ("month", "drifted features") else "right")
    worst = 0.0
    for month in sorted({m["month"] for m in months}):
        one, two = (
            next(m for m in months if m["month"] == month and m["version"] == v) for v in (1, 2)
        )
        drifted = f"{len(one['drifted'])}: {', '.join(one['drifted'][:5])}"
        table.add_row(
            month,
            f"{one['rows']:,}",
            drifted,
            *(_figure(m[metric]) for metric in ("accuracy", "auc") for m in (one, two)),
        )
        worst = max([worst, *_differences(one, offline), *_differences(two, offline)])
    screen.print(table)
    screen.print(
        f"scikit-learn on the same rows, offline: largest difference {worst:.5f} "
        f"over all accuracies and AUCs above"
    )
    if worst > 0.002:
        raise click.ClickException("the monitor and the offline computation differ by over .002")


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _differences(month: dict[str, Any], offline: dict[tuple[str, int], Any]) -> list[float]:
    accuracy, auc = offline[month["month"], month["version"]]
    pairs = ((month["accuracy"], accuracy), (month["auc"], auc))
    return [abs(ours - theirs) for ours, theirs in pairs if ours is not None and theirs is not None]


def offline_months(
    work: Path, frame: polars.DataFrame
) -> dict[tuple[str, int], tuple[float | None, float | None]]:
    """Accuracy and AUC by month and version, from the scikit-learn pipelines themselves."""
    known = frame.filter(polars.col("late").is_not_null())
    months = known["event_ms"].cast(polars.Datetime("ms")).dt.strftime("%Y-%m").to_numpy()
    late = known["late"].to_numpy()
    found: dict[tuple[str, int], tuple[float | None, float | None]] = {}
    for version in (1, 2):
        scores = train.offline(work, version, known)
        for month in np.unique(months):
            here = months == month
            truth, said = late[here], scores[here]
            auc = float(roc_auc_score(truth, said)) if 0 < truth.mean() < 1 else None
            found[str(month), version] = (float(((said >= 0.5) == truth).mean()), auc)
    return found
