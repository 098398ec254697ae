"""`python -m monitoring`: the monitor process."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading

# Before numpy: its threads would wait for each other, spinning, on cores that the gateway needs.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import uvicorn

from monitoring.api import application
from monitoring.monitor import Monitor
from monitoring.settings import Settings


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    # Uvicorn raises the signal again once it has shut down, which would be the end right there.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    settings = Settings.from_environment()
    monitor = Monitor(settings)
    follower = threading.Thread(target=monitor.run, name="follower")
    follower.start()
    try:
        uvicorn.run(
            application(monitor),
            host=settings.host,
            port=settings.port,
            log_level="warning",
            timeout_graceful_shutdown=2,
        )
    finally:
        monitor.stop()
        follower.join()


if __name__ == "__main__":
    main()
