"""What a commit shows, what is hidden, and when GitHub is asked again."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest

from stoker_builder.pipeline.github.api import pause_of
from stoker_builder.pipeline.github.connection import Connections, GitHubSettings, read_owners, web_url
from stoker_builder.pipeline.github.texts import MARK, MAX_TEXT, log_tail, preview_comment
from stoker_builder.pipeline.reports import MAX_DESCRIPTION, verdicts
from stoker_sdk.data_dir import DataDir
from stoker_sdk.errors import BadInput, StokerError
from stoker_sdk.github_app import GitHubApp, store_app, stored_app
from stoker_sdk.runs import FunctionResult, Push, Run, RunLine

LOG = "https://host/ui/runs/7"
SHA = "3f2a1b0" + "0" * 33


def run(state: str, *functions: FunctionResult, reason: str = "", pull: int = 0) -> Run:
    push = Push("github", "Ada", "Greet", "main", SHA, pull=pull)
    return Run(7, push, state, reason, functions=list(functions))


def rows(told: Run) -> dict[str, tuple[str, str, str]]:
    return {each.context: (each.state, each.description, each.url) for each in verdicts(told, LOG)}


def test_from_pending_to_success_with_the_url() -> None:
    assert rows(run("queued")) == {"stoker": ("pending", "run 7 waits for its turn", LOG)}
    going = [FunctionResult("greet", state=state) for state in ("waiting", "building", "deploying")]
    assert {str(rows(run("running", each))["stoker/greet"]) for each in going} == {str(("pending", "on its way", LOG))}
    live = FunctionResult("greet", state="deployed", url="https://ada.host/greet")
    assert rows(run("succeeded", live)) == {
        "stoker": ("success", "live: greet", "https://ada.host/greet"),
        "stoker/greet": ("success", "live", "https://ada.host/greet"),
    }


def test_a_failure_says_why_and_leads_to_the_log() -> None:
    failed = FunctionResult("greet", state="failed", reason="test failed: handler_test.py::test_it")
    waiting = FunctionResult("wave")
    shown = rows(run("failed", failed, waiting, reason="greet: test failed: handler_test.py::test_it"))
    assert shown["stoker/greet"] == ("failure", "test failed: handler_test.py::test_it", LOG)
    assert shown["stoker/wave"][0] == "failure" and shown["stoker"][0] == "failure"


@pytest.mark.parametrize(("state", "shown"), [("superseded", "skipped"), ("cancelled", "cancelled")])
def test_nothing_stays_pending_when_a_run_has_ended(state: str, shown: str) -> None:
    told = rows(run(state, FunctionResult("greet", state="building"), reason="main is at abc now"))
    assert {each[0] for each in told.values()} == {shown}


def test_what_was_removed_has_no_line_and_a_preview_has_names_of_its_own() -> None:
    gone = FunctionResult("old", state="removed")
    assert set(rows(run("succeeded", gone))) == {"stoker"}
    assert set(rows(run("succeeded", FunctionResult("a", state="unchanged"), pull=3))) == {
        "stoker preview",
        "stoker preview/a",
    }


def test_descriptions_are_one_short_line() -> None:
    text = rows(run("failed", reason="a\nb\x1b[1m" + "c" * 500))["stoker"][1]
    assert len(text) == MAX_DESCRIPTION and "\n" not in text and "\x1b" not in text


def test_a_logs_tail_is_cut_at_the_front_and_fenced() -> None:
    lines = [RunLine("t", f"{number}: ``` {'x' * 100}", "greet") for number in range(2000)]
    text = log_tail([*lines, RunLine("t", "another's", "wave")], "greet", [])
    assert len(text.encode()) <= 65_535 and len(text) > MAX_TEXT * 0.9
    assert text.startswith("````text\n(earlier lines are left out)\n") and text.endswith("x\n````")
    assert "1999: ```" in text and "another's" not in text and "\n0: " not in text
    assert log_tail([], "", []) == ""


def test_secrets_are_hidden_in_every_form() -> None:
    secret = "s3cr/t+value"
    forms = [secret, base64.b64encode(secret.encode()).decode(), "s3cr%2Ft%2Bvalue"]
    others = ["ghs_" + "a1" * 18, "github_pat_" + "b2" * 20, "-----BEGIN RSA PRIVATE KEY-----"]
    text = log_tail([RunLine("t", " ".join([*forms, *others, "the rest"]))], "", [secret, ""])
    assert not any(form in text for form in [*forms, *others])
    assert "the rest" in text


def test_a_comment_holds_nothing_that_strangers_can_use() -> None:
    hostile = FunctionResult("greet", state="failed", reason="](javascript:x) <img src=x> | @everyone `a` #1")
    text = preview_comment(run("failed", hostile, reason="<script> `` @all", pull=3), LOG)
    assert text.startswith(MARK)
    body = re.sub(r"`[^`\n]*`", "", text.removeprefix(MARK).replace(f"([log]({LOG}))", ""))
    assert not any(bad in body for bad in ("<", "](", "@", "`", "#1"))  # all that is code, where nothing counts
    assert r"\| @everyone 'a' #1` |" in text


def test_how_long_github_is_left_alone() -> None:
    assert pause_of({"retry-after": "30"}, 0) == 30
    assert pause_of({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1090"}, 1000) == 90
    assert pause_of({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "10"}, 1000) == 1
    assert pause_of({"retry-after": "10000000"}, 0) == 3600
    for odd in ({}, {"retry-after": "soon"}, {"x-ratelimit-remaining": "0"}):
        assert pause_of(odd, 0) == 60


def test_where_repositories_are_cloned_from() -> None:
    assert web_url("https://api.github.com") == "https://github.com"
    assert web_url("https://git.example.org/api/v3") == "https://git.example.org"
    assert web_url("http://127.0.0.1:80/api/v3") == "http://127.0.0.1:80"
    for bad in ("ext::sh", "file:///x", "https://", "https://user@host/api/v3", "-x"):
        with pytest.raises(BadInput):
            web_url(bad)


def test_owners_are_read_again_and_a_broken_list_changes_nothing(tmp_path: Path) -> None:
    assert read_owners("Ada # me\n\n# nobody\neve-2\n") == {"ada", "eve-2"}
    with pytest.raises(BadInput, match="line 2"):
        read_owners("ada\n--help\n")
    file = tmp_path / "owners"
    connections = Connections(GitHubSettings(owners_file=str(file)), DataDir(tmp_path))
    assert not connections.allows("ada")
    file.write_text("Ada\n")
    assert connections.allows("aDA") and not connections.allows("eve")
    file.write_text("Ada\n??\nEve\n")
    assert connections.allows("ada") and not connections.allows("eve")
    file.unlink()
    assert connections.allows("ada")


def test_an_app_is_stored_encrypted_and_taken_up(tmp_path: Path) -> None:
    data = DataDir(tmp_path)
    connections = Connections(GitHubSettings(), data)
    app = GitHubApp(5, "stoker", "-----BEGIN", "hush", "https://github.com/apps/stoker")
    with pytest.raises(StokerError, match="stoker serve"):
        store_app(data, app)
    data.key.write_bytes(base64.urlsafe_b64encode(b"k" * 32))
    assert connections.current is None and stored_app(data) is None
    store_app(data, app)
    assert b"hush" not in data.github_app.read_bytes() and "hush" not in repr(app)
    current = connections.current
    assert current is not None and (current.app_id, current.secrets, current.is_app) == ("5", (b"hush",), True)
    assert "hush" not in repr(current) and "BEGIN" not in repr(current)
    data.key.write_bytes(base64.urlsafe_b64encode(b"x" * 32))
    with pytest.raises(StokerError, match="github setup"):
        stored_app(data)


def test_files_that_are_changed_are_read_again(tmp_path: Path) -> None:
    secret, token = tmp_path / "secret", tmp_path / "token"
    secret.write_text("one\n")
    token.write_text("ghp_1\n")
    connections = Connections(GitHubSettings(token_file=str(token), webhook_secret_file=str(secret)), DataDir(tmp_path))
    first = connections.current
    assert first is not None and first.secrets == (b"one",) and connections.current is first
    secret.write_text("two\none\n")
    second = connections.current
    assert second is not None and second.secrets == (b"two", b"one")
    token.unlink()
    with pytest.raises(StokerError, match="token"):
        _ = connections.current
