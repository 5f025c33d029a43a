"""Every setting of every room: documented, bounded, with units in its name.

A setting is read, first match wins, from the environment (`THUMBLOOP_GATEWAY__PORT=8080`), from the TOML file that
`THUMBLOOP_CONFIG` names (default `thumbloop.toml`, optional), from the default below. Nothing heavy is imported here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
CENTURY_S = 100 * 365 * 86_400.0


class Section(BaseModel):
    """Frozen; an unknown name is an error, so that a typing mistake is told and not ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DeploymentSettings(Section):
    """Which installation this is."""

    name: str = Field("local", min_length=1, description="Name of the installation; stands in every event.")
    tenant: str = Field("default", min_length=1, description="Tenant of requests that name none.")
    data_dir: Path = Field(Path(".thumbloop"), description="Where services keep what outlives them.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    log_json: bool = Field(False, description="One JSON object a line instead of text for people.")
    secrets_dir: Path | None = Field(None, description="Keys made at first start; empty: `secrets` in the data folder.")


class BusSettings(Section):
    """How Kafka is reached."""

    bootstrap_servers: str = Field("127.0.0.1:9092", description="HOST:PORT[,HOST:PORT...]")
    topic_prefix: str = Field("", description="Put before every topic's name.")
    replication_factor: int = Field(1, ge=1, le=9, description="For topics that are created; 3 in production.")
    ack_timeout_s: Seconds = Field(5.0, description="How long an acknowledgement (acks=all) may take.")
    max_in_flight: int = Field(10_000, ge=1, description="Unacknowledged events in a producer; more are refused.")
    max_event_bytes: int = Field(1_000_000, ge=10_000, description="At most the topics' max.message.bytes.")
    embedded: bool = Field(False, description="The broker is the embedded one, which may lose its tail when killed.")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How connections are secured; SASL_SSL or SSL in production."
    )
    sasl_mechanism: Literal["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN"] = Field(
        "SCRAM-SHA-512", description="With SASL_*: how the password is proved."
    )
    sasl_username: str = Field("", description="With SASL_*.")
    sasl_password: SecretStr = Field(SecretStr(""), description="With SASL_*.")
    ssl_cafile: Path | None = Field(None, description="CA that signed the brokers' certificates; empty: the system's.")
    ssl_certfile: Path | None = Field(None, description="Own certificate, for mutual TLS.")
    ssl_keyfile: Path | None = Field(None, description="Key of `ssl_certfile`.")
    ssl_check_hostname: bool = Field(True, description="The certificate must name the broker's host.")


class CheckpointSettings(Section):
    """Where releases lie."""

    url: str = Field("", description="file:///... or s3://...; empty: `checkpoints` below the data folder.")


class ModelSettings(Section):
    """The chat model."""

    path: str = Field("", description="Folder or hub id of a Hugging Face causal LM; empty: the embedded default.")
    name: str = Field("thumbloop", description="Name by which API clients ask for it.")
    device: str = Field("cpu", description="cpu, cuda, cuda:1, ...")


class AccessSettings(Section):
    """Who may call."""

    anonymous_chat: bool = Field(
        False, description="Chat over HTTP needs no API key: for one machine, never for the internet."
    )
    snapshot_interval_s: Seconds = Field(5.0, description="A revoked key is refused everywhere after this time.")
    key_requests_per_s: float = Field(50.0, gt=0, description="Requests of a key to a replica, in the long run.")
    key_burst: int = Field(100, ge=1, description="Requests of a key to a replica at once.")
    rater_statements_per_s: float = Field(2.0, gt=0, description="Feedback that a rater may send, in the long run.")
    rater_burst: int = Field(30, ge=1, description="Feedback that a rater may send at once.")
    rater_reads_per_s: float = Field(
        10.0, gt=0, description="Questions where feedback is, of a rater, in the long run."
    )
    rater_read_burst: int = Field(100, ge=1, description="Questions where feedback is, of a rater, at once.")


class SpoolSettings(Section):
    """The gateway's own disk, for feedback that Kafka does not have (for certain) yet."""

    enabled: bool = Field(True, description="False: no volume outlives this process; feedback gets 503 instead.")
    directory: Path | None = Field(None, description="On a volume that outlives the process; empty: `spool` there.")
    max_items: int = Field(200_000, ge=1, description="More get 503 with Retry-After.")
    max_bytes: int = Field(1_000_000_000, ge=1_000_000, description="More get 503 with Retry-After.")
    patience_s: Seconds = Field(2.0, description="After this without an acknowledgement of Kafka, the disk answers.")
    confirm_interval_s: Seconds = Field(1.0, description="Embedded broker: how often the learner's store is asked.")
    resend_after_s: Seconds = Field(10.0, description="Embedded broker: what the store lacks by then is sent again.")


