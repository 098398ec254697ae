"""The command line, as a person uses it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from slipstream.cli import main
from slipstream.embedded import EmbeddedRedis
from tests import onnx_models


@pytest.fixture
def run(tmp_path: Path, redis_server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setenv("SLIPSTREAM_HOME", str(tmp_path))
    monkeypatch.setenv("SLIPSTREAM_REDIS_URL", redis_server.url.replace("/0", "/7"))

    def call(*arguments: object) -> Result:
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    return call


def test_a_version_from_push_to_champion_and_back(
    run: object, tmp_path: Path, reference: Path
) -> None:
    """push, shadow, promote, rollback; illegal steps exit with 5 and say what is legal."""
    assert callable(run)
    for number in (1, 2):
        file = onnx_models.softmax(tmp_path / f"{number}.onnx", float(number))
        pushed = run("push", "cli", file, "--reference", reference, "--target", "late")
        assert pushed.exit_code == 0, pushed.output
        assert f"cli v{number} pushed" in pushed.output
    assert "2" in run("list").output
    route = json.loads(run("status", "cli", "--json").output)["cli"]
    assert (route["champion"], route["revision"]) == (1, 1)
    assert "v2 shadows 50 %" in run("shadow", "cli", 2, "--percent", 50).output
    assert "v2 answers" in run("promote", "cli", 2, "--reason", "better").output
    again = run("promote", "cli", 2)
    assert again.exit_code == 5
    assert "legal:" in again.output
    assert "v1 answers" in run("rollback", "cli").output
    unknown = run("promote", "cli", 9)
    assert unknown.exit_code == 1
    assert "known: 1, 2" in unknown.output
    assert run("promote", "cli").exit_code == 2
