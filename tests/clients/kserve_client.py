"""KServe's REST client against the gateway, from an environment of its own.

`python -m tests.clients.kserve_client PYTHON`: starts a gateway with this interpreter and runs
the client with PYTHON, which has kserve installed. Prints what pytest would, for CI to read.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from slipstream.embedded import EmbeddedRedis
from tests import onnx_models
from tests.serving import ROOT, Gateway


def main() -> int:
    python = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder, EmbeddedRedis(Path(folder) / "redis") as server:
        repository = Path(folder) / "repository"
        onnx_models.simple(repository / "simple/1/model.onnx")
        gateway = Gateway(Path(folder) / "gateway", repository, server.url)
        try:
            script = ROOT / "tests/clients/kserve_calls.py"
            return subprocess.run([python, str(script), gateway.url], check=False).returncode
        finally:
            gateway.stop()


if __name__ == "__main__":
    sys.exit(main())
