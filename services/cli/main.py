"""The command `thumbloop`: one sub-command a service, and the tools around them.

Nothing heavy is imported before a command needs it, so that `--help` answers at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.shared.domain.errors import ThumbloopError

if TYPE_CHECKING:
    from services.shared.settings import Settings

app = typer.Typer(
    name="thumbloop",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help=(
        "Online RLHF as a set of services: a thumb in a chat becomes a better policy that is being served.\n\n"
        "Start with `thumbloop up` and open the page that it names. `thumbloop doctor` says what is missing.\n\n"
        "Settings: `THUMBLOOP_<SECTION>__<NAME>` in the environment, or `thumbloop.toml`; "
        "`thumbloop settings` lists all."
    ),
)
policies_app = typer.Typer(no_args_is_help=True, help="Releases of the policy and of the reward model.")
app.add_typer(policies_app, name="policies")

BrokerOption = Annotated[
    str,
    typer.Option(help="`embedded`, `apache` (a node from KAFKA_HOME), or HOST:PORT of one that is there."),
]
DataDirOption = Annotated[Path, typer.Option(help="Folder of the store, checkpoints, secrets, logs.")]


@contextmanager
def clear_errors() -> Iterator[None]:
    """An error made for people is shown without a stack trace; exit code 1."""
    try:
        yield
    except ThumbloopError as error:
        typer.secho(error.message, fg=typer.colors.RED, err=True)
        raise typer.Exit(1) from error


def run_service(run: Callable[[Settings], None]) -> None:
    """Loads the settings and runs a service until it is told to stop."""
    from services.shared.settings import load_settings

    with clear_errors():
        run(load_settings())


@app.command(rich_help_panel="Services")
def gateway() -> None:
    """HTTP for chat clients: chat completions, feedback, the chat page."""
    from services.gateway.main import run

    run_service(run)


@app.command(rich_help_panel="Services")
def generator() -> None:
    """gRPC `Generate`: draws answers from the live policy and follows its releases."""
    from services.generator.main import run

    run_service(run)


@app.command(rich_help_panel="Services")
def reward() -> None:
    """gRPC `Score`, and scores for every rollout."""
    from services.reward.main import run

    run_service(run)


@app.command(rich_help_panel="Services")
def learner() -> None:
    """Ingest, trainer and releaser: from rollouts and thumbs to new policies."""
    from services.learner.main import run

    run_service(run)


@app.command(rich_help_panel="One machine")
def up(
    broker: BrokerOption = "embedded",
    data_dir: DataDirOption = Path(".thumbloop/up"),
) -> None:
    """Everything on this machine: open the page, chat, click a thumb, watch the version change. Ctrl-C drains."""
    from services.embedded.up import run_up

    with clear_errors():
        raise typer.Exit(run_up(broker=broker, data_dir=data_dir))


@app.command(rich_help_panel="One machine")
def demo(
    seed: Annotated[int, typer.Option(min=0, help="Of users, thumbs and training.")] = 0,
    taste: Annotated[str, typer.Option(help="What the scripted users like; a wrong name lists all.")] = "you",
    minutes: Annotated[float, typer.Option(min=1, max=120, help="At most so long.")] = 11.5,
    broker: BrokerOption = "embedded",
    data_dir: DataDirOption = Path(".thumbloop/demo"),
) -> None:
    """The whole loop with scripted users: thumbs in, better policies served, a report. Exit code 0: it closed."""
    from services.simulate.demo import run_demo

    with clear_errors():
        raise typer.Exit(run_demo(seed=seed, taste=taste, minutes=minutes, broker=broker, data_dir=data_dir))


@app.command(rich_help_panel="One machine")
def simulate(
    url: Annotated[str, typer.Option(help="Gateway to chat with.")] = "http://127.0.0.1:8080",
    users: Annotated[int, typer.Option(min=1, max=1000, help="Users who chat at the same time.")] = 12,
    taste: Annotated[str, typer.Option(help="What they like; a wrong name lists all.")] = "you",
    seconds: Annotated[float, typer.Option(min=1, help="For so long.")] = 60.0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    journal: Annotated[Path, typer.Option(help="Every acknowledged thumb, a JSON line each.")] = Path(
        ".thumbloop/simulate.jsonl"
    ),
) -> None:
    """Scripted users against a Thumbloop that runs: they chat over the public HTTP API and send thumbs."""
    from services.simulate.users import run_users

    with clear_errors():
        raise typer.Exit(run_users(url=url, users=users, taste=taste, seconds=seconds, seed=seed, journal=journal))


@policies_app.command("list")
def list_policies(
    address: Annotated[str, typer.Option(help="gRPC of the learner; empty: from the settings.")] = "",
    kind: Annotated[str, typer.Option(help="policy, reward_model or all.")] = "policy",
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
) -> None:
    """Releases, newest first: state, thumbs, KL, what they were trained on."""
    from services.cli.policies import print_releases

    with clear_errors():
        print_releases(address, kind, limit)


@app.command(rich_help_panel="Tools")
def topics(
    create: Annotated[bool, typer.Option("--create", help="Create what is missing on the configured Kafka.")] = False,
) -> None:
    """The topics: key, partitions, retention, who writes and who reads."""
    from services.cli.topics import create_topics, print_topics

    with clear_errors():
        if create:
            create_topics()
        print_topics()


@app.command(rich_help_panel="Tools")
def settings() -> None:
    """Every setting: variable, value in force, what it means."""
    from services.cli.settings_table import print_settings

    with clear_errors():
        print_settings()


@app.command(rich_help_panel="Tools")
def doctor() -> None:
    """What is missing on this machine, and how to mend it. Exit code 1 when something needed is missing."""
    from services.cli.doctor import print_findings

    with clear_errors():
        raise typer.Exit(print_findings())
