"""Where settings come from."""

from pathlib import Path

import pytest

from trainvitals.app.settings import Settings, SettingsError


def test_an_option_wins_over_the_environment_and_that_over_the_default():
    environ = {"TRAINVITALS_PORT": "8000", "TRAINVITALS_WORKERS": "3"}
    settings = Settings.from_env(environ=environ, port=9000, host=None)
    assert (settings.port, settings.workers, settings.host) == (9000, 3, "127.0.0.1")


def test_a_child_process_gets_the_same_settings():
    settings = Settings(
        database=Path("/x/y.db"), allowed_hosts=("a", "b"), token="t", port=1, base_url="https://x"
    )
    assert Settings.from_env(environ=settings.to_env()) == settings


def test_a_secret_may_lie_in_a_file(tmp_path):
    file = tmp_path / "token"
    file.write_text("s3cret\n")
    assert Settings.from_env(environ={"TRAINVITALS_TOKEN_FILE": str(file)}).token == "s3cret"
    with pytest.raises(SettingsError, match="TRAINVITALS_TOKEN_FILE"):
        Settings.from_env(environ={"TRAINVITALS_TOKEN_FILE": str(tmp_path / "none")})


@pytest.mark.parametrize(
    "environ",
    [
        {"TRAINVITALS_PORT": "many"},
        {"TRAINVITALS_PORT": "-1"},
        {"TRAINVITALS_THREADS": "0"},
        {"TRAINVITALS_BASE_URL": "example.org"},
        {"TRAINVITALS_WEBHOOK_URL": "http://[bad"},
        {"TRAINVITALS_TOKEN": "two words"},
    ],
)
def test_a_value_that_can_not_work_is_named(environ):
    (name,) = environ
    with pytest.raises(SettingsError, match=f"(?i){name.removeprefix('TRAINVITALS_')}"):
        Settings.from_env(environ=environ)


def test_secrets_are_not_shown():
    settings = Settings(token="one", read_token="two", slack_webhook="https://x/three")
    assert not any(secret in repr(settings) for secret in ("one", "two", "three"))


@pytest.mark.parametrize(
    ("settings", "base"),
    [
        ({}, "http://127.0.0.1:7070"),
        ({"host": "::1", "port": 1}, "http://[::1]:1"),
        ({"base_url": "https://vitals.example/"}, "https://vitals.example"),
    ],
)
def test_links_start_with_the_address_that_people_use(settings, base):
    assert Settings(**settings).link_base == base
