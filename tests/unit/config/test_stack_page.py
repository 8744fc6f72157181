"""The configurations of docs/your-stack.md are what the parser reads and the adapters take, and each kind has one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from nicety.scheduler.config.sections import PoolConfig, parse
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.pools.build import build

PAGE = (Path(__file__).parents[3] / "docs" / "your-stack.md").read_text()
BLOCKS = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("text", BLOCKS, ids=[re.findall(r"pools\.([\w-]+)", text)[0] for text in BLOCKS])
def test_each_configuration_of_the_page_is_taken(text: str, tmp_path: Path) -> None:
    config = parse(text)
    pools = build(config, SystemClock(), state_dir=tmp_path)
    assert set(pools) == set(config.pools)
    for pool in pools.values():
        pool.close()


def test_each_kind_of_pool_is_on_the_page() -> None:
    kinds = set(get_args(get_type_hints(PoolConfig)["kind"]))
    assert {kind for kind in kinds if f'kind = "{kind}"' in PAGE} == kinds
