"""How a worker for numerical work begins: with limits on the threads of libraries, before it loads any.

Must not know tasks, nor import what has such a library.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping


def begin(variables: Mapping[str, str], initializer: bytes | None) -> None:
    """Set the variables of the environment; then call the initializer, a pickled (function, arguments)."""
    os.environ.update(variables)
    if initializer is not None:
        function, arguments = pickle.loads(initializer)  # noqa: S301 - from our owner
        function(*arguments)
