"""What a person runs or imports: the command line, the launcher, the client."""

import os

# Before numpy is imported: for matrices this small its threads would only wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
