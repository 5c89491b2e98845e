"""`stoker dev`, the real command: what is saved is what answers, what is broken is told, and nothing is left behind."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from debug_client import DebugClient
from running_dev import Dev
from running_platform import Platform, wait_for

pytestmark = pytest.mark.slow


def answering(text: str) -> str:
    return f"def handle(event, context):\n    return {text!r}\n"


MakeDev = Callable[..., Dev]


@pytest.fixture
def make_dev(platform: Platform) -> Iterator[MakeDev]:
    made: list[Dev] = []

    def make(functions: dict[str, str], **settings: Any) -> Dev:
        made.append(Dev(functions, like=platform, **settings))
        return made[-1]

    yield make
    for dev in made:
        print(dev.printed)  # pytest shows it where a test has failed
        dev.delete()


def test_a_save_answers_and_a_broken_one_is_told_while_the_code_before_it_serves(make_dev: MakeDev) -> None:
    dev = make_dev({"greet": answering("one")}).start()
    assert dev.call("greet").body == b"one"
    dev.save("greet/handler.py", answering("two"))
    dev.wait_for_answer("greet", b"two")

    dev.save("greet/handler.py", "def handle(event, context):\n    return 'three\n")
    dev.wait_for_text("[greet] greet/handler.py:2: unterminated string literal")
    dev.wait_for_text("the code before it goes on serving")
    assert dev.call("greet").body == b"two"

    dev.save("greet/handler.py", "import no_such_package\n" + answering("four"))
    dev.wait_for_text("it did not start: the handler cannot be imported: No module named 'no_such_package'")
    # The traceback names the developer's file, not the copy that runs.
    dev.wait_for_text('[greet]   File "greet/handler.py", line 1, in <module>')
    assert dev.call("greet").body == b"two"

    dev.save("greet/handler.py", answering("five"))
    dev.wait_for_answer("greet", b"five")
    assert dev.stop() == 0


def test_editors_save_in_many_ways(make_dev: MakeDev) -> None:
    handler = "from . import words\n\ndef handle(event, context):\n    return words.WORD\n"
    dev = make_dev({"greet": handler})
    dev.save("greet/words.py", "WORD = 'one'\n")
    dev.start()
    folder = dev.project / "greet"

    (folder / "words.py").write_text("WORD = 'in place'\n")
    dev.wait_for_answer("greet", b"in place")

    (folder / "words.py~").write_text("WORD = 'backup'\n")
    (folder / "words.py").rename(folder / "words.bak")
    (folder / "words.py").write_text("WORD = 'old one moved away'\n")
    dev.wait_for_answer("greet", b"old one moved away")

    # Several files at once, one of them new, one gone.
    (folder / "more").mkdir()
    (folder / "more" / "__init__.py").write_text("WORD = 'several files'\n")
    (folder / "words.py").unlink()
    (folder / "handler.py").write_text(handler.replace("from . import words", "from . import more as words"))
    dev.wait_for_answer("greet", b"several files")

    (folder / "more" / "__init__.py").write_text("WORD = 'in a new folder'\n")
    dev.wait_for_answer("greet", b"in a new folder")

    # Another branch is checked out: the folder itself is another one.
    shutil.copytree(folder, dev.project / "other")
    (dev.project / "other/more/__init__.py").write_text("WORD = 'another folder'\n")
    folder.rename(dev.project / "away")
    (dev.project / "other").rename(folder)
    dev.wait_for_answer("greet", b"another folder")
    (folder / "more" / "__init__.py").write_text("WORD = 'and saved in there'\n")
    dev.wait_for_answer("greet", b"and saved in there")


def test_the_stack_file_is_followed_while_it_runs(make_dev: MakeDev) -> None:
    handler = "import os\n\ndef handle(event, context):\n    return os.environ.get('WORD', 'none')\n"
    dev = make_dev({"greet": handler}).start()
    assert dev.call("greet").body == b"none"

    dev.save("stack.yml", dev.stack("greet", more="    environment: {WORD: from the stack}\n"))
    dev.wait_for_answer("greet", b"from the stack")

    dev.save("env/words.yml", "environment:\n  WORD: from a file\n")
    dev.save("stack.yml", dev.stack("greet", more="    environment_file: [env/words.yml]\n"))
    dev.wait_for_answer("greet", b"from a file")
    dev.save("env/words.yml", "environment:\n  WORD: from the file again\n")
    dev.wait_for_answer("greet", b"from the file again")

    dev.save("stack.yml", "provider:\n  name: openfaas\nfunctions: {greet: [\n")
    dev.wait_for_text("the stack before it stays in force")
    assert dev.call("greet").body == b"from the file again"

    dev.save("second/handler.py", answering("second"))
    dev.save("stack.yml", dev.stack("greet", "second", "third"))
    dev.wait_for_answer("second", b"second")
    dev.wait_for_answer("greet", b"none")
    dev.wait_for_text("there is no folder './third'")
    dev.save("third/handler.py", answering("third"))
    dev.wait_for_answer("third", b"third")

    dev.save("stack.yml", dev.stack("second"))
    wait_for(lambda: dev.call("greet").status == 404, "the end of greet")
    assert dev.call("second").body == b"second"
    dev.wait_for_text("[greet] removed")


def test_a_namespace_of_the_stack_is_made_and_what_is_copied_into_the_handlers_is_watched(make_dev: MakeDev) -> None:
    handler = "from .shared import WORD\n\ndef handle(event, context):\n    return WORD\n"
    dev = make_dev({"greet": handler})
    dev.save("shared/__init__.py", "WORD = 'one'\n")
    text = dev.stack("greet", more="    namespace: team\n") + "configuration:\n  copy: [./shared]\n"
    dev.save("stack.yml", text)
    dev.start()
    assert dev.call("greet.team").body == b"one"
    dev.save("shared/__init__.py", "WORD = 'two'\n")
    dev.wait_for_answer("greet.team", b"two")


def test_only_the_functions_that_are_named_run(make_dev: MakeDev) -> None:
    dev = make_dev({"one": answering("one"), "two": answering("two")}).start("two")
    assert (dev.call("one").status, dev.call("two").body) == (404, b"two")
    assert dev.addresses["functions"] == ["two"]


def test_what_a_function_prints_is_shown_with_its_name(make_dev: MakeDev) -> None:
    dev = make_dev({"greet": "print('at import')\ndef handle(event, context):\n    print('in a call')\n"}).start()
    dev.call("greet")
    dev.wait_for_text("[greet] at import\n")
    dev.wait_for_text("[greet] in a call\n")


def test_without_logs_a_failed_start_still_says_what_it_printed(make_dev: MakeDev) -> None:
    dev = make_dev({"greet": "print('never shown')\n" + answering("one")}).start("--no-logs")
    dev.save("greet/handler.py", "print('just before')\nraise ValueError('no luck')\n" + answering("two"))
    dev.wait_for_text("it did not start: the handler failed while it started: ValueError: no luck")
    dev.wait_for_text("[greet] just before")
    assert dev.call("greet").body == b"one"
    assert "never shown" not in dev.printed


def test_secrets_come_from_a_folder_and_a_missing_one_is_named(make_dev: MakeDev) -> None:
    dev = make_dev({"greet": "def handle(event, context):\n    return context.secret('word')\n"})
    dev.save("stack.yml", dev.stack("greet", more="    secrets: [word]\n"))
    dev.start()
    dev.wait_for_text("there is no .secrets/word beside the stack file")
    assert dev.call("greet").status == 404
    dev.save(".secrets/word", "hidden\n")
    dev.wait_for_answer("greet", b"hidden")
    dev.save(".secrets/word", "rotated")
    dev.wait_for_answer("greet", b"rotated")
    dev.stop()
    assert not (dev.data / "secrets").exists() and "hidden" not in dev.printed


def test_tests_run_when_they_are_asked_for(make_dev: MakeDev) -> None:
    dev = make_dev({"greet": answering("one")})
    dev.save(
        "greet/handler_test.py", "from .handler import handle\n\ndef test_it():\n    assert handle(0, 0) == 'one'\n"
    )
    dev.start("--test")
    assert dev.call("greet").body == b"one"
    dev.save("greet/handler.py", answering("two"))
    dev.wait_for_text("its tests failed with exit code 1")
    assert dev.call("greet").body == b"one"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_its_end_leaves_no_process_whatever_ends_it(make_dev: MakeDev, number: int) -> None:
    dev = make_dev(
        {"greet": "import time\ndef handle(event, context):\n    time.sleep(float(event.text or 0))\n"}
    ).start()
    assert dev.call("greet").status == 200
    caller = threading.Thread(target=_call_in_vain, args=(dev,))
    caller.start()
    assert len(dev.processes()) >= 6
    assert dev.stop(number) == (-number if number == signal.SIGKILL else 0)
    caller.join(10)


def _call_in_vain(dev: Dev) -> None:
    with pytest.raises((OSError, http.client.HTTPException)):
        dev.call("greet", b"60")


def test_a_second_one_on_the_same_stack_is_refused(make_dev: MakeDev) -> None:
    dev = make_dev({"greet": answering("one")}).start()
    second = dev.run()
    assert second.wait(20) == 1
    assert "is in use by another server" in dev.printed
    assert dev.call("greet").body == b"one"


def test_a_port_that_is_taken_is_named_with_its_flag(make_dev: MakeDev) -> None:
    dev = make_dev({"greet": answering("one")})
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert dev.run("--port", str(port)).wait(20) == 1
    assert f"127.0.0.1:{port}" in dev.printed and "--port" in dev.printed and "Traceback" not in dev.printed


ECHO = """
import base64

