"""The house rules: imports go one way, documents are true."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.serving import ROOT

LINT = Path(sys.executable).parent / "lint-imports"


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [str(LINT), "--no-cache"]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in ("slipstream", "service", "models", "monitoring"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("console"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("monitoring/stats/drift.py", "import time", "Statistics are numbers in"),
        ("service/fleet.py", "import monitoring.measure", "never see each other"),
        ("models/rollout.py", "import redis", "pure parts of models"),
        ("monitoring/window.py", "import monitoring.views", "reads downwards"),
    ],
)
def test_a_breach_of_the_import_contracts_is_caught(
    copy: Path, file: str, line: str, contract: str
) -> None:
    """The contracts hold as things stand, and one wrong import breaks them."""
    assert lint(copy).returncode == 0
    source = copy / file
    source.write_text(source.read_text() + f"\n{line}\n")
    broken = lint(copy)
    assert broken.returncode == 1
    assert re.search(f"{contract}.* BROKEN", broken.stdout)


def test_the_bento_asks_for_what_the_project_depends_on() -> None:
    """requirements.txt is the list of pyproject.toml, line by line."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == project["dependencies"]


def test_every_metric_is_in_the_catalogue() -> None:
    """docs/metrics.md names exactly the metrics that the code makes."""
    sources = "".join(
        (ROOT / file).read_text() for file in ("service/metrics.py", "monitoring/telemetry.py")
    )
    made = set(re.findall(r'"(slipstream_[a-z_]+)"', sources))
    told = set(re.findall(r"`(slipstream_[a-z_]+)`", (ROOT / "docs/metrics.md").read_text()))
    assert made == told


def test_constraints_name_no_address() -> None:
    """A plain list of versions, good for every registry."""
    assert "://" not in (ROOT / "constraints.txt").read_text()
