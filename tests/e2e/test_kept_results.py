"""`result` and `X-Stoker-Keep-Result`: the answer of an ended async call, as it was, for as long as was asked."""

from __future__ import annotations

import json

import pytest
from running_platform import Answer, Platform, wait_for

from stoker_sdk.errors import BadInput, Conflict, NotFound, Unavailable
from stoker_sdk.messages import CallStatus

ANSWERS = """
import json, time

def handle(event, context):
    asked = json.loads(event.text or "{}")
    time.sleep(asked.get("seconds", 0))
    headers = {"Content-Type": "application/x-answer", "X-Own": "a,  b"}
    body = asked.get("text", "") * asked.get("times", 1)
    return {"statusCode": asked.get("status", 200), "headers": headers, "body": body}
"""
HOUR = {"X-Stoker-Keep-Result": "1h"}
LIMIT = 16 * 1024 * 1024


@pytest.fixture(scope="module")
def answers(platform: Platform) -> Platform:
    once = {"stoker.dev/retries": '{"max":0}'}
    platform.deploy("answers", ANSWERS, annotations=once)
    platform.deploy("kept", ANSWERS, annotations=once | {"stoker.dev/result": "2h"})
    return platform


def later(platform: Platform, name: str, headers: dict[str, str] | None = None, **asked: object) -> str:
    answer = platform.call_later(name, json.dumps(asked).encode(), headers=headers)
    assert answer.status == 202, answer
    return answer.headers["x-call-id"]


def ended(platform: Platform, id: str) -> CallStatus:
    def status() -> CallStatus | None:
        try:
            status = platform.client.call_status(id)
        except Unavailable:
            return None
        return status if status.state in ("done", "dead", "cancelled") else None

    return wait_for(status, f"the end of call {id}", 30)


def refused(answer: Answer, word: str) -> None:
    assert answer.status == 400 and answer.headers["x-stoker-error"] == "client; bad-header", answer
    assert word in answer.text and "X-Stoker-Keep-Result" in answer.text


def test_the_answer_is_there_when_the_call_is_done(answers: Platform) -> None:
    for name, headers in (("answers", HOUR), ("kept", None)):
        id = later(answers, name, headers, text="\0\xe9", status=201)
        assert ended(answers, id).result_until
        result = answers.client.call_result(id)
        assert (result.status, result.body, result.truncated) == (201, "\0\xe9".encode(), False)
        kept = {key.lower(): value for key, value in result.headers.items()}
        assert (kept["content-type"], kept["x-own"]) == ("application/x-answer", "a,  b")


def test_the_header_goes_before_the_functions_own_setting(answers: Platform) -> None:
    id = later(answers, "kept", {"X-Stoker-Keep-Result": "1s"}, text="short")
    assert ended(answers, id).state == "done"

    def is_gone() -> str:
        try:
            answers.client.call_result(id)
        except NotFound as error:
            return str(error)
        return ""

    assert "not kept any more" in wait_for(is_gone, "the end of what is kept")


def test_what_is_not_kept_says_why(answers: Platform) -> None:
    id = later(answers, "answers")
    ended(answers, id)
    with pytest.raises(NotFound, match="X-Stoker-Keep-Result"):
        answers.client.call_result(id)
    with pytest.raises(NotFound, match="no such call"):
        answers.client.call_result("never-was")
    running = later(answers, "kept", seconds=60)
    with pytest.raises(Conflict, match="not ended"):
        answers.client.call_result(running)
    answers.client.cancel_call(running)
    with pytest.raises(NotFound, match="cancelled"):
        answers.client.call_result(running)


def test_the_last_answer_of_a_dead_call_is_kept(answers: Platform) -> None:
    id = later(answers, "kept", status=503, text="no luck")
    assert ended(answers, id).state == "dead"
    result = answers.client.call_result(id)
    assert (result.status, result.body) == (503, b"no luck")


def test_a_large_answer_is_cut_and_says_so(answers: Platform) -> None:
    whole = later(answers, "kept", text="x", times=LIMIT)
    cut = later(answers, "kept", text="x", times=LIMIT + 1)
    for id, truncated in ((whole, False), (cut, True)):
        assert ended(answers, id).state == "done"
        result = answers.client.call_result(id)
        assert (len(result.body), result.truncated) == (LIMIT, truncated)


@pytest.mark.parametrize("text", ["soon", "0", "-1h", "0.5s", "8000h", "1h; 2h"])
def test_unusable_durations_are_refused(answers: Platform, text: str) -> None:
    refused(answers.call_later("answers", headers={"X-Stoker-Keep-Result": text}), "duration")


def test_unusable_settings_are_refused_at_the_deploy(answers: Platform) -> None:
    image = answers.status("answers").image
    for name, text in (("result", "for ever"), ("result", "9999h"), ("idempotent", "perhaps")):
        with pytest.raises(BadInput, match=name):
            answers.deploy_image("unusable", image, annotations={f"stoker.dev/{name}": text})


def test_results_outlive_a_kill_of_everything(own_platform: Platform) -> None:
    own_platform.deploy("kept", ANSWERS, annotations={"stoker.dev/result": "2h"})
    id = later(own_platform, "kept", text="lasting")
    ended(own_platform, id)
    own_platform.kill_everything()
    own_platform.start()
    assert wait_for(lambda: _body(own_platform, id), "the result") == b"lasting"


def _body(platform: Platform, id: str) -> bytes:
    try:
        return platform.client.call_result(id).body
    except Unavailable:
        return b""
