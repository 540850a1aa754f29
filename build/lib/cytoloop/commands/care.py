"""``cytoloop backup | restore | tokens``: what an administrator does so that a home can be trusted."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cytoloop.adapters.backup import Backup, back_up, restore, verify
from cytoloop.commands.console import print_json, progress_bars, stdout, table
from cytoloop.commands.context import Context
from cytoloop.domain.errors import InputError
from ml_backend.access import Role, add_token, remove_tokens, tokens_of

TOKEN_BYTES = 24
_NAME = re.compile(r"[^\s#]{1,128}")


def backup(context: Context, archive: Path | None, verify_only: bool) -> None:
    """Write the home into an archive and verify it; or verify one."""
    home = context.settings.home
    if verify_only:
        if archive is None:
            raise InputError("--verify: no archive was named; expected ARCHIVE")
        done = verify(archive)
    else:
        archive = archive or Path(f"{home.name}-{datetime.now():%Y%m%d-%H%M%S}.tar")
        with progress_bars() as tell:
            done = back_up(home, archive, lambda count, total: tell("files", count, total))
    _show(context, done, "verified" if verify_only else "written and verified")


def restore_home(context: Context, archive: Path) -> None:
    """Make the home from an archive."""
    home = context.settings.home
    done = restore(archive, home)
    _show(context, done, f"restored to {home}")
    if done.home != str(home) and not context.as_json:
        stdout.print(
            f"It was at {done.home}: images that lay in it, its token file and Label Studio's data are known by that "
            "path. Restore it there, or set CYTOLOOP_API_TOKENS and import the plates again.",
            soft_wrap=True,
        )


def _show(context: Context, done: Backup, what: str) -> None:
    if context.as_json:
        print_json(done)
        return
    stdout.print(
        f"{done.path}: {what}; of {done.created_at.astimezone():%Y-%m-%d %H:%M}, {done.files} files, "
        f"{done.bytes / 1e6:.1f} MB, {done.corrections} revisions of corrections, {done.versions} model versions.",
        soft_wrap=True,
        markup=False,
    )
    stdout.print("It holds tokens and passwords: keep it like the home itself.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A new token; shown once, kept nowhere."""

    name: str
    role: Role
    token: str


def tokens_add(context: Context, name: str, role: Role) -> None:
    """Make a token and show it."""
    if not _NAME.fullmatch(name):
        raise InputError(
            f"name {name!r}: expected 1 to 128 characters without spaces and '#', as ada@lab.org"
        )
    token = secrets.token_hex(TOKEN_BYTES)
    add_token(_file(context), token, name, role)
    if context.as_json:
        print_json(Made(name=name, role=role, token=token))
        return
    stdout.print(token, markup=False)
    stdout.print(f"The token of {name} ({role}). It is shown once: only its digest is kept.", markup=False)


def tokens_list(context: Context) -> None:
    """Who holds tokens."""
    callers = tokens_of(_file(context))
    if context.as_json:
        print_json({"tokens": callers})
        return
    stdout.print(table("Tokens", ["Name", "Role"], [[one.name, one.role] for one in callers]))


def tokens_remove(context: Context, name: str) -> None:
    """Take a name's tokens back; fail if there were none."""
    path = _file(context)
    count = remove_tokens(path, name)
    if not count:
        known = sorted({one.name for one in tokens_of(path)})
        raise InputError(f"{path}: no token of {name!r}; expected one of {known}")
    if context.as_json:
        print_json({"removed": count})
        return
    stdout.print(f"{count} token(s) of {name} taken back; sessions begun with them are over.", markup=False)


def _file(context: Context) -> Path:
    settings = context.settings
    return settings.api_tokens or settings.home / "api-tokens"
