"""Settings: read once, with secrets that nobody sees."""

from __future__ import annotations

import json
import logging
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from cytoloop.config import LOCAL_FILE, Settings, is_from_environment, read_local, write_local
from cytoloop.domain.errors import ConfigError
from cytoloop.log import configure_logging

SECRETS = {
    "CYTOLOOP_LABEL_STUDIO_TOKEN": "token-0f1e2d",
    "CYTOLOOP_BACKEND_PASSWORD": "password-3c4b5a",
    "CYTOLOOP_WEBHOOK_SECRET": "secret-697887",
}


def test_without_anything_said_there_are_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings.from_env({})
    assert settings == Settings(home=tmp_path / "cytoloop-home")
    assert not settings.home.exists()


def test_the_environment_wins_over_the_home(tmp_path: Path) -> None:
    write_local(tmp_path, {"label_studio_url": "http://one:1/", "label_studio_token": "a", "device": "cpu"})
    settings = Settings.from_env(
        {
            "CYTOLOOP_HOME": str(tmp_path),
            "CYTOLOOP_LABEL_STUDIO_URL": "https://two:2/studio/",
            "CYTOLOOP_DEVICE": "",
            "CYTOLOOP_LOG": "debug",
            "CYTOLOOP_API_TOKENS": "/etc/tokens",
        }
    )
    assert settings.need_label_studio() == ("https://two:2/studio", "a")
    assert (settings.device, settings.log_level, settings.api_tokens) == ("cpu", "DEBUG", Path("/etc/tokens"))


def test_a_secret_may_lie_in_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "webhook_secret"
    secret.write_text("from-a-file\n")
    write_local(tmp_path, {"webhook_secret": "from-the-home", "backend_password": "from-the-home"})
    environ = {"CYTOLOOP_WEBHOOK_SECRET_FILE": str(secret)}
    settings = Settings.from_env(environ, tmp_path)
    assert (settings.webhook_secret, settings.backend_password) == ("from-a-file", "from-the-home")
    direct = Settings.from_env({**environ, "CYTOLOOP_WEBHOOK_SECRET": "direct"}, tmp_path)
    assert direct.webhook_secret == "direct"
    assert is_from_environment("webhook_secret", environ)
    assert not is_from_environment("backend_password", environ)


def test_a_file_of_a_secret_that_cannot_be_read(tmp_path: Path) -> None:
    missing = tmp_path / "gone"
    with pytest.raises(ConfigError, match=rf"CYTOLOOP_WEBHOOK_SECRET_FILE is '{missing}': cannot be read"):
        Settings.from_env({"CYTOLOOP_WEBHOOK_SECRET_FILE": str(missing)}, tmp_path)
    missing.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read \\(not UTF-8\\)"):
        Settings.from_env({"CYTOLOOP_WEBHOOK_SECRET_FILE": str(missing)}, tmp_path)


def test_people_may_find_label_studio_at_another_address_than_programs(tmp_path: Path) -> None:
    environ = {"CYTOLOOP_LABEL_STUDIO_URL": "http://label-studio:8080", "CYTOLOOP_LABEL_STUDIO_TOKEN": "t"}
    assert Settings.from_env(environ, tmp_path).people_url() == "http://label-studio:8080"
    environ["CYTOLOOP_LABEL_STUDIO_PUBLIC_URL"] = "https://annotate.lab.org/"
    settings = Settings.from_env(environ, tmp_path)
    assert settings.people_url() == "https://annotate.lab.org"
    assert settings.need_label_studio()[0] == "http://label-studio:8080"