def handle(event, context):
    seen = {
        "method": event.method,
        "path": event.path,
        "query": event.raw_query,
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in event._fields],
        "body": base64.b64encode(event.body).decode(),
        "call": [context.call_id, context.function, context.namespace],
    }
    return {"body": seen}
"""


def test_the_request_that_a_handler_sees_is_the_same_to_the_byte_as_in_production(
    make_dev: MakeDev, platform: Platform
) -> None:
    platform.deploy("seen", ECHO, lang="python3-http")
    dev = make_dev({"seen": ECHO}).start()
    body = os.urandom(100_000)
    request: dict[str, Any] = {
        "path": "/a%2Fb/../c?x=1&x=%20&y",
        "method": "PATCH",
        "headers": {"Host": "example.org", "X-Call-Id": "fixed", "X-Mixed-Case": "\xe4 b", "Cookie": "a=1; b=2"},
    }
    there, here = platform.call("seen", body, **request), dev.call("seen", body, **request)
    assert (there.status, here.status) == (200, 200)
    clock = re.compile(rb'"X-Start-Time", "\d+"')  # the one header that says when
    assert clock.search(there.body) and clock.sub(b"", there.body) == clock.sub(b"", here.body)
    seen = json.loads(here.body)
    assert (seen["method"], seen["query"], seen["call"]) == ("PATCH", "x=1&x=%20&y", ["fixed", "seen", "openfaas-fn"])


@pytest.mark.timeout(300)
def test_memory_stays_the_same_over_a_hundred_reloads_and_ten_thousand_calls(make_dev: MakeDev) -> None:
    dev = make_dev({"greet": answering("start")}).start("--no-logs")

    def work(name: str, reloads: int) -> None:
        for number in range(reloads):
            dev.save("greet/handler.py", answering(f"{name} {number}"))
            dev.wait_for_answer("greet", f"{name} {number}".encode())
            for _ in range(100):
                assert dev.call("greet").status == 200

    work("warm", 40)
    before = _memory(dev)
    work("measured", 100)
    after = _memory(dev)
    print(f"RSS in MB: {before:.1f}, then {after:.1f}")
    assert after < before * 1.05


def _memory(dev: Dev) -> float:
    """RSS in MB of the command and all that it started, once nothing but one replica and a waiting builder is left."""
    seen: dict[int, float] = {}

    def settled() -> list[int]:
        pids = sorted(dev.processes())
        for pid in pids:
            seen.setdefault(pid, time.monotonic())
        # The command, serve, fork server, broker, control, proxy, worker, a replica, and the builder that waits.
        # The one that is just ending is one more process, and larger.
        return pids if len(pids) == 9 and all(time.monotonic() - seen[pid] > 1 for pid in pids) else []

    pids = wait_for(settled, "one replica and one builder")
    return sum(psutil.Process(pid).memory_info().rss for pid in pids) / 2**20


def test_an_editor_attaches_and_stops_at_a_breakpoint_and_again_after_a_save(make_dev: MakeDev) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    text = "def handle(event, context):\n    word = event.text\n    return word + '!'\n"
    dev = make_dev({"greet": text, "other": answering("other")}).start("greet", "--debug", str(port))
    _stop_at_breakpoint(dev, port)
    dev.save("greet/handler.py", text.replace("!", "?"))
    dev.wait_for_text(f"debugger: listening on 127.0.0.1:{port}", 2)
    _stop_at_breakpoint(dev, port)


def _stop_at_breakpoint(dev: Dev, port: int) -> None:
    file = dev.project / "greet" / "handler.py"
    client = DebugClient(port)
    client.attach((file, 3), dev.project)
    answers: list[bytes] = []
    caller = threading.Thread(target=lambda: answers.append(dev.call("greet", b"hello").body))
    caller.start()
    path, line, thread = client.wait_until_stopped()
    assert (Path(path), line, answers) == (file, 3, [])
    client.go_on(thread)
    caller.join(20)
    client.close()
    assert answers[0][:5] == b"hello"


def test_debugging_is_for_one_function(make_dev: MakeDev) -> None:
    dev = make_dev({"one": answering("one"), "two": answering("two")})
    assert dev.run("--debug", "5678").wait(20) == 2
    assert "name the one" in dev.printed
