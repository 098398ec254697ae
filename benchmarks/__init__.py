"""`make bench`: Slipstream between its floor and its peers, side by side in one run."""
