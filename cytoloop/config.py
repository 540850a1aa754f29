"""Places and secrets, read once from a mapping; no other module reads the environment."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from cytoloop.domain.errors import ConfigError
from cytoloop.files import read_json

LOCAL_FILE = "local.json"
"""In the home, mode 0600: addresses and secrets that ``cytoloop up`` chose for this machine."""
KEY_FILE = "session-key"
"""In the home, mode 0600: signs the cookies. Without it everyone has to log in again, and no more."""

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where everything is. The environment wins over what ``cytoloop up`` wrote into the home."""

    home: Path
    label_studio_url: str | None = None
    label_studio_public_url: str | None = None
    label_studio_token: str | None = field(default=None, repr=False)
    backend_url: str | None = None
    backend_user: str = "label-studio"
    backend_password: str | None = field(default=None, repr=False)
    webhook_secret: str | None = field(default=None, repr=False)
    backend_passwords_before: tuple[str, ...] = field(default=(), repr=False)
    """Given after the new one, apart by spaces: still taken, until Label Studio was told the new one."""
    webhook_secrets_before: tuple[str, ...] = field(default=(), repr=False)
    api_tokens: Path | None = None
    proxies: int = 0
    """Reverse proxies in front of the backend, whose word for a caller's address and scheme is taken."""
    is_open: bool = False
    """Label Studio's calls from this machine need no credential that is not set; asked for by a command alone."""
    device: str = "auto"
    log_level: str = "INFO"

    @classmethod
    def from_env(cls, environ: Mapping[str, str], home: Path | None = None) -> Settings:
        """Read ``CYTOLOOP_*`` from a mapping, then the home's ``local.json``.

        Raises
        ------
        ConfigError
            Naming the variable, its value, and what was expected. A secret's value is not shown.
        """
        home = (home or Path(environ.get("CYTOLOOP_HOME") or "cytoloop-home")).absolute()
        local = read_local(home)

        def get(name: str) -> str | None:
            variable = f"CYTOLOOP_{name.upper()}"
            return environ.get(variable) or _in_file(environ, f"{variable}_FILE") or local.get(name)

        tokens, proxies = get("api_tokens"), get("proxies") or "0"
        if not (proxies.isascii() and proxies.isdecimal()):
            raise ConfigError(f"CYTOLOOP_PROXIES is {proxies!r}, expected how many there are, as 1")
        passwords = tuple((get("backend_password") or "").split())
        webhook_secrets = tuple((get("webhook_secret") or "").split())
        settings = cls(
            home=home,
            label_studio_url=_url("CYTOLOOP_LABEL_STUDIO_URL", get("label_studio_url")),
            label_studio_public_url=_url("CYTOLOOP_LABEL_STUDIO_PUBLIC_URL", get("label_studio_public_url")),
            label_studio_token=get("label_studio_token"),
            backend_url=_url("CYTOLOOP_BACKEND_URL", get("backend_url")),
            backend_user=get("backend_user") or "label-studio",
            backend_password=next(iter(passwords), None),
            webhook_secret=next(iter(webhook_secrets), None),
            backend_passwords_before=passwords[1:],
            webhook_secrets_before=webhook_secrets[1:],
            api_tokens=Path(tokens) if tokens else None,
            proxies=int(proxies),
            device=get("device") or "auto",
            log_level=(get("log") or "INFO").upper(),
        )
        if settings.device not in DEVICES:
            raise ConfigError(f"CYTOLOOP_DEVICE is {settings.device!r}, expected one of {', '.join(DEVICES)}")
        if settings.log_level not in LEVELS:
            raise ConfigError(f"CYTOLOOP_LOG is {settings.log_level!r}, expected one of {', '.join(LEVELS)}")
        return settings

    def need_label_studio(self) -> tuple[str, str]:
        """Label Studio's address and token; ``ConfigError`` naming what is not set."""
        if not self.label_studio_url or not self.label_studio_token:
            missing = (
                "CYTOLOOP_LABEL_STUDIO_URL" if not self.label_studio_url else "CYTOLOOP_LABEL_STUDIO_TOKEN"
            )
            raise ConfigError(
                f"{missing} is not set and {self.home / LOCAL_FILE} does not hold it; "
                "expected it from the environment or from `cytoloop up`"
            )
        return self.label_studio_url, self.label_studio_token

    def people_url(self) -> str:
        """Where people open Label Studio; another address than programs use where it stands behind a proxy."""
        return self.label_studio_public_url or self.need_label_studio()[0]

    def need_credentials(self) -> None:
        """``ConfigError`` naming what Label Studio would have to prove itself with, and is not set."""
        for name, value in (("password", self.backend_password), ("secret", self.webhook_secret)):
            if value is None and not self.is_open:
                variable = "CYTOLOOP_BACKEND_PASSWORD" if name == "password" else "CYTOLOOP_WEBHOOK_SECRET"
                raise ConfigError(
                    f"{variable} is not set and {self.home / LOCAL_FILE} does not hold it: anyone could pass for "
                    "Label Studio; expected it from the environment or from `cytoloop up` (to try things out on "
                    "this machine alone: `cytoloop backend --open`)"
                )


def read_local(home: Path) -> dict[str, str]:
    """What ``cytoloop up`` chose for this home; empty before the first ``up``."""
    path = home / LOCAL_FILE
    try:
        document = read_json(path, ConfigError)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    if not isinstance(document, dict) or not all(isinstance(v, str) for v in document.values()):
        raise ConfigError(f"{path}: expected one JSON object of strings")
    return document


def write_local(home: Path, values: Mapping[str, str]) -> None:
    """Merge values into the home's ``local.json``, readable by its owner alone."""
    merged = {**read_local(home), **values}
    home.mkdir(parents=True, exist_ok=True)
    path = home / LOCAL_FILE
    temporary = home / f".{LOCAL_FILE}.{os.getpid()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(merged, file, indent=2, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def is_from_environment(name: str, environ: Mapping[str, str]) -> bool:
    """Whether the environment gives a setting, itself or by the name of a file."""
    variable = f"CYTOLOOP_{name.upper()}"
    return bool(environ.get(variable) or environ.get(f"{variable}_FILE"))


def _in_file(environ: Mapping[str, str], variable: str) -> str | None:
    """What stands in the file that a variable names: so are secrets given to containers."""
    path = environ.get(variable)
    if not path:
        return None
    try:
        return Path(path).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise ConfigError(f"{variable} is {path!r}: cannot be read ({reason})") from error


def _url(name: str, value: str | None) -> str | None:
    if value is None:
        return None
    try:
        parts = urlsplit(value)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port or an IPv6 address that is none
        is_address = False
    if not is_address:
        raise ConfigError(f"{name} is {value!r}, expected http://host:port")
    return value.rstrip("/")
