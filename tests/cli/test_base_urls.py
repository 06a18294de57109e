"""Which variables lead a program to the relay of ``unbroken exec``, and what becomes of what the user had set."""

from __future__ import annotations

from typing import Any

import pytest

from unbroken.cli.base_urls import VARIABLES, as_tables, child_environment, find_variables
from unbroken.cli.upstreams import find_upstreams
from unbroken.core.policy import Policy
from unbroken.core.providers import PROVIDERS
from unbroken.errors import UsageError
from unbroken.relay.settings import Settings

RELAY = "http://127.0.0.1:7"


@pytest.fixture(autouse=True)
def _no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.delenv("UNBROKEN_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


def redirected(*, named: dict[str, str] | None = None, **environ: str) -> tuple[dict[str, str], dict[str, str]]:
    """What the program is told, and where a request for ``/chat/completions`` below that arrives."""
    variables = find_variables(environ, named or {})
    upstreams = find_upstreams(named or {}, {}, redirected=as_tables(variables))
    child = child_environment(environ, RELAY, variables, upstreams)
    told = {one.variable: child[one.variable].removeprefix(RELAY) for one in variables}
    arrives = {}
    for variable, path in told.items():
        _, name, *rest = f"{path}/chat/completions".split("/")
        arrives[variable] = upstreams[name].url_of("/".join(rest))
    return told, arrives


def test_they_lead_to_the_relay_and_from_there_to_the_provider() -> None:
    told, arrives = redirected()
    assert told == {
        "OPENAI_BASE_URL": "/openai/v1",
        "OPENAI_API_BASE": "/openai/v1",
        "ANTHROPIC_BASE_URL": "/anthropic",
        "ANTHROPIC_API_BASE": "/anthropic",
        "GOOGLE_GEMINI_BASE_URL": "/google",
        "GEMINI_API_BASE": "/google/v1beta",
        "DEEPSEEK_BASE_URL": "/deepseek",
        "DEEPSEEK_API_BASE": "/deepseek/beta",
        "OPENROUTER_BASE_URL": "/openrouter/v1",
        "OPENROUTER_API_BASE": "/openrouter/v1",
        "GROQ_BASE_URL": "/groq",
        "MISTRAL_BASE_URL": "/mistral/v1",
        "TOGETHER_BASE_URL": "/together/v1",
        "TOGETHER_AI_API_BASE": "/together/v1",
        "XAI_API_BASE": "/xai/v1",
    }
    assert arrives["OPENAI_BASE_URL"] == "https://api.openai.com/v1/chat/completions"
    assert arrives["DEEPSEEK_API_BASE"] == "https://api.deepseek.com/beta/chat/completions"
    assert arrives["OPENROUTER_API_BASE"] == "https://openrouter.ai/api/v1/chat/completions"


def test_every_one_of_them_has_an_upstream() -> None:
    assert {upstream for upstream, path in VARIABLES.values() if path is not None} <= set(PROVIDERS)


@pytest.mark.parametrize("url", ["http://mine/v1", "http://mine/v1/", "http://mine/api/v3", "http://mine"])
@pytest.mark.parametrize("variable", ["OPENAI_BASE_URL", "OPENAI_API_BASE", "DEEPSEEK_BASE_URL", "ANTHROPIC_BASE_URL"])
def test_a_users_own_arrives_where_it_would_without_the_relay(variable: str, url: str) -> None:
    _, arrives = redirected(**{variable: url})
    assert arrives[variable] == f"{url.rstrip('/')}/chat/completions"


def test_one_of_them_holds_for_all_of_its_provider() -> None:
    """Whoever redirects a provider does not want its key to go to where it usually goes."""
    _, arrives = redirected(OPENAI_API_BASE="http://mine/api/v3")
    assert arrives["OPENAI_BASE_URL"] == arrives["OPENAI_API_BASE"] == "http://mine/api/v3/chat/completions"


def test_two_that_disagree_are_both_heeded() -> None:
    told, arrives = redirected(OPENAI_BASE_URL="http://one/v1", OPENAI_API_BASE="http://two/v1")
    assert told["OPENAI_BASE_URL"] == "/openai/v1"
    assert told["OPENAI_API_BASE"] == "/openai_api_base/v1"
    assert arrives["OPENAI_BASE_URL"] == "http://one/v1/chat/completions"
    assert arrives["OPENAI_API_BASE"] == "http://two/v1/chat/completions"


def test_two_that_say_the_same_in_their_own_words_agree() -> None:
    told, _ = redirected(ANTHROPIC_BASE_URL="http://one/v1", ANTHROPIC_API_BASE="http://one")
    assert told["ANTHROPIC_BASE_URL"] == "/anthropic/v1"
    assert told["ANTHROPIC_API_BASE"] == "/anthropic"


def test_where_programs_append_the_version_they_still_do() -> None:
    told, _ = redirected(GOOGLE_GEMINI_BASE_URL="http://mine", ANTHROPIC_BASE_URL="http://mine/v1")
    assert told["GEMINI_API_BASE"] == "/google/v1beta"
    assert told["ANTHROPIC_API_BASE"] == "/anthropic"


def test_azure_is_redirected_where_it_is_set() -> None:
    told, arrives = redirected(AZURE_OPENAI_ENDPOINT="https://me.openai.azure.com/")
    assert told["AZURE_OPENAI_ENDPOINT"] == "/azure"
    assert "AZURE_API_BASE" not in told
    assert arrives["AZURE_OPENAI_ENDPOINT"] == "https://me.openai.azure.com/chat/completions"


def test_the_command_line_is_nearer_than_a_variable() -> None:
    _, arrives = redirected(named={"openai": "http://flag/v1"}, OPENAI_BASE_URL="http://variable/v1")
    assert arrives["OPENAI_BASE_URL"] == arrives["OPENAI_API_BASE"] == "http://flag/v1/chat/completions"


def test_an_upstream_of_the_file_counts_where_no_variable_is_set(tmp_path: Any) -> None:
    (tmp_path / "unbroken").mkdir()
    (tmp_path / "unbroken" / "config.toml").write_text('[upstreams.openai]\nbase_url = "http://file/api"')
    assert redirected()[1]["OPENAI_API_BASE"] == "http://file/api/chat/completions"
    _, arrives = redirected(OPENAI_API_BASE="http://variable/v1")
    assert arrives["OPENAI_BASE_URL"] == "http://variable/v1/chat/completions"


@pytest.mark.parametrize("url", ["mine:8080/v1", "http://me:secret@mine/v1", "http://mine/v1?a=b"])
def test_what_is_no_base_url_is_named_by_its_variable(url: str) -> None:
    with pytest.raises(UsageError, match=r"^OPENAI_API_BASE: ") as caught:
        redirected(OPENAI_API_BASE=url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "lower", "upper"),
    [
        ({}, "127.0.0.1,localhost", "127.0.0.1,localhost"),
        ({"NO_PROXY": "a,b"}, "a,b,127.0.0.1,localhost", "a,b,127.0.0.1,localhost"),
        ({"no_proxy": "a", "NO_PROXY": "b"}, "a,127.0.0.1,localhost", "b,127.0.0.1,localhost"),
        ({"no_proxy": "*"}, "*", "*"),
    ],
)
def test_no_proxy_stands_before_the_relay(environ: dict[str, str], lower: str, upper: str) -> None:
    child = child_environment(environ, RELAY, [], {})
    assert (child["no_proxy"], child["NO_PROXY"]) == (lower, upper)


def test_the_rest_of_the_environment_is_left_alone() -> None:
    child = child_environment({"HTTPS_PROXY": "http://p:1", "OPENAI_API_KEY": "sk-1"}, RELAY, [], {})
    assert child["HTTPS_PROXY"] == "http://p:1"
    assert child["OPENAI_API_KEY"] == "sk-1"
    assert child["UNBROKEN_RELAY_URL"] == RELAY


@pytest.mark.parametrize(("name", "replays"), [("ollama", 8), ("llama.cpp", 8), ("openai", None)])
def test_a_local_model_is_replayed_more_often_unless_the_relay_is_told_otherwise(
    name: str, replays: int | None
) -> None:
    upstreams = find_upstreams({name: "http://127.0.0.1:9000/v1"}, {})
    for policy, expected in ((Policy(), replays), (Policy(replays=3), 3)):
        settings = Settings(upstreams=upstreams, policy=policy)
        assert settings.policy_for(upstreams[name]).replays == expected
