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
    load_stores,
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
    """List all models, which are live, and how well each did.

    Exit 3 if a file is damaged or a model does not fit this version; the reason is printed.
    """
    from ..explain import model_page
    from ..explain.layout import columns, table

    _, paths = load_stores(context, config, state_dir)
    found, troubles = model_page.look(paths.models)
    if as_json:
        print_json(model_page.Models(models=[model_page.as_record(each) for each in found], troubles=troubles))
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
    kind: Annotated[ModelKind, typer.Argument(metavar="KIND", help="Kind of the model.", show_default=False)],
    digest: Annotated[
        str, typer.Argument(metavar="DIGEST", help="Digest of the model or its first characters (`nicety models list`).")
    ],
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Make a model live, even if training refused it.

    A running daemon uses it at once. `nicety models rollback KIND` makes the previous model live again.
    """
    from ...models.artifact import promote
    from ..explain.model_page import choose

    _, paths = load_stores(context, config, state_dir)
    chosen, own = choose(paths.models, kind, digest)
    promote(paths.models, kind, chosen if own else None)
    say(f"the {kind} model {chosen[:12]} is live")
    _tell_daemon(paths)


@command("rollback", "nicety models rollback demand", models_app)
def models_rollback(
    context: typer.Context,
    kind: Annotated[ModelKind, typer.Argument(metavar="KIND", help="Kind of the model.", show_default=False)],
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Make the previous model live again.

    A running daemon uses it at once. Each further rollback goes back by one more model. Before your own first model comes the one
    that is installed with nicety, or the baseline.
    """
    from ...models.artifact import rollback

    _, paths = load_stores(context, config, state_dir)
    before = rollback(paths.models, kind)
    say(f"the {kind} model {before[:12]} is live again" if before else f"none of your own {kind} models is live any more")
    _tell_daemon(paths)


def _tell_daemon(paths: Paths) -> None:
    """Have a running daemon use the models that are live now."""
    from ..service.answers.control_socket import ControlError, NoDaemonError, ask

    try:
        ask(paths.socket, "reload", timeout_seconds=30.0)
    except NoDaemonError:
        say("no daemon is running here; the next `nicety run` uses the live models")
    except ControlError as error:
        raise ControlError(f"the running daemon does not use it yet: {error}; then run `nicety reload`") from None
    else:
        say("the running daemon uses the live models now; `nicety status` shows which these are")
