"""Configuration: read once, checked whole, every fault told at once under the setting's own name.

A setting comes from the environment, or from a credential: a file of the setting's lower-case name in the
directory that the service manager names in $CREDENTIALS_DIRECTORY.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self
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

from molam_webhook import handlers, keyring
from molam_webhook.handlers import Handlers
from molam_webhook.keyring import KID, SELFTEST_KID, Key, Keyring, KeyringError

if TYPE_CHECKING:
    from molam_webhook.cache import Cache

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
    # The socket for health and metrics (mode 0660), and where errors are reported to; neither without it.
    molam_admin_uds: Path | None = None
    sentry_dsn: SecretStr | None = None

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, url: SecretStr) -> SecretStr:
        try:
            parts = urlsplit(url.get_secret_value())
            # Of several hosts, each with its port. What a raw / or # in the password leaves of it is none.
            for host in parts.netloc.rpartition("@")[2].split(","):
                _ = urlsplit(f"//{host}").port
        except ValueError:
            raise ValueError(
                "must be like postgresql://user:password@host/database, and in a password / is %2F, # is %23, ? is %3F"
            ) from None
        if parts.scheme not in ("postgresql", "postgres"):
            raise ValueError("must begin with postgresql://")
        return url

    @field_validator("sentry_dsn")
    @classmethod
    def _check_sentry_dsn(cls, dsn: SecretStr | None) -> SecretStr | None:
        if dsn is not None and not re.fullmatch(r"https?://[^@/\s]+@[^/\s]+/(\S*/)?\d+", dsn.get_secret_value()):
            raise ValueError("must be like https://<key>@<host>/<project number>")
        return dsn

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


class CacheSettings(Settings):
    """Where the cache is, which one can do without: `unix:///run/molam-valkey/valkey.sock`, `redis://host:6379/0`."""

    valkey_url: SecretStr | None = None

    @field_validator("valkey_url")
    @classmethod
    def _check_valkey_url(cls, url: SecretStr | None) -> SecretStr | None:
        if url is None or not url.get_secret_value():
            return None
        if not re.fullmatch(r"unix:///\S+|rediss?://[^/\s]\S*", url.get_secret_value()):
            raise ValueError("must be like unix:///path/to/socket, redis://host:6379/0 or rediss://host:6379/0")
        return url

    def open_cache(self) -> Cache | None:
        """The cache, connected to when it is first asked; None where there is none."""
        if self.valkey_url is None:
            return None
        # Imported where it is used: the driver is not small.
        from molam_webhook.cache import Cache

        return Cache(self.valkey_url.get_secret_value())


class ApiSettings(CacheSettings):
    """What `payment_intents` reads besides: the Molam API's address, version included, and the secret key."""

    molam_api_url: Annotated[str, Field(validate_default=True)] = ""
    molam_api_key: SecretStr | None = None

    @field_validator("molam_api_url")
    @classmethod
    def _check_api_url(cls, url: str, info: ValidationInfo) -> str:
        production = info.data.get("molam_environment", "production") == "production"
        if not url:
            return "https://api.molam.com/v1" if production else "https://api.sandbox.molam.com/v1"
        if not re.fullmatch(r"https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~-]+)*", url):
            raise ValueError("must be like https://api.molam.com/v1")
        if production and not url.startswith("https://"):
            raise ValueError("must begin with https:// when MOLAM_ENVIRONMENT=production")
        return url

    @field_validator("molam_api_key")
    @classmethod
    def _check_api_key(cls, key: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if key is None or not key.get_secret_value():
            return None
        production = info.data.get("molam_environment", "production") == "production"
        faults = list(keyring.secret_faults(key.get_secret_value(), production=production))
        # Anything else would be quoted by the error of the HTTP library that refuses it.
        if not re.fullmatch(r"[A-Za-z0-9._~+/=-]*", key.get_secret_value()):
            faults.append("the key has characters that no HTTP header can carry")
        if key.get_secret_value().startswith("pk_"):
            faults.append("this is the publishable key; the API wants the secret one (sk_...)")
        if faults:
            raise ValueError("; ".join(faults))
        return key


class WorkerSettings(ApiSettings):
    """What `worker` reads besides: how many events it has in hand side by side and for how long (seconds); attempts in
    all before one is parked, the first pause after a failure and how long to sleep when no notification comes
    (seconds); what acts on events; and where they are forwarded to, with the secret that signs them, if anywhere.
    """

    molam_worker_concurrency: Annotated[int, Field(ge=1, le=32)] = 4
    molam_worker_lease_seconds: Annotated[float, Field(ge=1, le=600)] = 30
    molam_worker_max_attempts: Annotated[int, Field(ge=1, le=100)] = 12
    molam_worker_backoff_seconds: Annotated[float, Field(gt=0, le=3600)] = 5
    molam_worker_poll_seconds: Annotated[float, Field(gt=0, le=300)] = 2
    # Arrives as text; the validator makes it what its type says.
    molam_handlers: Annotated[Handlers, NoDecode] = Field(default="orders", validate_default=True)
    molam_forward_url: str = ""
    forward_secret: SecretStr | None = Field(default=None, validate_default=True)

    @field_validator("molam_handlers", mode="plain")
    @classmethod
    def _load_handlers(cls, names: str) -> Handlers:
        return handlers.load(names)

    @field_validator("molam_forward_url")
    @classmethod
    def _check_forward_url(cls, url: str) -> str:
        if url and not re.fullmatch(r"https?://[A-Za-z0-9._:\[\]-]+(/[!-~]*)?", url):
            raise ValueError("must be like http://shop.internal:8080/molam, with no user or password")
        if "#" in url:
            raise ValueError("must have no fragment (#)")
        return url

    @field_validator("forward_secret")
    @classmethod
    def _check_forward_secret(cls, secret: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if secret is None or not secret.get_secret_value():
            if info.data.get("molam_forward_url"):
                raise ValueError("is missing; MOLAM_FORWARD_URL is set, and what is sent there is signed")
            return None
        production = info.data.get("molam_environment", "production") == "production"
        if faults := list(keyring.secret_faults(secret.get_secret_value(), production=production)):
            raise ValueError("; ".join(faults))
        return secret


class ReceiverSettings(CacheSettings):
    """What `serve` reads besides: the endpoint, its bounds, the connection pool and the keys. A caller's failed
    verifications beyond `molam_failure_limit` a minute are answered 429.
    """

    database_pool_min: Annotated[int, Field(ge=0, le=100)] = 5
    database_pool_max: Annotated[int, Field(ge=1, le=100, validate_default=True)] = 20
    database_pool_idle_seconds: Annotated[float, Field(ge=0)] = 30
    molam_webhook_path: str = "/molam/webhook"
    molam_webhook_max_body_bytes: Annotated[int, Field(ge=1, le=MAX_BODY_BYTES)] = MAX_BODY_BYTES
    molam_webhook_queue_max: Annotated[int, Field(ge=1, le=100_000)] = 2048
    molam_failure_limit: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    molam_webhook_default_kid: str = "v1"
    molam_webhook_secret: SecretStr | None = None
    # Since when each secret is in use, for people; a file that holds none of them.
    molam_secret_dates: Path | None = None
    # The self-test's own key, and the networks it is taken from, a comma list; from the host itself it always is.
    selftest_secret: SecretStr | None = None
    molam_selftest_networks: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = (
        IPv4Network("127.0.0.0/8"),
        IPv6Network("::1/128"),
    )
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

    @field_validator("molam_selftest_networks", mode="before")
    @classmethod
    def _read_networks(cls, networks: object) -> object:
        if not isinstance(networks, str):
            return networks
        try:
            return tuple(ip_network(network.strip()) for network in networks.split(",") if network.strip())
        except ValueError as error:
            raise ValueError(f"{error}; must be like 10.0.0.0/8,2001:db8::/32") from None

    @field_validator("selftest_secret")
    @classmethod
    def _check_selftest_secret(cls, secret: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        production = info.data.get("molam_environment", "production") == "production"
        text = secret.get_secret_value() if secret is not None else None
        if text is not None and (faults := list(keyring.secret_faults(text, production=production))):
            raise ValueError("; ".join(faults))
        return secret

    @field_validator("keyring", mode="plain")
    @classmethod
    def _read_keyring(cls, text: object, info: ValidationInfo) -> Keyring:
        keys = cls._read_senders_keyring(text, info)
        secret, kid = info.data.get("selftest_secret"), SELFTEST_KID.encode()
        if secret is None:
            return keys
        if kid in keys.keys:
            raise KeyringError([f"SELFTEST_SECRET: is set, and KEYRING has the kid {SELFTEST_KID}; keep one of them"])
        own = Key(secret.get_secret_value().encode(), active=True)
        return replace(keys, keys={**keys.keys, kid: own})

    @classmethod
    def _read_senders_keyring(cls, text: object, info: ValidationInfo) -> Keyring:
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
        case SecretStr() if name in ("database_url", "valkey_url"):
            # Useful without its password, which may stand before the host or among the parameters.
            return re.sub(r"(?<=:)[^/?#]+(?=@)|(?<=password=)[^&]+", "***", value.get_secret_value())
        case SecretStr():
            return "***"
        case Keyring(keys=keys):
            states = {kid.decode(): "active" if key.active else "revoked" for kid, key in keys.items()}
            return ", ".join(f"{kid} ({state})" for kid, state in states.items())
        case tuple():
            return ", ".join(map(str, value)) or "-"
        case None:
            return "-"
        case _:
            return str(value)
