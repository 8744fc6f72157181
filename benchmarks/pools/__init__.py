"""Pool sizes, simulated and real, and whether resizes lose work."""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    # set before numpy loads: otherwise BLAS threads spin while they wait, which took five times the CPU on a busy machine
    os.environ.setdefault(_name, "1")
