"""Who is asking, and what each may do: Basic auth for Label Studio, a secret header for webhooks, tokens for
scripts and people."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from cytoloop.config import LOCAL_FILE, Settings
from cytoloop.domain.errors import AccessDenied, ConfigError, Forbidden

Role = Literal["expert", "admin", "service"]
Action = Literal["see everyone", "train", "cancel", "bring into force", "set queues"]
MAY: Mapping[Action, tuple[Role, ...]] = {
    "see everyone": ("admin", "service"),
    "train": ("admin", "service"),
    "cancel": ("admin", "service"),
    "bring into force": ("admin",),
    "set queues": ("admin",),
}
"""Which roles may do what; whatever is not here, anyone who holds a token may do for himself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who holds a token."""

    name: str
    role: Role

    def may(self, action: Action) -> bool:
        """Whether this role does such things."""
        return self.role in MAY[action]

    def check_may(self, action: Action) -> None:
        """Refuse (``Forbidden``) what this role does not do."""
        if not self.may(action):
            raise Forbidden(f"role {self.role!r} may not do this; expected one of {list(MAY[action])}")


class ApiTokens:
    """The token file: a line a token, ``<sha256 of the token> <name> <role>``; tokens are not stored."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._read_at: float | None = None
        self._callers: dict[str, Caller] = {}

    def caller(self, token: str | None) -> Caller:
        """The holder of a token; ``AccessDenied`` if it is missing or unknown."""
        caller = self.holder(token_digest(token or ""))
        if caller is None:
            raise AccessDenied("expected `Authorization: Bearer <token>` with a token of this server")
        return caller

    def holder(self, digest: str) -> Caller | None:
        """Who holds the token of this digest, as the file says now; None: nobody, or nobody any more."""
        self._refresh()
        for known, caller in self._callers.items():
            if hmac.compare_digest(known, digest):
                return caller
        return None

    def callers(self) -> list[Caller]:
        """Everyone who holds a token now."""
        self._refresh()
        return list(self._callers.values())

    def _refresh(self) -> None:
        if self._path is None or not self._path.is_file():
            self._callers, self._read_at = {}, None
            return
        modified = self._path.stat().st_mtime
        if modified == self._read_at:
            return
        callers = {}
        for number, line in enumerate(self._path.read_text(encoding="utf-8").splitlines(), start=1):
            if not line.strip() or line.startswith("#"):
                continue
            parts = line.split()
            if len(parts) != 3 or len(parts[0]) != 64 or parts[2] not in get_args(Role):
                raise ConfigError(
                    f"{self._path} line {number}: expected `<sha256 hex> <name> <{'|'.join(get_args(Role))}>`"
                )
            callers[parts[0]] = Caller(name=parts[1], role=parts[2])  # type: ignore[arg-type]
        self._callers, self._read_at = callers, modified


class Credentials:
    """What Label Studio proves itself with: a password for its calls, a secret for its events.

    Where they are the home's, they are read again when its ``local.json`` has changed: a rotation loses no event and
    needs no restart. Where the environment gave them, they stay what they are.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._path = settings.home / LOCAL_FILE
        self._read_at = self._modified()
        local = Settings.from_env({}, settings.home)
        self._follows_password = settings.backend_password == local.backend_password
        self._follows_secret = settings.webhook_secret == local.webhook_secret

    def passwords(self) -> tuple[str, ...]:
        """Whatever is taken for the password now; empty: none is set."""
        self._refresh()
        return _given(self._settings.backend_password, self._settings.backend_passwords_before)

    def webhook_secrets(self) -> tuple[str, ...]:
        """Whatever is taken for the secret now; empty: none is set."""
        self._refresh()
        return _given(self._settings.webhook_secret, self._settings.webhook_secrets_before)

    def _refresh(self) -> None:
        modified = self._modified()
        if modified == self._read_at:
            return
        local, settings = Settings.from_env({}, self._settings.home), self._settings
        if self._follows_password:
            settings = replace(
                settings,
                backend_password=local.backend_password,
                backend_passwords_before=local.backend_passwords_before,
            )
        if self._follows_secret:
            settings = replace(
                settings,
                webhook_secret=local.webhook_secret,
                webhook_secrets_before=local.webhook_secrets_before,
            )
        self._settings, self._read_at = settings, modified

    def _modified(self) -> int | None:
        try:
            return self._path.stat().st_mtime_ns
        except OSError:
            return None


def _given(first: str | None, before: tuple[str, ...]) -> tuple[str, ...]:
    return () if first is None else (first, *before)


def token_digest(token: str) -> str:
    """SHA-256 of a token, as the token file holds it."""
    return hashlib.sha256(token.encode()).hexdigest()


def add_token(path: Path, token: str, name: str, role: Role) -> None:
    """Append a token's digest to the token file, unless it is there."""
    line = f"{token_digest(token)} {name} {role}\n"
    known = path.read_text(encoding="utf-8") if path.is_file() else ""
    if line in known:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(line if known.endswith("\n") or not known else f"\n{line}")


def tokens_of(path: Path) -> list[Caller]:
    """Who holds a token, in the order of the file; ``ConfigError`` if a line is wrong."""
    return ApiTokens(path).callers()


def remove_tokens(path: Path, name: str) -> int:
    """Take every token of a name out of the file; how many that were. Their sessions end with them."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    kept = [line for line in lines if line.startswith("#") or line.split()[1:2] != [name]]
    if len(kept) < len(lines):
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.writelines(kept)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    return len(lines) - len(kept)


def is_one_of(given: str | None, expected: Sequence[str]) -> bool:
    """Whether a secret is one of those expected, each compared in constant time; nothing given never is."""
    if given is None:
        return False
    same = [hmac.compare_digest(given.encode(), one.encode()) for one in expected]  # all, to leak no place
    return any(same)
