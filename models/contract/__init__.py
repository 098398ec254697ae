"""What gateway and monitor tell each other through Redis: names, records, bytes."""
