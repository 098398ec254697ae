"""What the console shows, as JSON."""
