"""What the watching costs: a row folded, a pane stored, a window examined, and the process."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import redis

from benchmarks.detect.section import Promise, Section
from models import prediction_id
from models.contract import keys, wire
from models.contract.records import Entry, Feedback, Rows
from models.manifest import Feature, Manifest, Score, digest_of
from models.profile import FeatureProfile, Profile, numeric_bins, score_bins
from models.repository import Repository
from monitoring.examine import features
from monitoring.fold import Fold
from monitoring.stream import Store, pack_vector
from monitoring.window import Layout, Window
from slipstream.embedded import EmbeddedRedis
from slipstream.launch import answers
from slipstream.processes import free_port, spawn, stop
from slipstream.profiling import rows_as_a_whole
from tests import onnx_models

FEATURES = 50
HOUR = 400_000
ROWS = 51_200
#: Requests of one flush: 32 are stacked together in a block.
BLOCK, FLUSH = 32, 256


def world() -> tuple[Layout, np.random.Generator]:
    """A binary model of 50 numbers, with everything that a profile may hold but blocks of time."""
    chance = np.random.default_rng(0)
    table = chance.normal(size=(20_000, FEATURES))
    scores = chance.beta(2, 2, 20_000)
    manifest = Manifest(
        "m",
        1,
        "",
        "binary",
        "",
        tuple(Feature(f"f{i}", "numeric", "x", i) for i in range(FEATURES)),
        Score("y", 1),
        None,
        ("0", "1"),
    )
    score = FeatureProfile("score", numeric=score_bins(scores))
    profile = Profile(
        rows=len(table),
        features=tuple(
            FeatureProfile(f"f{i}", numeric=numeric_bins(table[:, i])) for i in range(FEATURES)
        ),
        score=score,
        graded=(1,) * (4 * (len(score.counts) + 1)),
        metrics={"accuracy": 0.8},
        whole=rows_as_a_whole(manifest, {"x": table}, len(table)),
    )
    return Layout(manifest, profile), chance


def entries(chance: np.random.Generator, rows: int, labels: bool) -> list[Entry]:
    """Flushes as a gateway makes them; with labels, one for every prediction."""
    found = []
    for _ in range(rows // FLUSH):
        ids = [prediction_id.new().to_bytes(16, "big") for _ in range(FLUSH)]
        blocks = [_block(chance, ids[at : at + BLOCK]) for at in range(0, FLUSH, BLOCK)]
        told = [Feedback(i, 0, int(chance.random() < 0.5), 0, 0) for i in ids] if labels else []
        found.append(Entry(1, "w", len(found) + 1, 0, blocks, [], told))
    return found


def _block(chance: np.random.Generator, ids: list[bytes]) -> Rows:
    n = len(ids)
    scores = chance.beta(2, 2, n).astype(np.float32)
    return Rows(
        version=1,
        role="champion",
        ids=b"".join(ids),
        rows=np.ones(n, "<u4").tobytes(),
        event_ms=np.full(n, HOUR * 3_600_000, "<i8").tobytes(),
        latency_us=np.full(n, 300, "<u4").tobytes(),
        traces=b"",
        inputs={"x": wire.column([chance.normal(size=(n, FEATURES)).astype(np.float32)])},
        outputs={"y": wire.column([np.stack([1 - scores, scores], axis=1)])},
    )


def folding(layout: Layout, chance: np.random.Generator, labels: bool) -> tuple[float, int]:
    """Microseconds of CPU a row, the best of five runs, and bytes of the pane as it is stored."""
    flushes = entries(chance, ROWS // 5, labels)
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        folded = Fold({1: layout}, {}).run(flushes)
        best = min(best, time.process_time() - began)
    (pane,) = folded.panes.values()
    return best / (ROWS // 5) * 1e6, len(pack_vector(pane))


def examining(layout: Layout, chance: np.random.Generator) -> float:
    """Milliseconds of CPU for a window, the best of ten."""
    folded = Fold({1: layout}, {}).run(entries(chance, 1_024, labels=False))
    (pane,) = folded.panes.values()
    window = Window(layout, pane)
    features(window)  # what follows from the reference alone is kept
    best = float("inf")
    for _ in range(10):
        began = time.process_time()
        features(window)
        best = min(best, time.process_time() - began)
    return best * 1e3


def importing() -> float:
    """Seconds until the monitor's modules are there, the best of five."""
    command = [sys.executable, "-c", "import monitoring.api, monitoring.monitor"]
    best = float("inf")
    for _ in range(5):
        began = time.monotonic()
        subprocess.run(command, check=True)
        best = min(best, time.monotonic() - began)
    return best


