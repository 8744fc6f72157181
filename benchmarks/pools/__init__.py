"""Pool sizes, simulated and real, and whether resizes lose work."""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    # before numpy loads; else BLAS threads wait for each other in loops: on a busy machine five times the CPU, and more
    os.environ.setdefault(_name, "1")
