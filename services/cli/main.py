"""The command `thumbloop`: one sub-command a service, and the tools around them.

Nothing heavy is imported before a command needs it, so that `--help` answers at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.shared.domain.errors import InvalidInput, ThumbloopError

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
keys_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help=(
        "API keys: who may chat, score and administrate.\n\n"
        "A key belongs to one tenant and has scopes: `chat` (HTTP chat, gRPC `Generate`), `score` (gRPC `Score`), "
        "`feedback` (read where any feedback of the tenant is), `admin` (all that is the tenant's; with the "
        "deployment's own tenant, what concerns the whole deployment too). "
        "Browsers that only rate need no key: the feedback token of an answer is enough.\n\n"
        "These commands prove themselves by the deployment's secrets folder (`--data-dir`, default from the settings) "
        "or by `THUMBLOOP_API_KEY`, a key with scope admin."
    ),
)
app.add_typer(keys_app, name="keys", rich_help_panel="Tools")

BrokerOption = Annotated[
    str,
    typer.Option(help="`embedded`, `apache` (a node from KAFKA_HOME), or HOST:PORT of one that is there."),
]
DataDirOption = Annotated[Path, typer.Option(help="Folder of the store, checkpoints, secrets, logs.")]
dead_letters_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help=(
        "Events that could not be read: why, what they hold, and publishing them again.\n\n"
        "An id is a place, `TOPIC/PARTITION@OFFSET`, as `list` shows it. Reads Kafka by the settings (`bus`)."
    ),
)
app.add_typer(dead_letters_app, name="dead-letters", rich_help_panel="Tools")

AddressOption = Annotated[str, typer.Option(help="gRPC of the learner, HOST:PORT; empty: from the settings.")]
DeploymentOption = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Data folder of the deployment, whose secrets prove you; empty: the settings'."),
]


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
    """Scripted users against a Thumbloop that runs: they chat over the public HTTP API and send thumbs.

    Where it wants an API key, set `THUMBLOOP_API_KEY` to one with scope chat.
    """
    from services.simulate.users import run_users

    with clear_errors():
        raise typer.Exit(run_users(url=url, users=users, taste=taste, seconds=seconds, seed=seed, journal=journal))


@policies_app.command("list")
def list_policies(
    address: AddressOption = "",
    kind: Annotated[str, typer.Option(help="policy, reward_model or all.")] = "policy",
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    data_dir: DeploymentOption = None,
) -> None:
    """Releases, newest first: state, rollouts, reward, KL, thumbs up, what the gate said."""
    from services.cli.policies import print_releases

    with clear_errors():
        print_releases(address, kind, limit, data_dir)


@keys_app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="What people call it, e.g. `web-frontend`; 1 to 100 characters.")],
    scopes: Annotated[str, typer.Option(help="chat, score, feedback, admin; with commas between them.")] = "chat",
    tenant: Annotated[str, typer.Option(help="Whose data it reaches; empty: the settings', or your key's.")] = "",
    expires: Annotated[str, typer.Option(help="90d, 12h, 30m, 4w, a date such as 2030-01-31, or never.")] = "90d",
    address: AddressOption = "",
    data_dir: DeploymentOption = None,
    bare: Annotated[bool, typer.Option("--bare", help="Print the key alone, for scripts.")] = False,
) -> None:
    """Makes a key and shows it, once. Example: `thumbloop keys create web --scopes chat,feedback --expires 30d`."""
    from services.cli.keys import print_new_key

    with clear_errors():
        print_new_key(
            name=name, scopes=scopes, tenant=tenant, expires=expires, address=address, data_dir=data_dir, bare=bare
        )


@keys_app.command("list")
def list_keys(
    tenant: Annotated[str, typer.Option(help="Keys of this tenant alone; empty: of all that you reach.")] = "",
    address: AddressOption = "",
    data_dir: DeploymentOption = None,
) -> None:
    """All keys, newest first, without their secrets: scopes, expiry, live or revoked."""
    from services.cli.keys import print_keys

    with clear_errors():
        print_keys(tenant=tenant, address=address, data_dir=data_dir)


@keys_app.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="The 12 characters after `tl_`; `thumbloop keys list` shows them.")],
    address: AddressOption = "",
    data_dir: DeploymentOption = None,
) -> None:
    """Ends a key, for ever; every room refuses it within seconds. Twice is once."""
    from services.cli.keys import print_revoked

    with clear_errors():
        print_revoked(key_id=key_id, address=address, data_dir=data_dir)


@app.command(rich_help_panel="Tools")
def forget(
    user: Annotated[str, typer.Option(help="The person, as in the chat requests' `user`.")] = "",
    tenant: Annotated[str, typer.Option(help="Whose customer; empty: your key's own, or the deployment's.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until every known replica has forgotten.")] = True,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait at most.")] = 120.0,
    control: Annotated[str, typer.Option(help="Instead of a user: an order given before, to see how far it is.")] = "",
    url: Annotated[str, typer.Option(help="Control port of a gateway, http://HOST:PORT; empty: the settings'.")] = "",
    data_dir: DeploymentOption = None,
) -> None:
    """Forgets a person: store, spools, memory and dead letters at once, Kafka's topics by their retention.

    Lists the releases that learned from them. Exit code 0: all known replicas have forgotten; 1: not all yet
    (`--no-wait` does not wait for them), or an error.
    """
    from services.cli.forget import run_forget, run_progress

    wait_s = timeout if wait else 0.0
    with clear_errors():
        if bool(user) == bool(control):
            raise InvalidInput("Name either --user or --control.")
        if control:
            raise typer.Exit(run_progress(control_id=control, wait_s=wait_s, url=url, data_dir=data_dir))
        raise typer.Exit(run_forget(user=user, tenant=tenant, yes=yes, wait_s=wait_s, url=url, data_dir=data_dir))


TopicOption = Annotated[str, typer.Option(help="Of this topic alone, e.g. `feedback`; empty: of all.")]
ReasonOption = Annotated[str, typer.Option(help="With this reason alone, e.g. `NOT_PROTOBUF`; empty: any.")]


@dead_letters_app.command("list")
def list_dead_letters(topic: TopicOption = "", reason: ReasonOption = "") -> None:
    """All that are there: id, reason, where each had lain."""
    from services.cli.dead_letters import Choice, print_list

    with clear_errors():
        print_list(Choice(topic=topic, reason=reason))


@dead_letters_app.command("show")
def show_dead_letter(
    dead_letter_id: Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it: TOPIC/PARTITION@OFFSET.")],
) -> None:
    """One of them: reason, headers, bytes, and the event as far as it reads."""
    from services.cli.dead_letters import print_letter

    with clear_errors():
        print_letter(dead_letter_id)


@dead_letters_app.command("replay")
def replay_dead_letters(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="As `list` shows them.")] = None,
    topic: TopicOption = "",
    reason: ReasonOption = "",
    everything: Annotated[bool, typer.Option("--all", help="All that are there.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also what still cannot be read, as much as ingest bears without stopping.")
    ] = False,
) -> None:
    """Publishes the original bytes, key and headers again on the original topic. Safe to repeat: ids dedupe.

    Leaves out, and names, what still cannot be read by this version and under this `deployment.name`: it would come
    back as a new dead letter, and more than `learner.dead_letter_max_share` of them stop ingest. Mend the reader first.
    """
    from services.cli.dead_letters import Choice, print_replay

    with clear_errors():
        print_replay(Choice(ids=tuple(ids or ()), topic=topic, reason=reason), everything=everything, force=force)


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
