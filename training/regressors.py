"""The user's own regressors: finds the factories that `training.regressors` of the configuration names. Knows no data.

Only `nicety train` imports them, with the rights of the owner of the state directory. The daemon never does.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import stat
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from .dataset import DatasetError


class RegressorError(DatasetError):
    """A regressor that the configuration names cannot be used. The message says why and what to do next."""


def factory(reference: str) -> Callable[..., Any]:
    """The factory that a reference names: "package.module:name" or "/folder/file.py:name". Raises RegressorError."""
    place, _, name = reference.rpartition(":")
    try:
        module = _of_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except RegressorError:
        raise
    except Exception as error:  # the user's code: whatever fails in it, the message names the key
        raise RegressorError(
            f"training.regressors: {reference} cannot be imported: {type(error).__name__}: {error}; correct it, or take it out"
        ) from None
    found = getattr(module, name, None)
    if not callable(found):
        raise RegressorError(f"training.regressors: {place} has no function {name}; name one that returns a regressor")
    return found  # type: ignore[no-any-return]  # what it returns is checked by `made`


def made(reference: str, quantile: float) -> Any:
    """A new regressor of a factory, for this quantile if the factory takes one. Raises RegressorError."""
    make = factory(reference)
    try:
        regressor = make(quantile=quantile) if takes_quantile(reference) else make()
    except Exception as error:  # the user's code
        raise RegressorError(
            f"training.regressors: {reference} failed: {type(error).__name__}: {error}; correct it, or take it out"
        ) from None
    if not (callable(getattr(regressor, "fit", None)) and callable(getattr(regressor, "predict", None))):
        kind = type(regressor).__name__
        raise RegressorError(
            f"training.regressors: {reference} returned {kind}, which has no fit and predict; return a regressor of scikit-learn"
        )
    return regressor


def takes_quantile(reference: str) -> bool:
    """Whether a factory has an argument `quantile`: then it is asked for a regressor for each. Raises RegressorError."""
    try:
        return "quantile" in inspect.signature(factory(reference)).parameters
    except ValueError:  # a class of C, say
        return False


def _of_file(path: Path) -> ModuleType:
    """The module in a file that only its owner, root or this user, can write. Raises RegressorError, and whatever the file does."""
    if not path.is_absolute():
        raise RegressorError(f"training.regressors: {path} must be an absolute path, such as /etc/nicety/{path.name}")
    for each in (path, path.parent):
        try:
            found = each.stat()
        except OSError as error:
            raise RegressorError(f"training.regressors: {each} cannot be read: {os.strerror(error.errno or 0)}") from None
        if found.st_uid not in (0, os.geteuid()) or (
            found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX
        ):
            raise RegressorError(
                f"training.regressors: {each} could have been written by others; make it root's or yours alone: chmod go-w {each}"
            )
    spec = importlib.util.spec_from_file_location(f"nicety_regressor_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise RegressorError(f"training.regressors: {path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
