"""`nicety models`."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from .shared import (
    FINDINGS,
    ConfigOption,
    JsonOption,
    StateOption,
    command,
    escaped,
    load_files,
    models_app,
    print_json,
    say,
)

if TYPE_CHECKING:
    from ..config.paths import Paths


class ModelKind(StrEnum):
    """What `models promote` and `rollback` take."""

    DEMAND = "demand"
    ANOMALY = "anomaly"
    BEHAVIOUR = "behaviour"


@command("list", "nicety models list", models_app)
def models_list(
    context: typer.Context, as_json: JsonOption = False, config: ConfigOption = None, state_dir: StateOption = None
) -> None:
    """List the models, which are live, and how each did.

    Exit 3 if a file is damaged or a model does not fit this version: it is named with the reason.
    """
    from ..explain import model_page
    from ..explain.layout import columns, table

    _, paths = load_files(context, config, state_dir)
    found, troubles = model_page.look(paths.models)
    if as_json:
        print_json({"models": [model_page.as_record(each) for each in found], "troubles": troubles})
    elif found:
        print(*table(model_page.HEADERS, [model_page.row(each) for each in found], columns()), sep="\n")
    else:
        say("there are no models; `nicety train` makes some")
    for trouble in troubles:
        say(escaped(f"nicety: {trouble}"))
    if troubles:
        raise typer.Exit(FINDINGS)


@command("promote", "nicety models promote demand 3f9a01bc", models_app)
def models_promote(
    context: typer.Context,
    kind: Annotated[ModelKind, typer.Argument(metavar="KIND", help="demand, anomaly or behaviour.", show_default=False)],
    digest: Annotated[str, typer.Argument(metavar="DIGEST", help="The model, or how its digest begins (`nicety models list`).")],
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Make a model live, whatever it was judged to be.

    A running daemon takes it at once. What was live before can be had back: nicety models rollback KIND.
    """
    from ...models.artifact import promote
    from ..explain.model_page import choose

    _, paths = load_files(context, config, state_dir)
    chosen, own = choose(paths.models, kind, digest)
    promote(paths.models, kind, chosen if own else None)
    say(f"the {kind} model {chosen[:12]} is live")
    _tell_daemon(paths)


@command("rollback", "nicety models rollback demand", models_app)
def models_rollback(
    context: typer.Context,
    kind: Annotated[ModelKind, typer.Argument(metavar="KIND", help="demand, anomaly or behaviour.", show_default=False)],
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Make the model live that was live before.

    A running daemon takes it at once. Again, and it is the one before that. Before the first of your own, the one that nicety
    comes with or the baseline speaks.
    """
    from ...models.artifact import rollback

    _, paths = load_files(context, config, state_dir)
    before = rollback(paths.models, kind)
    say(f"the {kind} model {before[:12]} is live again" if before else f"no {kind} model of your own is live any more")
    _tell_daemon(paths)


def _tell_daemon(paths: Paths) -> None:
    """Let a running daemon take the models that are live now."""
    from ..service.answers.control_socket import ControlError, NoDaemonError, ask

    try:
        ask(paths.socket, "reload", timeout_seconds=30.0)
    except NoDaemonError:
        say("no daemon runs here; the next `nicety run` takes the models that are live then")
    except ControlError as error:
        raise ControlError(f"the running daemon has not taken it: {error}; then: nicety reload") from None
    else:
        say("the running daemon has taken the models that are live now; `nicety status` shows which it uses")
