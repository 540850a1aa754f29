"""Further experts of a running Label Studio, each with an own login."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from labelstudio_config.client import LabelStudioClient


@dataclass(frozen=True)
class Person:
    """A user of the same organization as the administrator, and a client that speaks as this user."""

    id: int
    email: str
    password: str
    client: LabelStudioClient


def sign_up(admin: LabelStudioClient, email: str, password: str) -> Person:
    """Join by the administrator's invitation, as a browser does; close the ``client`` after use."""
    invitation = admin._connection.call("GET", "/api/invite")["invite_url"]
    joined = re.search(r"token=([^&]+)", invitation)
    assert joined is not None
    with httpx.Client(base_url=admin.base_url, timeout=60, follow_redirects=True) as browser:
        form = f"/user/signup/?token={joined[1]}"
        browser.get(form).raise_for_status()
        given = {"email": email, "password": password, "allow_newsletters": "false"}
        given["csrfmiddlewaretoken"] = browser.cookies["csrftoken"]
        browser.post(form, data=given, headers={"Referer": admin.base_url}).raise_for_status()
        token = browser.get("/api/current-user/token").json()["token"]
    client = LabelStudioClient(admin.base_url, token, timeout_s=60.0)
    return Person(client.whoami()["id"], email, password, client)


def open_stream(admin: LabelStudioClient, project: int, view_id: int, person: Person) -> Callable[[], Any]:
    """Load the page of a tab's label stream: a function that asks for the next task as that page does.

    None where nothing is left. As the page was seen to: the tab's filters are those of now for good.
    """
    view = next(view for view in admin.list_views(project) if view["id"] == view_id)["data"]
    columns = admin._connection.call("GET", "/api/dm/columns/", params={"project": project})["columns"]
    body = {
        "project": str(project),
        "ordering": view["ordering"],
        "selectedItems": {"all": False, "included": []},
        "filters": {
            "conjunction": "and",
            "items": [
                dict(item, type="Unknown")
                for item in view["filters"]["items"]
                if _is_known(item["filter"], columns)
            ],
        },
    }

    def next_task() -> Any:
        got = httpx.post(
            f"{admin.base_url}/api/dm/actions",
            params={"id": "next_task", "project": project, "tabID": view_id},
            json=body,
            headers={"Authorization": f"Token {person.client._connection._token}"},
            timeout=60,
            trust_env=False,
        )
        return None if got.status_code == 404 else got.raise_for_status().json()

    return next_task


def _is_known(name: str, columns: list[dict[str, Any]]) -> bool:
    """The page drops a filter whose column no task of the project has."""
    if not name.startswith("filter:tasks:data."):
        return True
    return any(c["parent"] == "data" and name.endswith(f".{c['id']}") for c in columns)


def sign_off(admin: LabelStudioClient, person: Person) -> None:
    """Delete the user, so that other tests find the organization as it was."""
    person.client.close()
    admin._connection.call("DELETE", f"/api/users/{person.id}/")
