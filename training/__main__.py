"""`python -m nicety.training`: what `nicety train` starts, in a process of its own.

One OpenMP and one BLAS thread, set before anything loads them: on a busy machine a fit took 4-36 s with more, 0.4-2.5 s with one.
"""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"

from .cli import main  # noqa: E402 - after the environment is set

if __name__ == "__main__":
    main()
