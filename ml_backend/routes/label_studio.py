"""The routes Label Studio calls: /health /setup /versions /predict /webhook."""

from __future__ import annotations

from flask import Blueprint, jsonify, request
from flask.typing import ResponseReturnValue

from cytoloop.config import Settings
from cytoloop.domain.errors import AccessDenied, InputError
from labelstudio_config.payloads import parse_predict_request, parse_project
from labelstudio_config.project import SECRET_HEADER
from ml_backend.access import same_secret
from ml_backend.service import Backend


def blueprint(backend: Backend, settings: Settings) -> Blueprint:
    """Routes over the use cases; Basic auth where a password is set."""
    routes = Blueprint("label_studio", __name__)

    def is_label_studio() -> bool:
        if settings.backend_password is None:
            return True
        given = request.authorization
        return (
            given is not None
            and given.type == "basic"
            and same_secret(given.username, settings.backend_user)
            and same_secret(given.password, settings.backend_password)
        )

    def need_label_studio() -> None:
        if not is_label_studio():
            raise AccessDenied(
                "expected Label Studio's Basic credentials (CYTOLOOP_BACKEND_USER, …_PASSWORD)"
            )

    @routes.get("/health")
    def health() -> ResponseReturnValue:
        need_label_studio()
        return jsonify(status="UP", model_class="cytoloop")

    @routes.post("/setup")
    def setup() -> ResponseReturnValue:
        need_label_studio()
        body = _json_object()
        project_id = parse_project(body.get("project"), "setup: project")
        return jsonify(model_version=backend.set_up(project_id, str(body.get("schema") or "")))

    @routes.get("/versions")
    def versions() -> ResponseReturnValue:
        need_label_studio()
        return jsonify(versions=backend.versions())

    @routes.post("/predict")
    def predict() -> ResponseReturnValue:
        need_label_studio()
        return jsonify(backend.predict(parse_predict_request(_json_object())))

    @routes.post("/webhook")
    def webhook() -> ResponseReturnValue:
        # Events carry the secret header; START_TRAINING comes with Basic auth instead (PROTOCOL 4).
        secret = settings.webhook_secret
        has_secret = secret is None or same_secret(request.headers.get(SECRET_HEADER), secret)
        if not has_secret and not (settings.backend_password is not None and is_label_studio()):
            raise AccessDenied(f"expected the header {SECRET_HEADER} with this server's secret")
        body = request.get_data(cache=False)
        if not body:
            raise InputError("webhook: empty body, expected JSON with an action")
        return jsonify(event=backend.take_event(body)), 202

    return routes


def _json_object() -> dict[str, object]:
    body = request.get_json(force=True, silent=True)
    if not isinstance(body, dict):
        raise InputError(f"{request.path}: got {type(body).__name__}, expected a JSON object")
    return body
