"""Configuration: read once, checked whole, every fault told at once under the setting's own name.

A setting comes from the environment, or from a credential: a file of the setting's lower-case name in the
directory that the service manager names in $CREDENTIALS_DIRECTORY.
"""

import os
import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)

from molam_webhook import keyring
from molam_webhook.keyring import KID, SELFTEST_KID, Keyring, KeyringError

MAX_BODY_BYTES = 262_144


class ConfigError(Exception):
    """The configuration cannot be used. `faults` has one sentence for each reason, beginning with the
    setting's name.
    """

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class Settings(BaseSettings):
    """What every command reads. A field is the setting's name in lower case."""

    model_config = SettingsConfigDict(extra="ignore", hide_input_in_errors=True, arbitrary_types_allowed=True)

    database_url: SecretStr = SecretStr("postgresql:///molam_webhook?host=/run/postgresql")
    molam_environment: Literal["production", "staging", "demo"] = "production"
    log_level: Literal["debug", "info", "warning", "error", "critical"] = "info"

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, url: SecretStr) -> SecretStr:
        try:
            scheme = urlsplit(url.get_secret_value()).scheme
        except ValueError:
            scheme = ""
        if scheme not in ("postgresql", "postgres"):
            raise ValueError("must begin with postgresql://")
        return url

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, level: object) -> object:
        return level.lower() if isinstance(level, str) else level

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  the signature is the library's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  replaced: its directory is known only now
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _credentials(settings_cls)

    @classmethod
    def load(cls) -> Self:
        """Read and check every setting. Raises ConfigError with all faults."""
        try:
            return cls()
        except ValidationError as error:
            raise ConfigError([fault for details in error.errors() for fault in _faults(details)]) from None

    def describe(self) -> list[tuple[str, str, str]]:
        """Each setting's name, its value with secrets masked, and its source (environment, credential or
        default).
        """
        environment = EnvSettingsSource(type(self))()
        credentials = _credentials(type(self))()
        rows = []
        for name in type(self).model_fields:
            source = "credential" if name in credentials else "default"
            # Read as the settings are: the environment comes first.
            source = "environment" if name in environment else source
            rows.append((name.upper(), _masked(name, getattr(self, name)), source))
        return rows


class WorkerSettings(Settings):
    """What `worker` reads besides: attempts in all before an event is parked, the first pause after a
    failure, and how long to sleep when no notification comes (seconds)."""

    molam_worker_max_attempts: Annotated[int, Field(ge=1, le=100)] = 12
    molam_worker_backoff_seconds: Annotated[float, Field(gt=0, le=3600)] = 5
    molam_worker_poll_seconds: Annotated[float, Field(gt=0, le=300)] = 2


class ReceiverSettings(Settings):
    """What `serve` reads besides: the endpoint, its bounds, the connection pool and the keys."""

    database_pool_min: Annotated[int, Field(ge=0, le=100)] = 5
    database_pool_max: Annotated[int, Field(ge=1, le=100, validate_default=True)] = 20
    database_pool_idle_seconds: Annotated[float, Field(ge=0)] = 30
    molam_webhook_path: str = "/molam/webhook"
    molam_webhook_max_body_bytes: Annotated[int, Field(ge=1, le=MAX_BODY_BYTES)] = MAX_BODY_BYTES
    molam_webhook_queue_max: Annotated[int, Field(ge=1, le=100_000)] = 2048
    molam_webhook_default_kid: str = "v1"
    molam_webhook_secret: SecretStr | None = None
    # Arrives as text, or as None when there is no such credential; the validator makes it what its type says.
    keyring: Annotated[Keyring, NoDecode] = Field(default=None, validate_default=True)

    @field_validator("database_pool_max")
    @classmethod
    def _check_pool(cls, pool_max: int, info: ValidationInfo) -> int:
        if pool_max < info.data.get("database_pool_min", 0):
            raise ValueError("must be at least DATABASE_POOL_MIN")
        return pool_max

    @field_validator("molam_webhook_path")
    @classmethod
    def _check_path(cls, path: str) -> str:
        if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", path) or path == "/health":
            raise ValueError("must be a plain path such as /molam/webhook, and not /health")
        return path

    @field_validator("molam_webhook_default_kid")
    @classmethod
    def _check_default_kid(cls, kid: str) -> str:
        if not KID.fullmatch(kid) or kid == SELFTEST_KID:
            raise ValueError(f"must be 1 to 64 of A-Z a-z 0-9 _ . - and not {SELFTEST_KID}")
        return kid

    @field_validator("keyring", mode="plain")
    @classmethod
    def _read_keyring(cls, text: object, info: ValidationInfo) -> Keyring:
        secret = info.data.get("molam_webhook_secret")
        default_kid = info.data.get("molam_webhook_default_kid", "v1")
        production = info.data.get("molam_environment", "production") == "production"
        if isinstance(text, str) and secret is not None:
            raise KeyringError(["KEYRING: is set, and so is MOLAM_WEBHOOK_SECRET; keep one of them"])
        if isinstance(text, str):
            return keyring.from_json(text, default_kid, setting="KEYRING", production=production)
        if secret is None:
            raise KeyringError(["KEYRING: is missing; give such a credential, or set MOLAM_WEBHOOK_SECRET"])
        return keyring.from_secret(
            secret.get_secret_value(), default_kid, setting="MOLAM_WEBHOOK_SECRET", production=production
        )


class AllSettings(ReceiverSettings, WorkerSettings):
    """Every setting there is."""


def _credentials(settings: type[BaseSettings]) -> SecretsSettingsSource:
    return SecretsSettingsSource(settings, secrets_dir=os.environ.get("CREDENTIALS_DIRECTORY"))


def _faults(details: ErrorDetails) -> list[str]:
    cause = details.get("ctx", {}).get("error")
    if isinstance(cause, KeyringError):
        return cause.faults
    reason = str(cause) if cause else details["msg"][0].lower() + details["msg"][1:]
    return [f"{str(details['loc'][0]).upper()}: {reason}"]


def _masked(name: str, value: object) -> str:
    match value:
        case SecretStr() if name == "database_url":
            # Useful without its password, which may stand before the host or among the parameters.
            return re.sub(r"(?<=:)[^:@/]+(?=@)|(?<=password=)[^&]+", "***", value.get_secret_value())
        case SecretStr():
            return "***"
        case Keyring(keys=keys):
            states = {kid.decode(): "active" if key.active else "revoked" for kid, key in keys.items()}
            return ", ".join(f"{kid} ({state})" for kid, state in states.items())
        case None:
            return "-"
        case _:
            return str(value)
