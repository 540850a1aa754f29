"""What a request proves itself with, whatever its header holds."""

from __future__ import annotations

import flask
from werkzeug.datastructures import Authorization


class Request(flask.Request):
    """A request whose ``Authorization`` is None where it cannot be read: then nobody has proved anything."""

    @property
    def authorization(self) -> Authorization | None:
        """The header, taken apart; None without one, or if it is none."""
        try:
            return Authorization.from_header(self.headers.get("Authorization"))
        except (
            ValueError
        ):  # the library's, of a name and password that are not Base64 but hold letters like ä
            return None