def holding(layout: Layout, chance: np.random.Generator) -> tuple[float, float]:
    """Megabytes of a real monitor at its start, and after it has folded ROWS labelled rows."""
    with tempfile.TemporaryDirectory() as name, EmbeddedRedis(Path(name) / "redis") as server:
        folder = Path(name)
        file = onnx_models.softmax(folder / "m.onnx")
        manifest = Manifest(
            "m",
            1,
            digest_of(file),
            "binary",
            "",
            layout.manifest.features,
            layout.manifest.score,
            None,
            ("0", "1"),
        )
        Repository(folder / "repository").push(file, manifest, layout.profile)
        port = free_port()
        environment = {
            "SLIPSTREAM_REPOSITORY": str(folder / "repository"),
            "SLIPSTREAM_REDIS_URL": server.url,
            "SLIPSTREAM_MONITOR_PORT": str(port),
        }
        monitor = spawn([sys.executable, "-m", "monitoring"], folder / "log", environment)
        try:
            _until(lambda: answers(f"http://127.0.0.1:{port}/readyz"))
            process = psutil.Process(monitor.pid)
            before = process.memory_info().rss
            client = redis.Redis.from_url(server.url)
            client.sadd(keys.MODELS, "m")
            for entry in entries(chance, ROWS, labels=True):
                client.xadd(keys.facts("m"), {wire.FIELD: wire.pack(entry)})
            _until(lambda: Store(client).progress("m").totals["labels"] >= ROWS)
            return before / 1e6, process.memory_info().rss / 1e6
        finally:
            stop(monitor, 20)


def _until(condition: object, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds:g} s")
        time.sleep(0.1)


def run() -> Section:
    layout, chance = world()
    row, pane = folding(layout, chance, labels=False)
    labelled, _ = folding(layout, chance, labels=True)
    window = examining(layout, chance)
    seconds = importing()
    before, after = holding(layout, chance)
    return Section(
        title="What it costs",
        about=(
            f"A model of {FEATURES} numeric features, blocks of {BLOCK} requests of one row in "
            f"flushes of {FLUSH}, as a busy gateway sends them; CPU of one core, the best of "
            "several runs. Folding a row counts its features, score and class, an eighth of the "
            "rows as a whole, and writes its page in the ledger. The process is the real monitor "
            f"on a real Redis, after {ROWS:,} labelled rows."
        ),
        columns=("what", "cost"),
        rows=(
            ("a row folded", f"{row:.1f} µs"),
            ("a row and its label folded", f"{labelled:.1f} µs"),
            ("a pane, as stored", f"{pane / 1e3:.1f} kB"),
            ("a window examined, all tests of all features", f"{window:.1f} ms"),
            ("importing the monitor", f"{seconds:.2f} s"),
            ("the monitor at its start", f"{before:.0f} MB"),
            (f"the monitor after {ROWS:,} rows", f"{after:.0f} MB"),
        ),
        promises=(
            Promise("at most 5 µs a row of 50 features", f"{row:.1f} µs", row <= 5),
            Promise("at most 15 kB a pane", f"{pane / 1e3:.1f} kB", pane <= 15_000),
            Promise("at most 25 ms a window of 50 features", f"{window:.1f} ms", window <= 25),
            Promise("the monitor below 200 MB", f"{after:.0f} MB", after < 200),
            Promise("importing in less than 1.5 s", f"{seconds:.2f} s", seconds < 1.5),
        ),
    )