def test_a_given_home_wins_over_the_environment(tmp_path: Path) -> None:
    assert Settings.from_env({"CYTOLOOP_HOME": "/elsewhere"}, tmp_path).home == tmp_path


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("CYTOLOOP_DEVICE", "gpu", "auto, cpu, cuda"),
        ("CYTOLOOP_LOG", "LOUD", "DEBUG, INFO, WARNING, ERROR"),
        ("CYTOLOOP_LABEL_STUDIO_URL", "localhost:8080", "http://host:port"),
        ("CYTOLOOP_LABEL_STUDIO_URL", "ftp://host", "http://host:port"),
        ("CYTOLOOP_BACKEND_URL", "http://", "http://host:port"),
        ("CYTOLOOP_BACKEND_URL", "http://host:99999", "http://host:port"),
        ("CYTOLOOP_BACKEND_URL", "http://host:port", "http://host:port"),
        ("CYTOLOOP_BACKEND_URL", "http://[::1", "http://host:port"),
    ],
)
def test_an_error_names_variable_value_and_what_was_expected(
    tmp_path: Path, name: str, value: str, expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.from_env({name: value, **SECRETS}, tmp_path)
    assert str(caught.value).startswith(f"{name} is {value!r}, expected ")
    assert expected in str(caught.value)
    assert not any(secret in str(caught.value) for secret in SECRETS.values())


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    settings = Settings.from_env(SECRETS, tmp_path)
    assert (settings.label_studio_token, settings.backend_password, settings.webhook_secret) == tuple(
        SECRETS.values()
    )
    for text in (repr(settings), str(settings), f"{settings}"):
        assert not any(secret in text for secret in SECRETS.values())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"label_studio_token": "token-0f1e2d"', "not JSON"),
        ('["token-0f1e2d"]', "expected one JSON object of strings"),
        ('{"label_studio_token": {"token": "token-0f1e2d"}}', "expected one JSON object of strings"),
    ],
)
def test_a_damaged_local_file_is_named_without_its_secrets(
    tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / LOCAL_FILE).write_text(content)
    with pytest.raises(ConfigError, match=message) as caught:
        Settings.from_env({}, tmp_path)
    assert str(tmp_path / LOCAL_FILE) in str(caught.value)
    assert "0f1e2d" not in str(caught.value)


def test_a_home_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"local\.json: cannot be read \(Not a directory\)"):
        Settings.from_env({"CYTOLOOP_HOME": str(tmp_path / "file")})


@pytest.mark.parametrize("missing", ["label_studio_url", "label_studio_token"])
def test_what_is_not_set_is_named(tmp_path: Path, missing: str) -> None:
    both = {"label_studio_url": "http://host:1", "label_studio_token": "token-0f1e2d"}
    write_local(tmp_path, {k: v for k, v in both.items() if k != missing})
    with pytest.raises(ConfigError, match=f"CYTOLOOP_{missing.upper()} is not set") as caught:
        Settings.from_env({}, tmp_path).need_label_studio()
    assert "0f1e2d" not in str(caught.value)


def test_the_local_file_is_merged_and_for_its_owner_alone(tmp_path: Path) -> None:
    home = tmp_path / "new" / "home"
    write_local(home, {"a": "1", "b": "2"})
    (home / LOCAL_FILE).chmod(0o644)
    write_local(home, {"b": "3"})
    assert read_local(home) == {"a": "1", "b": "3"}
    assert stat.S_IMODE((home / LOCAL_FILE).stat().st_mode) == 0o600
    assert [path.name for path in home.iterdir()] == [LOCAL_FILE]
    json.loads((home / LOCAL_FILE).read_text())


def test_a_damaged_local_file_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / LOCAL_FILE).write_text("{")
    with pytest.raises(ConfigError):
        write_local(tmp_path, {"a": "1"})
    assert (tmp_path / LOCAL_FILE).read_text() == "{"
    assert [path.name for path in tmp_path.iterdir()] == [LOCAL_FILE]


# --- logging ---------------------------------------------------------------------------------------


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, given back with the handlers pytest put there."""
    logger = logging.getLogger()
    handlers, level = list(logger.handlers), logger.level
    logger.handlers = []
    yield logger
    for handler in logger.handlers:
        handler.close()
    logger.handlers, logger.level = handlers, level


def test_one_line_an_event_in_a_file_and_never_twice(
    tmp_path: Path, root: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        configure_logging("INFO", tmp_path / "logs" / "a.log")
    logging.getLogger("cytoloop.x").info("cycle done version=%s", "cdl-1")
    logging.getLogger("cytoloop.x").debug("details")
    logging.getLogger("httpx").info("a request with everything in it")
    assert len(root.handlers) == 2
    (line,) = (tmp_path / "logs" / "a.log").read_text().splitlines()
    assert line.endswith("INFO cytoloop.x cycle done version=cdl-1")
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("cycle done")) == ("", 1)
