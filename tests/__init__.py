"""Tests. As in a service, linear algebra gets one thread: more only stand in each other's way on a small machine."""

import os

for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
