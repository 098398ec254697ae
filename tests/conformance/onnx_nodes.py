"""ONNX's own node tests through a running gateway, from a plain Triton-style folder.

`python -m tests.conformance.onnx_nodes [--sample N]` prints a table and fails where an answer
is wrong. What the protocol cannot express must be refused at load, with a sentence.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import onnxruntime as ort
from onnx.backend.test.case.node import collect_testcases
from rich.progress import track
from rich.table import Table

from models.signature import DATATYPES, NUMPY
from slipstream.client import Client, Refused
from slipstream.embedded import EmbeddedRedis
from slipstream.places import screen
from tests.serving import Gateway

#: Models that one gateway loads.
CHUNK = 300
ort.set_default_logger_severity(4)


@dataclass(frozen=True)
class Outcome:
    """What came of one case. `kind` is right, refused, wrong or elsewhere."""

    name: str
    kind: str
    why: str = ""


def cases(sample: int | None) -> list[Any]:
    with warnings.catch_warnings(action="ignore"):
        found = [case for case in collect_testcases(None) if case.model is not None]
    step = max(len(found) // sample, 1) if sample else 1
    return found[::step]


def expressible(session: ort.InferenceSession) -> bool:
    return all(node.type in DATATYPES for node in (*session.get_inputs(), *session.get_outputs()))


def run(sample: int | None = None) -> list[Outcome]:
    """Every case, in chunks of CHUNK models a gateway."""
    found = cases(sample)
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as folder, EmbeddedRedis(Path(folder) / "redis") as server:
        chunks = [found[at : at + CHUNK] for at in range(0, len(found), CHUNK)]
        for number, chunk in track(list(enumerate(chunks)), "ONNX node tests", console=screen):
            home = Path(folder) / str(number)
            repository = home / "repository"
            for case in chunk:
                file = repository / case.name / "1" / "model.onnx"
                file.parent.mkdir(parents=True)
                file.write_bytes(case.model.SerializeToString())
            gateway = Gateway(home / "gateway", repository, server.url)
            try:
                outcomes += _chunk(gateway, chunk)
            finally:
                gateway.stop()
    return outcomes


def _chunk(gateway: Gateway, chunk: list[Any]) -> Iterator[Outcome]:
    index = httpx.post(f"{gateway.url}/v2/repository/index").json()
    reasons = {entry["name"]: entry["reason"] for entry in index if entry["state"] != "READY"}
    client = Client(gateway.url)
    for case in chunk:
        yield _case(client, case, reasons)
    client.close()


def _case(client: Client, case: Any, reasons: dict[str, str]) -> Outcome:
    try:
        session = ort.InferenceSession(case.model.SerializeToString())
    except Exception as error:
        told = case.name in reasons and "cannot be loaded" in reasons[case.name]
        kind = "elsewhere" if told else "wrong"
        return Outcome(case.name, kind, f"ONNX Runtime does not load it: {str(error)[:80]}")
    if not expressible(session):
        told = "cannot express" in reasons.get(case.name, "")
        return Outcome(case.name, "refused" if told else "wrong", reasons.get(case.name, "served"))
    if case.name in reasons:
        return Outcome(case.name, "wrong", reasons[case.name])
    for inputs, expected in case.data_sets:
        names = [node.name for node in session.get_inputs()]
        feed = {n: _array(v) for n, v in zip(names, inputs, strict=False)}
        problem = _compare(client, case, session, feed, expected)
        if problem:
            return _blamed(case, session, feed, expected, problem)
    return Outcome(case.name, "right")


def _array(value: Any) -> Any:
    """ONNX's test data as the protocol's arrays."""
    if isinstance(value, onnx.TensorProto):
        value = onnx.numpy_helper.to_array(value)
    array = np.asarray(value)
    return array.astype(object) if array.dtype.kind in "US" else array


def _compare(
    client: Client, case: Any, session: ort.InferenceSession, feed: dict[str, Any], expected: Any
) -> str:
    try:
        outputs = client.predict(case.name, feed).outputs
    except Refused as error:
        return str(error)
    names = [node.name for node in session.get_outputs()]
    return _difference([outputs[name] for name in names], expected, case)


def _difference(found: list[Any], expected: Any, case: Any) -> str:
    if len(found) != len(expected):
        return f"{len(found)} outputs, expected {len(expected)}"
    for ours, theirs in zip(found, map(_array, expected), strict=True):
        if (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
            return f"{ours.dtype} {ours.shape}, expected {theirs.dtype} {theirs.shape}"
        if theirs.dtype.kind in "OUS":
            same = ours.tolist() == theirs.tolist()
        elif theirs.dtype.kind in "iub":
            same = np.array_equal(ours, theirs)
        else:
            wide = (ours.astype(np.float64), theirs.astype(np.float64))
            same = np.allclose(*wide, rtol=case.rtol, atol=case.atol, equal_nan=True)
        if not same:
            return "values differ from the expected ones"
    return ""


def _blamed(
    case: Any, session: ort.InferenceSession, feed: dict[str, Any], expected: Any, problem: str
) -> Outcome:
    """Not ours where ONNX Runtime itself, asked directly, says the same."""
    if any(array.dtype == NUMPY["BF16"] for array in feed.values()):
        return Outcome(case.name, "wrong", problem)
    try:
        direct = session.run(None, feed)
    except Exception as error:
        return Outcome(case.name, "elsewhere", f"ONNX Runtime fails on it: {str(error)[:80]}")
    if _difference([np.asarray(value) for value in direct], expected, case):
        return Outcome(case.name, "elsewhere", "ONNX Runtime's own answer differs")
    return Outcome(case.name, "wrong", problem)


KINDS = {
    "right": "answered right",
    "refused": "refused at load, with a sentence",
    "elsewhere": "ONNX Runtime itself does not pass",
    "wrong": "WRONG",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int)
    outcomes = run(parser.parse_args().sample)
    counts = Counter(outcome.kind for outcome in outcomes)
    table = Table("what became of it", "cases")
    for kind, words in KINDS.items():
        table.add_row(words, str(counts[kind]))
    screen.print(table)
    for kind in ("elsewhere", "wrong"):
        for outcome in (o for o in outcomes if o.kind == kind):
            screen.print(f"{kind}: {outcome.name}: {outcome.why}")
    return 1 if counts["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
