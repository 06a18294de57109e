"""Who is asked, and with which key."""

from __future__ import annotations

from typing import Any

import pytest

from unbroken.cli.provider_selection import select_provider
from unbroken.client import PROVIDERS
from unbroken.errors import UsageError

STORED = {"provider": "deepseek", "model": "deepseek-reasoner", "api_key": "sk-file"}


def who(
    *,
    file: dict[str, Any] | None = None,
    env: dict[str, Any] | None = None,
    flags: dict[str, Any] | None = None,
    **environ: str,
) -> dict[str, Any]:
    found = select_provider((file or {}, env or {}, flags or {}), environ)
    return {key: value for key, value in found.items() if value is not None}


def test_the_file_alone() -> None:
    assert who(file=STORED) == STORED


@pytest.mark.parametrize("nearer", ["env", "flags"])
@pytest.mark.parametrize("other", [{"provider": "openai"}, {"base_url": "http://x/v1"}])
def test_another_provider_or_url_takes_nothing_that_belongs_to_the_files(nearer: str, other: dict[str, str]) -> None:
    file = STORED | {"api_key_env": "MINE"}
    assert (who(file=file, env=other) if nearer == "env" else who(file=file, flags=other)) == other


@pytest.mark.parametrize("same", [{"provider": "deepseek"}, {"model": "deepseek-chat"}])
def test_a_nearer_source_that_names_nobody_else_leaves_the_key(same: dict[str, str]) -> None:
    assert who(file=STORED, flags=same) == STORED | same


def test_a_url_of_the_flags_takes_no_key_of_a_provider_of_the_environment() -> None:
    assert who(env={"provider": "deepseek"}, flags={"base_url": "http://x/v1"}) == {"base_url": "http://x/v1"}


def test_what_names_nobody_in_a_farther_source_goes_with_anybody() -> None:
    assert who(env={"model": "m"}, flags={"provider": "groq"}) == {"model": "m", "provider": "groq"}


def test_flags_win_over_the_environment_and_that_over_the_file() -> None:
    assert who(file={"model": "a"}, env={"model": "b"}, flags={"model": "c"}) == {"model": "c"}
    assert who(file={"model": "a"}, env={"model": "b"}) == {"model": "b"}


def test_empty_settings_say_nothing() -> None:
    assert who(file=STORED, env={"provider": ""}, flags={"base_url": ""}) == STORED


def test_the_environments_key_wins_over_the_files() -> None:
    assert "api_key" not in who(file=STORED, DEEPSEEK_API_KEY="sk-env")
    assert "api_key" not in who(file=STORED, flags={"api_key_env": "OTHER"}, OTHER="sk-other")


def test_a_variable_that_a_flag_names_wins_over_the_files_key_even_if_it_is_not_set() -> None:
    assert "api_key" not in who(file=STORED, flags={"api_key_env": "OTHER"})


def test_the_files_key_does_not_follow_where_the_environment_redirects_its_provider() -> None:
    assert "api_key" not in who(file=STORED, DEEPSEEK_BASE_URL="http://elsewhere/v1")
    own = STORED | {"base_url": "http://mine/v1"}
    assert who(file=own, DEEPSEEK_BASE_URL="http://elsewhere/v1") == own


@pytest.mark.parametrize("name", ["sk-1234", "MY KEY", "1ST"])
def test_a_key_in_place_of_a_variables_name_is_refused_and_not_shown(name: str) -> None:
    with pytest.raises(UsageError, match="takes the name of an environment variable") as caught:
        who(flags={"api_key_env": name, "provider": "openai"})
    assert name not in str(caught.value)


def test_a_variable_needs_somebody_whose_key_it_holds() -> None:
    with pytest.raises(UsageError, match="whose key is in MINE"):
        who(flags={"api_key_env": "MINE"})


def test_the_presets_of_the_help_are_the_clients() -> None:
    from unbroken.cli.run import PRESETS

    assert tuple(PROVIDERS) == PRESETS
