"""The monitor process: facts in, findings out."""
