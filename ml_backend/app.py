"""The Flask application: wiring and error handling; routes are in ``ml_backend.routes``."""

from __future__ import annotations

import functools
import logging
import os
import uuid

from flask import Flask, g, jsonify, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

from cytoloop.adapters.assays import load_assay
from cytoloop.adapters.registry import Registry
from cytoloop.adapters.store import Store
from cytoloop.config import Settings
from cytoloop.domain.assay import Assay
from cytoloop.domain.errors import AccessDenied, CytoloopError
from labelstudio_config.client import LabelStudioClient
from labelstudio_config.intake import Intake
from ml_backend.access import ApiTokens
from ml_backend.active_model import ActiveModel
from ml_backend.routes import api, label_studio
from ml_backend.service import Backend

logger = logging.getLogger(__name__)

MAX_BODY = 256 * 1024 * 1024
"""Label Studio sends every stored mask of every task it asks about."""


def create_app(settings: Settings | None = None, *, start: bool = True) -> Flask:
    """Wire the web process.

    Parameters
    ----------
    start : bool
        Start the background threads (applying events, computing missing predictions).
    """
    settings = settings or Settings.from_env(os.environ)
    url, token = settings.need_label_studio()
    store = Store(settings.home)

    @functools.cache
    def load(name: str) -> Assay:
        return load_assay(name, [settings.home / "assays"])

    client = LabelStudioClient(url, token)
    backend = Backend(
        store,
        ActiveModel(store, Registry(settings.home / "models"), settings.device),
        Intake(store, client, load),
        load,
        client,
        url,
    )
    app = Flask("ml_backend")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.extensions["cytoloop"] = {"backend": backend, "store": store, "settings": settings}
    app.register_blueprint(label_studio.blueprint(backend, settings))
    app.register_blueprint(api.blueprint(backend, store, ApiTokens(settings.api_tokens), settings))
    app.before_request(_name_request)
    app.register_error_handler(Exception, _explain)
    if start:
        backend.start()
    return app


def _name_request() -> None:
    g.request_id = uuid.uuid4().hex[:12]


def _explain(error: Exception) -> ResponseReturnValue:
    """One translation of every error: a message and a request id, never a traceback."""
    request_id = g.get("request_id", "")
    if isinstance(error, CytoloopError):
        logger.info("refused %s %s request=%s: %s", request.method, request.path, request_id, error)
        response = jsonify(error=str(error), request_id=request_id)
        if isinstance(error, AccessDenied):
            response.headers["WWW-Authenticate"] = 'Basic realm="cytoloop"'
        return response, error.http_status
    if isinstance(error, HTTPException):
        return jsonify(error=error.description, request_id=request_id), error.code or 500
    logger.exception("bug in %s %s request=%s", request.method, request.path, request_id)
    return jsonify(error="an error of ours; the log has it under this id", request_id=request_id), 500
