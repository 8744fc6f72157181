"""Commands about the pools of this machine: which run here, and adopting one into the configuration."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from .shared import ConfigOption, GroupAsTyped, JsonOption, Named, app, command, escaped, guarded_command, print_json, say

if TYPE_CHECKING:
    from pathlib import Path

    from ..config.sections import Config
    from ..pools.finding.found import Found

pools_app = typer.Typer(cls=GroupAsTyped, invoke_without_command=True, rich_markup_mode=None, epilog="Example: nicety pools")


app.add_typer(pools_app, name="pools")


@pools_app.callback()
def _pools(context: typer.Context, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Find the pools of workers that run here, and what is missing to size each.

    Needs no daemon and no rights, and changes nothing. Nothing is sized before `nicety pools adopt` or you write it into the
    configuration.
    """
    if context.invoked_subcommand is None:
        guarded_command(_list_pools)(context, as_json, config)


def _list_pools(context: typer.Context, as_json: bool, config: str | None) -> None:
    from ..explain.layout import page_columns
    from ..explain.pools_page import pools_page
    from ..printed import plain

    found = _search(_place_and_config(context, config)[1])
    if as_json:
        from ..pools.finding.found import FoundPools

        print_json(FoundPools(pools=[each.record() for each in found]))
    elif found:
        print(pools_page([plain(each.record()) for each in found], page_columns()))
    else:
        say("no pool that nicety knows runs here; docs/your-stack.md lists the kinds")
    for text in _unseen():
        say(f"nicety: {text}")


@command("adopt", "nicety pools adopt shop --print", pools_app)
def adopt(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A pool that `nicety pools` lists.")],
    as_name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Call it so in the configuration.", show_default=False)
    ] = None,
    print_only: Annotated[bool, typer.Option("--print", help="Print the block, and write nothing.")] = False,
    config: ConfigOption = None,
) -> None:
    """Write a pool into the configuration, so that the daemon may size it.

    Appends the block [pools.NAME], with a comment on each choice, to the file of --config or to the file that is in use. What
    stands in that file stays as it is. The block counts from the next reload on; sizes change only where the daemon acts.
    """
    from dataclasses import replace

    from ..config.appending import append_pool
    from ..pools.finding.blocks import block
    from ..pools.finding.found import FindError

    path, known = _place_and_config(context, config)
    found = {each.name: each for each in _search(known)}
    pool = found.get(name)
    if pool is None:
        there = ", ".join(each.name for each in found.values() if not each.configured) or "none"
        raise FindError(f'no pool "{name}" was found; those that were: {there}')
    if pool.configured:
        raise FindError(f"{path} has [pools.{name}] already: it is {pool.title}")
    pool = replace(pool, name=as_name or name)
    text = block(pool)
    if print_only:
        print(text, end="")
        return
    append_pool(path, pool.name, text, os.geteuid())
    say(f"wrote [pools.{escaped(pool.name)}] to {escaped(str(path))}")
    steps = [*pool.missing, *([pool.before] if pool.before else [])]
    for step in steps:
        say(f"next: {escaped(step)}")
    say(f"next: look at the block, then nicety reload; nicety act {escaped(pool.name)} lets the daemon resize it")


def _place_and_config(context: typer.Context, config: str | None) -> tuple[Path, Config]:
    """The configuration file, which need not be there, and what it says."""
    from ..config.appending import read_or_empty
    from ..config.paths import place_of_config

    named: Named = context.obj
    path = place_of_config(config or named.config, os.environ, os.geteuid())
    return path, read_or_empty(path, os.geteuid())


def _search(config: Config) -> list[Found]:
    from ..pools.finding.search import everything, machine

    return everything(machine(), config, os.environ)


def _unseen() -> list[str]:
    """What this user cannot see, a sentence each."""
    from ..pools.finding.search import hidden

    return hidden()
