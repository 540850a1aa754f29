"""The pages for people: the dashboard, its forms, reports, and the login."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from flask import Blueprint, Response, flash, redirect, render_template, request, send_file, url_for
from flask.blueprints import BlueprintSetupState
from flask.typing import ResponseReturnValue
from flask_wtf.csrf import CSRFProtect  # type: ignore[import-untyped]
from jinja2 import StrictUndefined

from cytoloop.adapters.store import Store
from cytoloop.config import Settings
from cytoloop.domain.errors import AccessDenied, ConfigError, InputError
from cytoloop.domain.queue_policy import QueuePolicy
from ml_backend.access import ApiTokens, Caller
from ml_backend.asking import ask_promotion, ask_rollback, ask_training, call_off
from ml_backend.dashboard import Dashboard, words
from ml_backend.dashboard.chart import chart_of
from ml_backend.dashboard.queue_form import GROUPS, document_of, key_of, typed
from ml_backend.faults import REPORT_POLICY
from ml_backend.reports import report_file
from ml_backend.routes.endpoints import given_token
from ml_backend.service import Backend
from ml_backend.sessions import log_in, log_out, logged_in, own_path

REFRESH_S = 10
"""While a cycle waits or runs."""


def blueprint(
    backend: Backend,
    dashboard: Dashboard,
    store: Store,
    tokens: ApiTokens,
    settings: Settings,
    csrf: CSRFProtect,
) -> Blueprint:
    """Routes over the use cases; a session says who looks."""
    routes = Blueprint("dashboard", __name__)
    routes.record_once(_strict)
    routes.before_request(csrf.protect)

    def visitor() -> Caller:
        who = logged_in(tokens)
        if who is None:
            raise AccessDenied("expected a session; log in at /login with a token of this server")
        return who

    @routes.get("/")
    def home() -> ResponseReturnValue:
        who, now = visitor(), datetime.now().astimezone()
        overview = dashboard.overview(who, now)
        return _page(
            "dashboard.html",
            who,
            now,
            overview=overview,
            refresh=REFRESH_S if overview.is_busy else None,
            chart_of=chart_of,
        )

    # --- in and out --------------------------------------------------------------------------------

    @routes.get("/login")
    def login() -> ResponseReturnValue:
        wanted = own_path(request.args.get("next"))
        if logged_in(tokens) is not None:
            return redirect(wanted)
        return render_template("login.html", wanted=wanted, error=None)

    @routes.post("/login")
    def enter() -> ResponseReturnValue:
        wanted = own_path(request.form.get("next"))
        try:
            log_in(tokens, request.form.get("token", ""))
        except AccessDenied as error:
            return render_template("login.html", wanted=wanted, error=str(error)), error.http_status
        return redirect(wanted, 303)

    @routes.post("/logout")
    def leave() -> ResponseReturnValue:
        log_out()
        return redirect(url_for(".login"), 303)

    # --- what is asked of the trainer -----------------------------------------------------------------

    def asked(told: str) -> ResponseReturnValue:
        flash(told)
        return redirect(url_for(".home"), 303)

    @routes.post("/cycles")
    def train() -> ResponseReturnValue:
        row = ask_training(store, visitor(), request.form.get("assay"))
        return asked(f"A training of {row['assay']} is asked for; the trainer begins within a minute.")

    @routes.post("/cycles/<cycle_id>/cancel")
    def cancel(cycle_id: str) -> ResponseReturnValue:
        row = call_off(store, visitor(), cycle_id)
        over = "is called off." if row["state"] == "failed" else "ends at its next step."
        return asked(f"Cycle {cycle_id} {over}")

    @routes.post("/models/<version>/promote")
    def promote(version: str) -> ResponseReturnValue:
        row = ask_promotion(store, visitor(), version)
        return asked(f"{row['target']} is to come into use; the trainer begins within a minute.")

    @routes.post("/models/rollback")
    def roll_back() -> ResponseReturnValue:
        form = request.form
        row = ask_rollback(store, visitor(), form.get("assay"), form.get("version"))
        return asked(f"Going back to {row['target']} is asked for; the trainer begins within a minute.")

    # --- settings of a queue ---------------------------------------------------------------------------

    def queue_page(who: Caller, name: str, values: dict[str, str], error: str | None) -> str:
        return _page(
            "queue.html",
            who,
            datetime.now().astimezone(),
            queue=name,
            groups=GROUPS,
            values=values,
            error=error,
            wrong=key_of(error or ""),
        )

    @routes.get("/queues/<path:name>")
    def queue(name: str) -> ResponseReturnValue:
        who = visitor()
        who.check_may("set queues")
        known, error = backend.queue_named(name), None
        try:
            policy = QueuePolicy.from_document(backend.queue(known)["policy"], known)
        except ConfigError as wrong:  # set by another version of cytoloop: here it can be mended
            policy, error = QueuePolicy(), f"{wrong}. What is shown are the defaults."
        return queue_page(who, known, typed(policy), error)

    @routes.post("/queues/<path:name>")
    def set_queue(name: str) -> ResponseReturnValue:
        who = visitor()
        who.check_may("set queues")
        known = backend.queue_named(name)
        try:
            backend.set_queue(known, document_of(request.form, f"queue {known!r}"))
        except InputError as error:
            return queue_page(who, known, dict(request.form.items()), str(error)), error.http_status
        flash(f"Saved. The next batch of {known} is made by it; what experts hold now stays with them.")
        return redirect(url_for(".queue", name=known), 303)

    # --- reports ---------------------------------------------------------------------------------------

    @routes.get("/reports/<cycle_id>")
    def report(cycle_id: str) -> ResponseReturnValue:
        if logged_in(tokens) is None:
            tokens.caller(given_token())  # a script's, or of a link that was opened with name and password
        response: Response = send_file(report_file(store, settings.home, cycle_id, "report.html"))
        response.headers["Content-Security-Policy"] = REPORT_POLICY
        return response

    return routes


def _strict(state: BlueprintSetupState) -> None:
    """A name that a template has wrong is our bug, and no empty place on the page."""
    state.app.jinja_env.undefined = StrictUndefined
    state.app.jinja_env.trim_blocks = True
    state.app.jinja_env.lstrip_blocks = True


def _page(template: str, who: Caller, now: datetime, **values: Any) -> str:
    return render_template(
        template,
        who=who,
        words=words,
        moment=lambda when: words.moment(when, now),
        zone=now.tzname(),
        **values,
    )