class GatewaySettings(Section):
    """Room `gateway`."""

    host: str = Field("127.0.0.1", description="Address of both ports.")
    port: Port = Field(8080, description="Public HTTP.")
    control_port: Port = Field(8081, description="Control HTTP: metrics, status, events of releases.")
    replica_id: str = Field("gateway-0", min_length=1, description="Stable name of this replica; acknowledges orders.")
    generator_address: str = Field("127.0.0.1:8051", description="gRPC of the generator.")
    learner_address: str = Field("127.0.0.1:8053", description="gRPC of the learner.")
    request_timeout_s: Seconds = Field(120.0, description="Deadline of a chat request.")
    max_messages: int = Field(200, ge=1, description="Longest conversation, in messages.")
    max_prompt_chars: int = Field(32_000, ge=1, description="Longest conversation, in characters.")
    max_tokens_default: int = Field(256, ge=1, description="When a request names none.")
    max_tokens_limit: int = Field(1024, ge=1, description="Most that a request may ask for.")
    max_choices: int = Field(4, ge=1, le=16, description="Greatest n.")
    max_running: int = Field(256, ge=1, description="Chat requests at a time; more get 429 with Retry-After.")
    max_release_watchers: int = Field(256, ge=1, description="Streams of releases at a time, a port; more get 429.")
    release_stream_s: Seconds = Field(600.0, description="A stream of releases ends after this; clients reopen it.")
    feedback_token_ttl_s: float = Field(30 * 86_400.0, gt=0, description="How long a response may be rated.")
    spool: SpoolSettings = SpoolSettings()
    cors_origins: tuple[str, ...] = Field((), description="Origins of browsers that may call from elsewhere.")


class GeneratorSettings(Section):
    """Room `generator`."""

    host: str = Field("127.0.0.1", description="Address of both ports.")
    port: Port = Field(8051, description="gRPC.")
    metrics_port: Port = Field(9101, description="Prometheus.")
    replica_id: str = Field("generator-0", min_length=1, description="Stable name of this replica.")
    learner_address: str = Field("127.0.0.1:8053", description="gRPC of the learner, for acknowledgements.")
    engine: Literal["continuous-batching", "scripted"] = Field("continuous-batching", description="What draws tokens.")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="Of the served weights.")
    max_running: int = Field(16, ge=1, description="Responses drawn at a time.")
    max_waiting: int = Field(256, ge=1, description="Responses waiting for a slot; more get RESOURCE_EXHAUSTED.")
    context_tokens: int = Field(2048, ge=16, description="Longest prompt plus response.")
    rollout_ack_timeout_s: Seconds = Field(2.0, description="After this a rollout waits on disk for Kafka instead.")
    rollout_queue_max: int = Field(100_000, ge=1, description="Rollouts that may wait on disk; as many may be kept.")
    confirm_interval_s: Seconds = Field(1.0, description="Embedded broker: how often the learner's store is asked.")
    resend_after_s: Seconds = Field(10.0, description="Embedded broker: what the store lacks by then is sent again.")
    unscored_after_s: Seconds = Field(60.0, description="Embedded broker: least wait for a score that is lost.")
    scripted_token_interval_s: float = Field(0.002, ge=0, description="Scripted engine: seconds a decode step.")


class RewardSettings(Section):
    """Room `reward`."""

    host: str = Field("127.0.0.1", description="Address of both ports.")
    port: Port = Field(8052, description="gRPC.")
    metrics_port: Port = Field(9102, description="Prometheus.")
    replica_id: str = Field("reward-0", min_length=1, description="Stable name; also the group's static member id.")
    learner_address: str = Field("127.0.0.1:8053", description="gRPC of the learner, for acknowledgements.")
    scorer: Literal["embedded", "scripted"] = Field("embedded", description="What gives features and log-probs.")
    dtype: Literal["auto", "float32", "bfloat16"] = Field("auto", description="Of the pass; auto: bf16 where fast.")
    max_batch: int = Field(16, ge=1, le=256, description="Rollouts a model pass.")
    resident_versions: int = Field(8, ge=2, description="Reward models kept in memory.")
    spread_penalty: float = Field(0.5, ge=0, description="k in r = 2p - 1 - k * spread.")


