"""The shared language of gateway and monitor: versions, routes, records."""
