"""The user's own regressors: found where the configuration says, refused where others could have written, errors with the cause."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nicety.training.regressors import RegressorError, factory, made, takes_quantile


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "own.py"
    found.write_text("from sklearn.linear_model import Ridge\nnumber = 3\ndef ridge(): return Ridge()\ndef text(): return 'no'\n")
    found.chmod(0o600)
    return found


def test_a_factory_is_found_in_a_file_and_in_a_module(file: Path) -> None:
    assert type(made(f"{file}:ridge", 0.5)).__name__ == "Ridge"
    assert type(made("sklearn.linear_model:LinearRegression", 0.5)).__name__ == "LinearRegression"


def test_who_takes_a_quantile_gets_it() -> None:
    assert takes_quantile("sklearn.linear_model:QuantileRegressor")
    assert made("sklearn.linear_model:QuantileRegressor", 0.95).quantile == 0.95
    assert not takes_quantile("sklearn.linear_model:LinearRegression")


@pytest.mark.parametrize(
    ("reference", "cause"),
    [
        ("no.such.module:thing", "cannot be imported: ModuleNotFoundError: No module named 'no'"),
        ("FILE:nothing", "has no function nothing"),
        ("FILE:number", "has no function number"),
        ("own.py:ridge", "must be an absolute path"),
        ("/no/such/file.py:ridge", "cannot be read: No such file"),
    ],
)
def test_what_cannot_be_found_says_why(file: Path, reference: str, cause: str) -> None:
    with pytest.raises(RegressorError, match=re.escape(cause)) as caught:
        factory(reference.replace("FILE", str(file)))
    assert str(caught.value).startswith("training.regressors: ")


def test_what_is_no_regressor_is_refused(file: Path) -> None:
    with pytest.raises(RegressorError, match="returned str, which has no fit and predict"):
        made(f"{file}:text", 0.5)


def test_a_file_with_an_error_names_it(file: Path) -> None:
    file.write_text("1 / 0\n")
    with pytest.raises(RegressorError, match=r"own.py:ridge cannot be imported: ZeroDivisionError: division by zero; correct it"):
        factory(f"{file}:ridge")


@pytest.mark.parametrize("which", ["file", "folder"])
def test_what_others_could_have_written_is_not_run(file: Path, which: str) -> None:
    file.write_text("raise SystemExit('run')\n")
    (file if which == "file" else file.parent).chmod(0o777)
    with pytest.raises(RegressorError, match="could have been written by others"):
        factory(f"{file}:ridge")
