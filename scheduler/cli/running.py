"""Commands about the daemon and the machine: doctor, record, train, run, status, undo, act, observe, pause, resume, reload."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from . import names
from .shared import (
    FAILURE,
    FINDINGS,
    ConfigOption,
    JsonOption,
    Named,
    StateOption,
    command,
    duration,
    ended_by_signals,
    escaped,
    load_files,
    own_stores,
    print_json,
    say,
    system_clock,
)

if TYPE_CHECKING:
    from ..config.paths import Loaded, Paths
    from ..config.sections import Config
    from ..decision import Outcome
    from ..hands.kernel import Clock
    from ..ports import PoolAdapter


@command("doctor", "nicety doctor")
def doctor(context: typer.Context, as_json: JsonOption = False, config: ConfigOption = None, state_dir: StateOption = None) -> None:
    """Check what works here, and say how to fix the rest.

    Exit 3 if something does not work.
    """
    from ..explain.layout import columns, table
    from ..service import doctor as examination

    named: Named = context.obj
    findings = examination.examine(config or named.config, state_dir or named.state_dir, os.environ, os.geteuid())
    if as_json:
        print_json(examination.Examination(findings=findings))
    else:
        rows = [(finding.name, "ok" if finding.ok else "not ok", finding.what) for finding in findings]
        print(*table(("what", "state", "detail"), rows, columns()), sep="\n")
        fixes = list(dict.fromkeys((finding.name, finding.fix) for finding in findings if finding.fix))
        if fixes:
            print("", *table(("not ok", "what to do"), fixes, columns()), sep="\n")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(FINDINGS)


@command("record", "nicety record --duration 10m")
def record(
    context: typer.Context,
    interval: Annotated[
        float | None, typer.Option(parser=duration, metavar="TIME", help="Time between samples (default: daemon.interval).")
    ] = None,
    duration: Annotated[float | None, typer.Option(parser=duration, metavar="TIME", help="Stop after this time, e.g. 10m.")] = None,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Record traces of all processes, for training.

    Changes nothing on the machine. Ctrl-C ends it.
    """
    from ..hands.owner import READING
    from ..service import recording

    loaded, paths = load_files(context, config, state_dir)
    every = loaded.config.daemon.interval if interval is None else interval
    unstarted = [name for name, pool in loaded.config.pools.items() if pool.kind == "command"]
    if unstarted:
        say(f"not recorded: {', '.join(unstarted)}, because only `nicety run` starts command pools")
    own_stores(paths, rights=READING)
    say(f"recording every {every:g} s into {paths.traces}" + (f" for {duration:g} s" if duration else "; Ctrl-C ends it"))
    live = sys.stderr.isatty()

    def progress(state: recording.Progress) -> None:
        if live:
            print(f"\r{state.line()}\x1b[K", end="", file=sys.stderr, flush=True)

    try:
        with ended_by_signals():
            state = recording.record(loaded.config, paths, system_clock(), every, duration, progress)
    except recording.Interrupted as ended:
        state = ended.progress
    say(("\r\x1b[K" if live else "") + f"recorded {state.line()}")
    if state.trouble:
        say(f"nicety: not all was recorded: {state.trouble}")
        raise typer.Exit(FAILURE)


@command(
    "train",
    "nicety train --since 7d",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
def train(context: typer.Context) -> None:
    """Train models from the traces, and promote the better ones."""
    from ..interpreter import PYTHON, environment

    named: Named = context.obj
    arguments = [] if named.config is None else ["--config", named.config]
    arguments += [] if named.state_dir is None else ["--state-dir", named.state_dir]
    arguments += context.args
    # A separate process, because training loads scikit-learn, which nothing else may. One OpenMP thread, because with more a fit on
    # a busy machine took 4-36 s instead of 0.4-2.5 s.
    kept = {**environment(os.environ), "OMP_NUM_THREADS": "1"}
    sys.stdout.flush()
    command = [*PYTHON, "-m", "nicety.training", "train", *arguments]
    os.execve(command[0], command, kept)  # noqa: S606 - no shell is the point


Things = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="THING",
        help='Policies, pools or groups (default: all), e.g. pool_size, web, "program make".',
        autocompletion=names.things,
    ),
]


ForOption = Annotated[
    float | None, typer.Option("--for", parser=duration, metavar="TIME", help="Go back to observing after this time, e.g. 1h.")
]


