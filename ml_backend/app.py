"""The Flask application: wiring; routes are in ``ml_backend.routes``, errors in ``ml_backend.faults``."""

from __future__ import annotations

import functools
import os
import uuid

from flask import Flask, g

from cytoloop.adapters.assays import load_assay
from cytoloop.adapters.registry import Registry
from cytoloop.adapters.store import Store
from cytoloop.config import Settings
from cytoloop.domain.assay import Assay
from labelstudio_config.client import LabelStudioClient
from labelstudio_config.intake import Intake
from ml_backend.access import ApiTokens
from ml_backend.active_model import ActiveModel
from ml_backend.credentials import Request
from ml_backend.dashboard import Dashboard
from ml_backend.faults import explain, guard
from ml_backend.health import Health
from ml_backend.limits import use_limits
from ml_backend.metrics import Metrics
from ml_backend.routes import api, dashboard, health, label_studio
from ml_backend.service import Backend
from ml_backend.sessions import use_sessions
from ml_backend.tasks import Tasks


def create_app(settings: Settings | None = None, *, start: bool = True) -> Flask:
    """Wire the web process.

    Parameters
    ----------
    start : bool
        Start the background threads (applying events, computing missing predictions).
    """
    settings = settings or Settings.from_env(os.environ)
    url, token = settings.need_label_studio()
    settings.need_credentials()
    store = Store(settings.home)
    store.require_sound()

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
        settings.people_url(),
    )
    tokens = ApiTokens(settings.api_tokens)
    app = Flask("ml_backend")
    app.request_class = Request
    app.extensions["cytoloop"] = {"backend": backend, "store": store, "settings": settings}
    app.url_map.merge_slashes = (
        False  # a program that asks for //x is told that there is none, not sent elsewhere
    )
    app.before_request(_name_request)
    metrics = Metrics(store, load)
    metrics.watch(app)
    use_limits(app, settings.proxies)
    csrf = use_sessions(app, settings.home)
    app.register_blueprint(label_studio.blueprint(backend, settings))
    app.register_blueprint(api.blueprint(backend, Tasks(store, load), store, tokens, settings))
    app.register_blueprint(health.blueprint(store, tokens, Health(store), metrics))
    app.register_blueprint(
        dashboard.blueprint(
            backend, Dashboard(store, load, settings.people_url()), store, tokens, settings, csrf
        )
    )
    app.after_request(guard)
    app.register_error_handler(Exception, explain)
    if start:
        backend.start()
    return app


def _name_request() -> None:
    g.request_id = uuid.uuid4().hex[:12]
