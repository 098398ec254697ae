"""The shared language of gateway and monitor: versions, routes, records."""

VERSION = "0.1.0"
