"""How often the monitor's statistics are wrong, and how soon they are right."""
