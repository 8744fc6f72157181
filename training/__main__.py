"""`python -m nicety.training`: the separate process that `nicety train` starts.

One OpenMP and one BLAS thread, set before anything loads them: on a busy machine a fit took 4-36 s with more, 0.4-2.5 s with one.
What the extra `train` installs is looked for first: not after an hour, when the report is written. It is not loaded yet: that takes
a second, and much of it is not needed.
"""

import os
import sys
from importlib.util import find_spec

_NEEDED = ("jinja2", "sklearn", "threadpoolctl", "joblib", "cloudpickle")

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"


def main() -> None:
    """Train, or say what is not installed (exit 1)."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        print(
            f"nicety: training needs {missing[0]}, which is not installed; in nicety's checkout, run: pip install '.[train]'",
            file=sys.stderr,
        )
        sys.exit(1)
    from .cli import main as train

    train()


if __name__ == "__main__":
    main()
