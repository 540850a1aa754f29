"""The routes Label Studio calls: /health /setup /versions /predict /webhook."""

from __future__ import annotations

from flask import Blueprint, jsonify, request
from flask.typing import ResponseReturnValue

from cytoloop.config import Settings
from cytoloop.domain.errors import AccessDenied, InputError
from labelstudio_config.payloads import parse_predict_request, parse_project
from labelstudio_config.project import SECRET_HEADER
from ml_backend.access import Credentials, is_one_of
from ml_backend.bodies import json_object
from ml_backend.service import Backend

LARGEST_BODY = 256 * 1024 * 1024
"""Label Studio sends every stored mask of every task it asks about."""
LOCAL_NAMES = ("127.0.0.1", "localhost", "::1")


def blueprint(backend: Backend, settings: Settings) -> Blueprint:
    """Routes over the use cases; Basic auth, and a secret header for events."""
    routes = Blueprint("label_studio", __name__)
    credentials = Credentials(settings)

    def is_label_studio() -> bool:
        passwords = credentials.passwords()
        if not passwords:
            return settings.is_open and is_from_here()
        given = request.authorization
        return (
            given is not None
            and given.type == "basic"
            and is_one_of(given.username, [settings.backend_user])
            and is_one_of(given.password, passwords)
        )

    def has_secret() -> bool:
        secrets = credentials.webhook_secrets()
        if not secrets:
            return settings.is_open and is_from_here()
        return is_one_of(request.headers.get(SECRET_HEADER), secrets)

    def need_label_studio() -> None:
        if not is_label_studio():
            raise AccessDenied(
                "expected Label Studio's Basic credentials (CYTOLOOP_BACKEND_USER, …_PASSWORD)"
            )

    @routes.before_request
    def allow_masks() -> None:
        request.max_content_length = LARGEST_BODY

    @routes.get("/health")
    def health() -> ResponseReturnValue:
        need_label_studio()
        return jsonify(status="UP", model_class="cytoloop")

    @routes.post("/setup")
    def setup() -> ResponseReturnValue:
        need_label_studio()
        body = json_object()
        project_id = parse_project(body.get("project"), "setup: project")
        return jsonify(model_version=backend.set_up(project_id, str(body.get("schema") or "")))

    @routes.get("/versions")
    def versions() -> ResponseReturnValue:
        need_label_studio()
        return jsonify(versions=backend.versions())

    @routes.post("/predict")
    def predict() -> ResponseReturnValue:
        need_label_studio()
        return jsonify(backend.predict(parse_predict_request(json_object())))

    @routes.post("/webhook")
    def webhook() -> ResponseReturnValue:
        # Events carry the secret header; START_TRAINING comes with Basic auth instead (PROTOCOL 4).
        if not has_secret() and not (credentials.passwords() and is_label_studio()):
            raise AccessDenied(f"expected the header {SECRET_HEADER} with this server's secret")
        body = request.get_data(cache=False)
        if not body:
            raise InputError("webhook: empty body, expected JSON with an action")
        return jsonify(event=backend.take_event(body)), 202

    return routes


def is_from_here() -> bool:
    """Whether a program on this machine asks, and no web page that is open on it.

    A page of another site can send a form to an address of this machine, and a name of its own can lead there: the
    first says so in its headers, the second in the name it asks for.
    """
    host = request.host.rpartition(":")[0] if not request.host.endswith("]") else request.host
    return (
        request.remote_addr in LOCAL_NAMES
        and (host or request.host).strip("[]") in LOCAL_NAMES
        and not any(
            name in request.headers for name in ("Origin", "Sec-Fetch-Site", "X-Forwarded-For", "Forwarded")
        )
    )