@command("run", "nicety run --act web --for 1h")
def run(
    context: typer.Context,
    things: Things = None,
    act: Annotated[
        bool | None, typer.Option("--act/--observe", help="Carry out decisions, or only log them.", show_default=False)
    ] = None,
    act_seconds: ForOption = None,
    duration: Annotated[float | None, typer.Option(parser=duration, metavar="TIME", help="Stop after this time, e.g. 1h.")] = None,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Run the daemon. It only observes, unless you let it act.

    It records, predicts and decides. It changes something only with --act or daemon.act = true. With THINGs it acts only on these
    and observes the rest. `nicety act` and `nicety observe` change that while it runs. On SIGHUP it reads the configuration again.
    On SIGTERM, Ctrl-C or when its terminal is closed it puts everything back and exits; `nohup` keeps it running.
    """
    if not act and (things or act_seconds is not None):
        raise typer.BadParameter("THINGs and --for need --act as well")
    from ..interpreter import PYTHON
    from ..running import Wanted, main, words

    named: Named = context.obj
    wanted = Wanted(config or named.config, state_dir or named.state_dir, act, duration, things or [], act_seconds)
    # The same process, as a program without what reads a command line: that takes 12 MiB, and a daemon runs for long.
    sys.stdout.flush()
    command = [*PYTHON, "-m", "nicety.scheduler.running", *words(wanted)]
    try:
        os.execv(command[0], command)  # noqa: S606 - no shell is the point
    except OSError:  # the interpreter is in a folder of another user, or was replaced
        raise typer.Exit(main(words(wanted))) from None


@command("hands", "nicety hands --state-dir /var/lib/nicety")
def hands(context: typer.Context, config: ConfigOption = None, state_dir: StateOption = None) -> None:
    """Serve the privileged half of nicety: for the unit nicety-hands.

    It holds the ledger and changes values in the kernel for a `nicety run` without rights, which finds it by $NICETY_HANDS. Its
    service manager passes it a listening unix socket (sd_listen_fds). When that `nicety run` ends, everything is put back.
    """
    from ..hands.service import main

    named: Named = context.obj
    options = {"--config": config or named.config, "--state-dir": state_dir or named.state_dir}
    raise typer.Exit(main([word for name, value in options.items() if value for word in (name, str(value))], os.environ))


@command("status", "nicety status --json")
def status(context: typer.Context, as_json: JsonOption = False, config: ConfigOption = None, state_dir: StateOption = None) -> None:
    """Show what the daemon is doing.

    If no daemon is running, shows what a dead one left changed, and exits with 1.
    """
    from ..explain.layout import page_columns, printed
    from ..explain.status_page import changes_in_words, status_page
    from ..service.answers.control_socket import NoDaemonError, ask

    _, paths = load_files(context, config, state_dir)
    try:
        answer = ask(paths.socket, "status", full=as_json)
    except NoDaemonError as error:
        from ..explain.in_force import sum_up
        from ..service.outstanding import outstanding

        left = outstanding(paths)
        if as_json:
            from ..service.answers.status import not_running

            print_json(not_running(left))
        else:
            say(f"nicety: {error}")
            if left:
                print(printed(changes_in_words(sum_up(left, {}), page_columns())))
                say("these changes of a dead daemon are still in force; `nicety undo` puts them back")
        raise typer.Exit(FAILURE) from None
    if as_json:
        print_json(answer)
    else:
        print(status_page(answer, page_columns()))


@command("undo", "nicety undo")
def undo(context: typer.Context, as_json: JsonOption = False, config: ConfigOption = None, state_dir: StateOption = None) -> None:
    """Put every changed value back.

    A running daemon does it and then pauses. Exit 3 if a value was left alone because somebody else has changed it since, or if it
    could be put back only in part. Exit 1 if a value could not be read or written.
    """
    import msgspec

    from ..decision import Outcome
    from ..service.answers.control_socket import NoDaemonError, ask

    loaded, paths = _load_for_undo(context, config, state_dir)
    try:
        answer = ask(paths.socket, "undo", timeout_seconds=60.0)
        outcomes = msgspec.convert(answer["outcomes"], tuple[Outcome, ...])
        paused = True
    except NoDaemonError:
        from ..act.undo import undo_from_ledger
        from ..hands.owner import ALL, become, owner_of

        owner = owner_of(paths.hands)
        if owner is not None:
            become(owner, ALL)
        clock = system_clock()
        outcomes = undo_from_ledger(paths.hands, clock, pools=lambda names: _foreign_pools(loaded.config, clock, paths, names))
        paused = False
    if paused:
        say("the daemon is paused now; `nicety resume` ends the pause")
    _print_undone(outcomes, as_json)


def _print_undone(outcomes: Sequence[Outcome], as_json: bool) -> None:
    """Print what was put back. Leave with FAILURE or FINDINGS if not all was."""
    from ..act.undo import Undone
    from ..explain.decision_page import outcome_table
    from ..explain.layout import columns
    from ..hands.faults import Status

    if as_json:
        print_json(Undone(outcomes=list(outcomes)))
    elif outcomes:
        print(outcome_table(outcomes, columns()))
    else:
        say("no changes are in force, so there is nothing to undo")
    bad = {outcome.status for outcome in outcomes}
    if bad & {Status.FAILED, Status.REFUSED, Status.BLOCKED, Status.LATER}:
        raise typer.Exit(FAILURE)
    if bad & {Status.FOREIGN, Status.PARTIAL}:
        raise typer.Exit(FINDINGS)


def _load_for_undo(context: typer.Context, config: str | None, state_dir: str | None) -> tuple[Loaded, Paths]:
    """As `load_files`, but a broken configuration must not prevent an undo if the state directory is named."""
    from ..config.paths import Loaded, PathError, state_paths
    from ..config.sections import Config, ConfigError

    try:
        return load_files(context, config, state_dir)
    except (ConfigError, PathError) as error:
        named = state_dir or context.obj.state_dir or os.environ.get("NICETY_STATE_DIR")
        if not named:
            say("nicety: the configuration cannot be used; `nicety undo --state-dir DIR` undoes without it")
            raise
        say(f"nicety: {error}\nnicety: undoing without the configuration: pool sizes are not put back")
        return Loaded(Config(), None), state_paths(Config(), named, os.environ, os.geteuid())


def _foreign_pools(config: Config, clock: Clock, paths: Paths, names: tuple[str, ...]) -> dict[str, PoolAdapter]:
    """Adapters of pools that outlive the daemon. Workers of command pools end with their daemon, so there is no size to restore."""
    import msgspec

    from ..pools.build import build

    pools = {name: pool for name, pool in config.pools.items() if name in names and pool.kind != "command"}
    return build(msgspec.structs.replace(config, pools=pools), clock, state_dir=paths.stores)


@command("act", "nicety act web --for 1h")
def act(
    context: typer.Context,
    things: Things = None,
    act_seconds: ForOption = None,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Let the running daemon act on more: policies, pools or groups.

    It keeps acting on everything that it acts on already. With --for, it only observes the THINGs again after that time, and puts
    back what it changed for them.
    """
    from ..service.answers.control_socket import ask

    _, paths = load_files(context, config, state_dir)
    answer = ask(paths.socket, "act", timeout_seconds=60.0, things=things or [], seconds=act_seconds)
    say(escaped(str(answer["scope"])))


@command("observe", "nicety observe web")
def observe(
    context: typer.Context,
    things: Things = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Make the running daemon only observe policies, pools or groups.

    What it changed for them is put back at once. Exit 3 if a value was left alone because somebody else has changed it since.
    """
    import msgspec

    from ..decision import Outcome
    from ..service.answers.control_socket import ask

    _, paths = load_files(context, config, state_dir)
    answer = ask(paths.socket, "observe", timeout_seconds=60.0, things=things or [])
    if not as_json:
        say(escaped(str(answer["scope"])))
    _print_undone(msgspec.convert(answer["outcomes"], tuple[Outcome, ...]), as_json)


@command("pause", "nicety pause --for 10m")
def pause(
    context: typer.Context,
    duration: Annotated[
        float | None, typer.Option("--for", parser=duration, metavar="TIME", help="Resume after this time.")
    ] = None,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Stop the daemon from making new decisions for a while.

    Changes that are in force stay; `nicety undo` puts them back.
    """
    from ..service.answers.control_socket import ask

    _, paths = load_files(context, config, state_dir)
    ask(paths.socket, "pause", seconds=duration)
    say("paused" + (f" for {duration:g} s" if duration else "; `nicety resume` ends it"))


@command("resume", "nicety resume")
def resume(context: typer.Context, config: ConfigOption = None, state_dir: StateOption = None) -> None:
    """End a pause."""
    from ..service.answers.control_socket import ask

    _, paths = load_files(context, config, state_dir)
    ask(paths.socket, "resume")
    say("resumed")


@command("reload", "nicety reload")
def reload(context: typer.Context, config: ConfigOption = None, state_dir: StateOption = None) -> None:
    """Make the daemon read its configuration and models again.

    If the configuration has errors, they are shown and the old one stays in force.
    """
    from ..service.answers.control_socket import ask

    _, paths = load_files(context, config, state_dir)
    ask(paths.socket, "reload", timeout_seconds=30.0)
    say("reloaded")
