"""Statistics: numbers in, numbers out. numpy and scipy alone; no clock, no I/O, no chance."""
