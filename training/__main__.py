"""`python -m nicety.training`: the separate process that `nicety train` starts.

One OpenMP and one BLAS thread, set before anything loads them: on a busy machine a fit took 4-36 s with more, 0.4-2.5 s with one.
What the extra `train` installs is looked for first: not after an hour, when the report is written.
"""

import os
import sys

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"


def main() -> None:
    """Train, or say what is not installed (exit 1)."""
    try:
        import jinja2  # noqa: F401 - to see whether it is there, here and below
        import sklearn  # noqa: F401
        import threadpoolctl  # noqa: F401
    except ModuleNotFoundError as error:
        print(
            f"nicety: training needs {error.name}, which is not installed; in nicety's checkout, run: pip install '.[train]'",
            file=sys.stderr,
        )
        sys.exit(1)
    from .cli import main as train

    train()


if __name__ == "__main__":
    main()
