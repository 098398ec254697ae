"""`make demo-rollout`: version 2 on its way from push to champion, and a broken version 3 stopped.

Flights keep coming while an engineer's commands run, the very ones that docs/rollouts.md lists.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import click
import onnx
import redis
from onnx import TensorProto, helper
from rich.progress import BarColumn, Progress, TextColumn

from examples.flights import data, train
from examples.flights.demo import MODEL
from examples.flights.replay import Replay
from models import routes
from models.repository import Repository
from models.rollout import Route
from monitoring import control
from slipstream.cli import run_house, stop_signals
from slipstream.embedded import in_use
from slipstream.launch import House
from slipstream.looking import gate_table
from slipstream.places import screen
from slipstream.push import push
from slipstream.reference import Reference

#: Seconds that a rollout may take before the demo calls it stuck.
PATIENCE = 600


class Enough(Exception):
    """The story is told; the flights need not go on."""


def run(home: Path, port: int, monitor_port: int) -> None:
    """Raises ClickException where version 2 does not become champion or version 3 does not fall."""
    work = home / "flights"
    with screen.status("reading a year of flights") as status:
        frame = data.load()
        first, second = train.train(work, status.update)
    broken = swapped(second.file, work / "model-3.onnx")
    folder = home / "demo-rollout"
    if in_use(folder / "redis"):
        raise click.ClickException(f"another demo runs in {folder}; stop it first (Ctrl-C)")
    shutil.rmtree(folder, ignore_errors=True)
    repository = Repository(folder / "repository")
    reference = Reference(work / "reference.parquet", "late", work / "holdout.parquet", "event_ms")
    push(repository, MODEL, first.file, version=1, reference=reference, classes=["0", "1"])
    house = House(
        folder,
        repository.root,
        port=port,
        monitor_port=monitor_port,
        environment={"SLIPSTREAM_SHADOW_FLOOR": "1"},  # everything shares this machine
    )
    stopping = stop_signals()
    story = Story(house, work, stopping)
    run_house(
        house,
        lambda: story.tell(
            Replay(house.gateway_url, MODEL, frame, None, False), second.file, broken
        ),
    )


class Story:
    """Traffic in one thread, the engineer in another."""

    def __init__(self, house: House, work: Path, stopping: list[int]) -> None:
        self._house = house
        self._work = work
        self._stopping = stopping
        self._told = False

    def tell(self, replay: Replay, better: Path, broken: Path) -> None:
        assert self._house.redis_url is not None
        self._client = redis.Redis.from_url(self._house.redis_url)
        start = Route(MODEL, champion=1)
        routes.write(self._client, None, start, action="push", who="demo", why="first version")
        flights = threading.Thread(target=self._fly, args=(replay,), name="flights")
        flights.start()
        try:
            self._engineer(better, broken)
        finally:
            self._told = True
            flights.join()
        if replay.result.failures:
            raise click.ClickException(f"requests failed: {replay.result.failures[0]}")
        screen.print(f"{replay.result.predictions:,} flights were answered meanwhile, 0 failed")

    def _fly(self, replay: Replay) -> None:
        def go_on(_: int) -> None:
            if self._told or self._stopping:
                raise Enough

        try:
            asyncio.run(replay.run(go_on))
        except Enough:
            return

    def _engineer(self, better: Path, broken: Path) -> None:
        reference = ("--reference", str(self._work / "reference.parquet"), "--target", "late")
        holdout = ("--holdout", str(self._work / "holdout.parquet"), "--classes", "0,1")
        self._run(
            "push", MODEL, str(better), *reference, *holdout, "--description", "boosted trees"
        )
        self._run(
            "rollout",
            "start",
            MODEL,
            "2",
            "--steps",
            "5,25,50",
            "--reason",
            "trees take heat better",
        )
        if self._follow(2) != 2:
            raise click.ClickException("version 2 was not promoted; see the verdicts above")
        self._run(
            "push", MODEL, str(broken), *reference, *holdout, "--description", "labels swapped"
        )
        self._run("rollout", "start", MODEL, "3", "--steps", "5,25,50", "--reason", "a new export")
        if self._follow(3) != 2:
            raise click.ClickException("the broken version 3 was not stopped")
        self._run("status", MODEL)
        self._run("audit", MODEL)
        self._run("verdict", MODEL, "--verify")

    def _run(self, *arguments: str) -> None:
        """One command, as a person would type it."""
        screen.print(f"\n$ slipstream {shlex.join(arguments)}", style="bold", soft_wrap=True)
        assert self._house.redis_url is not None
        places = {
            "SLIPSTREAM_REPOSITORY": str(self._house.repository),
            "SLIPSTREAM_REDIS_URL": self._house.redis_url,
        }
        command = [sys.executable, "-m", "slipstream", *arguments]
        subprocess.run(command, env={**os.environ, **places}, check=True)

    def _follow(self, version: int) -> int:
        """Show each step's verdict until the rollout has ended; the champion then."""
        end = time.monotonic() + PATIENCE
        shown, last = -1, None
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[says]}"))
        with Progress(*columns, console=screen, transient=True) as progress:
            task = progress.add_task("", total=4, says="")
            while time.monotonic() < end and not self._stopping:
                route = routes.read(self._client, MODEL)
                assert route is not None
                kept = control.standing(self._client, MODEL)
                if kept is not None and kept.evidence.candidate == version:
                    last = kept
                    if kept.evidence.step > shown:
                        shown = kept.evidence.step
                        progress.console.print(f"v{version}: {kept.evidence.stage}")
                    says = kept.verdict.sentence[:90]
                    progress.update(
                        task, completed=shown, description=kept.evidence.stage, says=says
                    )
                if route.rollout is None:
                    break
                time.sleep(0.2)
        entry = routes.audit(self._client, MODEL, 1)[0]
        if last is not None:
            screen.print(gate_table(last.verdict.gates))
        screen.print(f"{entry['action']} by the {entry['who']}: {entry['why']}")
        found = routes.read(self._client, MODEL)
        assert found is not None
        return found.champion


def swapped(file: Path, to: Path) -> Path:
    """A model whose export lost the order of its classes: it says late where it means on time."""
    model = onnx.load(str(file))
    graph = model.graph
    for node in graph.node:
        node.output[:] = [
            f"{n}_right" if n in ("label", "probabilities") else n for n in node.output
        ]
        node.input[:] = [f"{n}_right" if n in ("label", "probabilities") else n for n in node.input]
    graph.initializer.append(helper.make_tensor("one", TensorProto.INT64, [1], [1]))
    graph.initializer.append(helper.make_tensor("other", TensorProto.INT64, [2], [1, 0]))
    graph.node.append(helper.make_node("Sub", ["one", "label_right"], ["label"]))
    graph.node.append(
        helper.make_node("Gather", ["probabilities_right", "other"], ["probabilities"], axis=1)
    )
    onnx.checker.check_model(model)
    onnx.save(model, str(to))
    return to


if __name__ == "__main__":
    run(Path(os.environ.get("SLIPSTREAM_HOME", ".slipstream")), 3000, 3001)
