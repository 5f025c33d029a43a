"""Loads settings, and tells a person what is wrong with them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from pydantic import ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from services.shared.domain.errors import Misconfigured
from services.shared.settings.model import (
    AccessSettings,
    BusSettings,
    CheckpointSettings,
    DeploymentSettings,
    GatewaySettings,
    GeneratorSettings,
    LearnerSettings,
    ModelSettings,
    RewardSettings,
)

CONFIG_VARIABLE = "THUMBLOOP_CONFIG"
LATEST_FEEDBACK_S = 8 * 86_400.0
"""From a token's expiry until the last statement by it is in the store: the log keeps events for seven days."""


class Settings(BaseSettings):
    """All settings; each service is handed its own section and the shared ones."""

    model_config = SettingsConfigDict(env_prefix="THUMBLOOP_", env_nested_delimiter="__", frozen=True, extra="forbid")

    deployment: DeploymentSettings = DeploymentSettings()
    bus: BusSettings = BusSettings()
    checkpoints: CheckpointSettings = CheckpointSettings()
    model: ModelSettings = ModelSettings()
    access: AccessSettings = AccessSettings()
    gateway: GatewaySettings = GatewaySettings()
    generator: GeneratorSettings = GeneratorSettings()
    reward: RewardSettings = RewardSettings()
    learner: LearnerSettings = LearnerSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment before file; no dotenv, no secrets folder."""
        env = EnvSettingsSource(settings_cls, env_prefix="THUMBLOOP_", env_nested_delimiter="__")
        return (init_settings, env, TomlConfigSettingsSource(settings_cls, toml_file=config_path()))

    @model_validator(mode="after")
    def _feedback_finds_its_rollout(self) -> Self:
        """Whoever holds a token that is still good must not rate what has been deleted."""
        keep_s, token_s = self.learner.rollouts_retention_s, self.gateway.feedback_token_ttl_s
        least_s = token_s + LATEST_FEEDBACK_S
        if 0 < keep_s < least_s:
            raise ValueError(
                f"learner.rollouts_retention_s is {keep_s:.0f}, but an answer may be rated for {token_s:.0f} s "
                f"(gateway.feedback_token_ttl_s), and that may lie in the log for days; keep rollouts at least "
                f"{least_s:.0f} s, or for ever (0)"
            )
        return self

    @property
    def store_url(self) -> str:
        """SQLAlchemy URL, default filled in."""
        return self.learner.store_url or f"sqlite:///{(self.deployment.data_dir / 'store.db').resolve()}"

    @property
    def checkpoints_url(self) -> str:
        """Checkpoints URL, default filled in."""
        return self.checkpoints.url or (self.deployment.data_dir / "checkpoints").resolve().as_uri()

    @property
    def secrets_dir(self) -> Path:
        """Folder of the deployment's keys, default filled in."""
        return self.deployment.secrets_dir or self.deployment.data_dir / "secrets"

    @property
    def spool_dir(self) -> Path:
        """Folder of the gateway's spool, default filled in."""
        return self.gateway.spool.directory or self.deployment.data_dir / "spool"


def config_path() -> Path:
    """The TOML file that would be read."""
    return Path(os.environ.get(CONFIG_VARIABLE, "thumbloop.toml"))


def load_settings() -> Settings:
    """Reads and validates all settings. Raises Misconfigured, a line for each mistake with the variable to change."""
    if CONFIG_VARIABLE in os.environ and not config_path().is_file():
        raise Misconfigured(f"{CONFIG_VARIABLE} names {config_path()}, which is no file. Correct or unset it.")
    try:
        return Settings()
    except ValidationError as error:
        raise Misconfigured("\n".join(_explain(error))) from error
    except ValueError as error:
        raise Misconfigured(f"{config_path()} or the environment does not parse: {error}") from error


def _explain(error: ValidationError) -> list[str]:
    """One line a mistake."""
    lines = []
    for mistake in error.errors():
        path = [str(part) for part in mistake["loc"]]
        if not path:  # of several settings together: the message names them
            lines.append(f"{mistake['msg'].removeprefix('Value error, ')} (in the environment or {config_path()})")
            continue
        variable = "THUMBLOOP_" + "__".join(part.upper() for part in path)
        lines.append(f"{'.'.join(path)}: {mistake['msg']} (set {variable} or [{path[0]}] in {config_path()})")
    return lines