class PpoSettings(Section):
    """Hyper-parameters of PPO (Schulman et al., arXiv:1707.06347)."""

    rollouts_per_update: int = Field(48, ge=2, description="Experiences a batch.")
    minibatch: int = Field(4, ge=1, description="Experiences an optimizer step.")
    epochs: int = Field(1, ge=1, description="Passes over a batch.")
    learning_rate: float = Field(1e-3, gt=0, description="Of the adapter.")
    value_learning_rate: float = Field(1e-2, gt=0, description="Of the value head.")
    value_epochs: int = Field(16, ge=1, description="Passes of the value head over a batch.")
    clip: float = Field(0.2, gt=0, lt=1, description="Of the ratio.")
    value_clip: float = Field(0.5, gt=0, description="How far an update may move a value, in thumb units.")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="Of generalised advantage estimation (arXiv:1506.02438).")
    behaviour_ratio_cap: float = Field(2.0, ge=1, description="c: cap of proximal over behaviour.")
    entropy_coefficient: float = Field(0.0, ge=0, description="Of the entropy bonus.")
    kl_place: Literal["loss", "reward"] = Field("loss", description="loss: exact, differentiated; reward: sampled.")
    kl_coefficient: float = Field(0.08, ge=0, description="Thumb units a nat of KL to the reference policy.")
    kl_controller: Literal["rising", "adaptive", "fixed"] = Field("rising", description="How the price moves.")
    kl_target_nats: float = Field(
        5.0, gt=0, description="rising: dearer past it; adaptive: steered to; nats an answer."
    )
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this norm.")
    min_reward_sd: float = Field(0.15, ge=0, description="A batch whose rewards spread less is skipped.")
    lora_rank: int = Field(16, ge=1, description="Rank of the adapter.")
    lora_alpha: float = Field(32.0, gt=0, description="Scale of the adapter times its rank.")
    lora_top_layers: int = Field(10, ge=0, description="Layers, from the top, that are adapted; 0: all.")
    trunk_dtype: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto: bf16 where it is fast.")


class GateSettings(Section):
    """What a candidate must hold to."""

    samples: int = Field(16, ge=1, description="Answers drawn from a candidate.")
    max_kl_nats: float = Field(6.0, gt=0, description="KL to the reference policy, nats per answer.")
    min_distinct2_ratio: float = Field(0.7, ge=0, le=1, description="Distinct bigrams against the reference's.")
    min_entropy_ratio: float = Field(0.3, ge=0, le=1, description="Token entropy against the reference's.")


class LearnerSettings(Section):
    """Room `learner`."""

    host: str = Field("127.0.0.1", description="Address of both ports.")
    port: Port = Field(8053, description="gRPC: control and queries.")
    metrics_port: Port = Field(9103, description="Prometheus.")
    reward_address: str = Field("127.0.0.1:8052", description="gRPC of the reward service.")
    store_url: str = Field("", description="SQLAlchemy URL; empty: `store.db` in the data folder.")
    instance_id: str = Field("learner-0", min_length=1, description="Stable name of this process; holds leases.")
    roles: tuple[Literal["ingest", "trainer", "releaser"], ...] = Field(
        ("ingest", "trainer", "releaser"), min_length=1, description="What this process does; ingest may run in many."
    )
    dead_letter_max_share: float = Field(
        0.1, gt=0, le=1, description="Of a partition's recent records; more unreadable ones stop ingest."
    )
    features_retention_s: float = Field(
        7 * 86_400.0,
        gt=0,
        le=CENTURY_S,
        description="Features and reference log-probs older than this are deleted once not needed.",
    )
    rollouts_retention_s: float = Field(
        90 * 86_400.0,
        ge=0,
        le=CENTURY_S,
        description="Rollouts older than this are deleted with all that was said of them, but for those that train the "
        "reward model; 0: none is.",
    )
    trainer: Literal["ppo", "scripted"] = Field("ppo", description="scripted: releases without a model, for tests.")
    seed: int = Field(0, ge=0, description="Of all randomness in training.")
    unrated_wait_s: float = Field(60.0, ge=0, description="An unrated rollout is ready after this time.")
    join_window_s: float = Field(3600.0, gt=0, description="Later feedback trains the reward model alone.")
    orphan_after_s: float = Field(3600.0, gt=0, description="Feedback whose rollout has not come by then is orphaned.")
    max_staleness: int = Field(4, ge=0, description="Updates between a rollout's oldest version and the learner's.")
    claim_lease_s: Seconds = Field(600.0, description="A claim not used by then is open again.")
    lease_ttl_s: Seconds = Field(10.0, description="Of the leader's and the partitions' leases.")
    reward_min_new_thumbs: int = Field(8, ge=1, description="New thumbs that make a new reward model worth training.")
    reward_min_auroc_low95: float = Field(0.6, ge=0, le=1, description="Skill the reward model needs before PPO.")
    reward_min_thumbs_of_each: int = Field(10, ge=0, description="Thumbs of each sign it needs before PPO.")
    rater_weight_cap: float = Field(0.2, gt=0, le=1, description="Largest share of one rater in a reward model.")
    acknowledge_timeout_s: Seconds = Field(60.0, description="How long replicas may take to serve a release.")
    announce_interval_s: Seconds = Field(
        30.0, description="The live state is announced again this often while a replica lags behind; else hourly."
    )
    ppo: PpoSettings = PpoSettings()
    gate: GateSettings = GateSettings()
