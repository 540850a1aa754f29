"""``cytoloop rotate-secrets``: Label Studio's password and the secret of its events, made anew while all runs on."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from cytoloop.commands.console import print_json, stdout
from cytoloop.commands.context import Context
from cytoloop.commands.home import Home, open_home
from cytoloop.config import Settings, is_from_environment, read_local, write_local
from cytoloop.domain.errors import StateError
from labelstudio_config.project import connect

KEYS = ("backend_password", "webhook_secret")
SECRET_BYTES = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """What a rotation did; no secret is in it."""

    renewed: tuple[str, ...]
    """Made anew in the home."""
    from_environment: tuple[str, ...]
    """Told to Label Studio as the environment gives them: there they have to be changed."""
    projects: tuple[int, ...]
    """Label Studio's projects that were told."""


def rotate_secrets(context: Context) -> None:
    """Make the secrets anew, tell Label Studio, forget the old ones."""
    with open_home(context.settings.home) as home:
        done = rotate(home, os.environ)
    if context.as_json:
        print_json(done)
        return
    for key in done.renewed:
        stdout.print(
            f"{key}: made anew, told to {len(done.projects)} project(s); the old one is not taken any more."
        )
    for key in done.from_environment:
        stdout.print(
            f"CYTOLOOP_{key.upper()}: told to {len(done.projects)} project(s) as the environment gives it. To change it: "
            "set it to the new and the old one, apart by a space, restart the backend, run this again, then take the "
            "old one out.",
            soft_wrap=True,
        )


def rotate(home: Home, environ: Mapping[str, str]) -> Rotation:
    """Three steps, none of which loses an event: take new and old, tell Label Studio the new, take the new alone.

    What is cut off is gone on with by the next call. The backend, if it runs, follows the home's file.

    Raises
    ------
    StateError
        If nothing is connected yet: then there is nothing to rotate.
    LabelStudioUnavailable
        If it is away; new and old are both taken until this is run again.
    """
    folder = home.settings.home
    assays = [
        (home.load(name), project_id)
        for name in home.store.assays.names()
        if (project_id := home.store.assays.get(name)["project_id"]) is not None
    ]
    if not assays:
        raise StateError(
            f"{folder}: no assay has a project; expected `cytoloop import` or `cytoloop up` before"
        )
    given = tuple(key for key in KEYS if is_from_environment(key, environ))
    ours = tuple(key for key in KEYS if key not in given)
    local = read_local(folder)
    both: dict[str, str] = {}
    for key in ours:
        known = local.get(key, "").split()
        # two: an earlier rotation was cut off, and its new one may be in use
        both[key] = " ".join(known if len(known) > 1 else [secrets.token_urlsafe(SECRET_BYTES), *known])
    write_local(folder, both)
    settings = Settings.from_env(environ, folder)
    for assay, _ in assays:
        connect(home.label_studio, home.store, assay, settings)
    write_local(folder, {key: both[key].split()[0] for key in ours})
    home.settings = Settings.from_env(environ, folder)
    return Rotation(
        renewed=ours, from_environment=given, projects=tuple(project_id for _, project_id in assays)
    )
