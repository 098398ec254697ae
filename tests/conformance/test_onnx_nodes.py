"""A sample of ONNX's node tests; all of them by `make conformance-onnx`."""

from __future__ import annotations

from tests.conformance.onnx_nodes import run


def test_a_sample_of_onnx_node_tests_is_answered_right() -> None:
    """Nothing is answered wrong, and most of the sample is answered."""
    outcomes = run(sample=60)
    assert [o for o in outcomes if o.kind == "wrong"] == []
    assert sum(o.kind == "right" for o in outcomes) >= 40
