"""What a function may see and do on a server that was started as root: its own things, and nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running_platform import Platform, is_alive, wait_for

from stoker_sdk.messages import Secret

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: each function gets a user id of its own"),
]

PROBE = """
import json, traceback

def handle(event, context):
    found = {"context": context, "answer": None}
    try:
        exec(event.text, found)
        return json.dumps(found["answer"])
    except BaseException as error:
        return json.dumps({"error": type(error).__name__, "text": str(error)})
"""
HUNGRY = """
def handle(event, context):
    return str(len(bytearray(int(event.text))))
"""


class Probe:
    """A function that runs what it is sent; `ask` gives the value of `answer`."""

    def __init__(self, platform: Platform, name: str) -> None:
        self.platform = platform
        self.name = name

    @property
    def pid(self) -> int:
        return self.platform.replicas(self.name)[0]

    def ask(self, code: str) -> Any:
        answer = self.platform.call(self.name, code.encode())
        assert answer.status == 200, answer
        return json.loads(answer.body)

    def ask_for(self, expression: str) -> Any:
        return self.ask(f"import os, json\nanswer = {expression}")

    def refused(self, code: str) -> bool:
        """Whether the code failed for want of permission."""
        answer = self.ask(f"import os, socket\n{code}")
        return answer is not None and answer["error"] == "PermissionError"


@pytest.fixture(scope="module")
def probes(platform: Platform) -> Iterator[tuple[Probe, Probe]]:
    for name in ("mine", "theirs"):
        platform.client.create_secret(Secret(f"{name}-secret", value=f"of {name}"))
        platform.deploy(
            f"probe-{name}", PROBE + f"# {name}\n", secrets=[f"{name}-secret"], env_vars={"GIVEN": f"to {name}"}
        )
        platform.call(f"probe-{name}", b"print('something')")
    yield Probe(platform, "probe-mine"), Probe(platform, "probe-theirs")
    for name in ("mine", "theirs"):
        platform.client.remove(f"probe-{name}")
        platform.client.remove_secret(f"{name}-secret")


def test_every_function_has_a_user_of_its_own(probes: tuple[Probe, Probe]) -> None:
    ids = [probe.ask_for("[*os.getresuid(), *os.getresgid()]") for probe in probes]
    assert [len(set(one)) for one in ids] == [1, 1]
    assert ids[0] != ids[1] and 0 not in ids[0] + ids[1]
    groups = [set(probe.ask_for("os.getgroups()")) for probe in probes]
    assert not groups[0] & groups[1] and 0 not in groups[0] | groups[1]


def test_a_function_cannot_become_root_again(probes: tuple[Probe, Probe]) -> None:
    mine, theirs = probes
    for code in ("os.setuid(0)", "os.setresuid(-1, 0, -1)", "os.setgroups([0])", f"os.setuid({_user(theirs)})"):
        assert mine.refused(code), code
    assert mine.ask("answer = [l for l in open('/proc/self/status') if l.startswith('NoNewPrivs')]") == [
        "NoNewPrivs:\t1\n"
    ]
    assert mine.ask("answer = [l.split()[1] for l in open('/proc/self/status') if l.startswith('CapEff')]") == [
        "0" * 16
    ]


def test_the_files_of_the_platform_cannot_be_read(probes: tuple[Probe, Probe]) -> None:
    mine = probes[0]
    data, run = mine.platform.data, mine.platform.run_folder
    for path in (data.password, data.key, data.ca_key, data.server_key, data.lock, data.ids):
        assert path.exists()
        assert mine.refused(f"open({str(path)!r}, 'rb').read()"), path
    for folder in (data.path, data.functions, data.secrets, run, run / "settings", run / "s"):
        assert folder.is_dir()
        assert mine.refused(f"os.listdir({str(folder)!r})"), folder
    (function,) = data.functions.rglob("probe-theirs.json")
    assert mine.refused(f"open({str(function)!r})")
    (secret,) = data.secrets.rglob("theirs-secret")
    assert mine.refused(f"open({str(secret)!r})")


def test_nothing_of_the_platform_or_of_itself_can_be_written(probes: tuple[Probe, Probe]) -> None:
    mine = probes[0]
    data, run = mine.platform.data, mine.platform.run_folder
    for folder in (data.path, data.artefacts, _artefact(mine), data.logs, run, run / "secrets", _secrets(mine)):
        assert mine.refused(f"open({str(folder / 'new')!r}, 'w')"), folder
    assert mine.refused(f"open({str(_artefact(mine) / 'function' / 'handler.py')!r}, 'a')")
    assert mine.refused(f"open({str(_secrets(mine) / 'mine-secret')!r}, 'a')")
    assert mine.refused(f"os.unlink({str(_secrets(mine) / 'mine-secret')!r})")


def test_what_is_another_functions_cannot_be_read(probes: tuple[Probe, Probe]) -> None:
    mine, theirs = probes
    logs = mine.platform.data.logs / "openfaas-fn" / theirs.name
    for path in (_artefact(theirs), _artefact(theirs) / "function", logs, _secrets(theirs)):
        assert path.is_dir()
        assert mine.refused(f"os.listdir({str(path)!r})"), path
    for path in (
        _artefact(theirs) / "function/handler.py",
        next(logs.glob("*.log")),
        _secrets(theirs) / "theirs-secret",
    ):
        assert path.is_file()
        assert mine.refused(f"open({str(path)!r})"), path


def test_the_sockets_of_the_platform_and_of_other_replicas_cannot_be_reached(probes: tuple[Probe, Probe]) -> None:
    mine, _ = probes
    run = mine.platform.run_folder
    for path in (run / "control.sock", run / "table.sock", run / "fork.sock", *(run / "s").iterdir()):
        assert path.is_socket()
        assert mine.refused(f"socket.socket(socket.AF_UNIX).connect({str(path)!r})"), path


def test_the_control_api_asks_a_function_for_the_password_like_anybody(probes: tuple[Probe, Probe]) -> None:
    url = f"{probes[0].platform.http_url}/system/functions"
    answer = probes[0].ask(f"import urllib.request\nurllib.request.urlopen({url!r})")
    assert "401" in answer["text"]


def test_other_processes_cannot_be_signalled_or_looked_into(probes: tuple[Probe, Probe]) -> None:
    mine, theirs = probes
    for pid in (theirs.pid, *mine.platform.pids().values()):
        assert mine.refused(f"os.kill({pid}, 0)"), pid
        assert mine.refused(f"open('/proc/{pid}/environ', 'rb').read()"), pid
        assert mine.refused(f"open('/proc/{pid}/mem', 'rb')"), pid


def test_a_function_has_no_descriptor_that_it_was_not_given(probes: tuple[Probe, Probe]) -> None:
    mine = probes[0]
    code = """
import os
answer = {}
for name in os.listdir("/proc/self/fd"):
    try:
        answer[name] = os.readlink(f"/proc/self/fd/{name}")
    except FileNotFoundError:
        pass
"""
    descriptors: dict[str, str] = mine.ask(code)
    log = str(next((mine.platform.data.logs / "openfaas-fn" / mine.name).glob("*.log")))
    assert descriptors.pop("0") == "/dev/null"
    assert descriptors.pop("1") == descriptors.pop("2") == log
    for number in ("3", "4"):  # where it listens, and where it says that it is ready
        assert descriptors.pop(number).startswith("socket:")
    allowed = (
        "socket:",
        "pipe:",
        "anon_inode:[eventpoll]",
        "anon_inode:[eventfd]",
        "anon_inode:[io_uring]",
        "/dev/null",
    )
    assert all(target.startswith(allowed) for target in descriptors.values()), descriptors
    assert _peers(mine) <= {*mine.platform.pids().values(), mine.pid}


def _peers(probe: Probe) -> set[int]:
    """The processes at the other end of its connected sockets."""
    code = """
import os, socket, struct
answer = []
for name in os.listdir("/proc/self/fd"):
    if int(name) < 5:
        continue
    try:
        sock = socket.socket(fileno=os.dup(int(name)))
        answer.append(struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])
        sock.close()
    except OSError:
        pass
"""
    return set(probe.ask(code))


def test_the_environment_is_what_was_given_and_the_basics(probes: tuple[Probe, Probe]) -> None:
    mine = probes[0]
    (instance,) = mine.platform.condition(mine.name).instances
    environment = mine.ask_for("dict(os.environ)")
    staged = environment.pop("LD_LIBRARY_PATH", "")  # only where the interpreter needs it to start
    assert staged in ("", str(Path(mine.ask("import sys\nanswer = sys.executable")).parents[1] / "lib"))
    assert environment == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
        "OPENFAAS_NAME": mine.name,
        "OPENFAAS_NAMESPACE": "openfaas-fn",
        "STOKER_REPLICA": instance.id,
        "STOKER_RUN": str(mine.platform.run_folder),
        "STOKER_SECRETS": str(_secrets(mine)),
        "GIVEN": "to mine",
        "STOKER_CONNECTIONS": "0",
        "STOKER_HEALTH_PERIOD": "2",
        "STOKER_HEALTH_TIMEOUT": "1",
        "STOKER_HEALTH_FAILURES": "3",
        "STOKER_HEALTH_SUCCESSES": "1",
    }
    child = mine.ask("import subprocess\nanswer = subprocess.check_output(['/usr/bin/env'], text=True)")
    inherited = dict(line.split("=", 1) for line in child.splitlines())
    assert inherited == environment | ({"LD_LIBRARY_PATH": staged} if staged else {})


def test_the_environment_of_the_server_is_not_in_a_functions_memory(probes: tuple[Probe, Probe]) -> None:
    """The server of these tests was started with a variable of a random value, which nobody gave to functions."""
    mine = probes[0]
    value = mine.platform.environment["STOKER_TEST_PLATFORM"]
    half, rest = value[:8], value[8:]
    code = f"""
needle = ({half!r} + {rest!r}).encode()
found, readable = [], 0
for line in open("/proc/self/maps"):
    span, rights, *_ = line.split()
    start, end = (int(part, 16) for part in span.split("-"))
    if rights.startswith("rw") and end - start < 1 << 28:
        with open("/proc/self/mem", "rb", buffering=0) as memory:
            memory.seek(start)
            try:
                data = memory.read(end - start)
            except OSError:
                continue
        readable += len(data)
        at = data.find(needle)
        if at >= 0:
            found.append(str(data[max(0, at - 40):at + 20]))
answer = [readable, [one for one in found if "STOKER_TEST" in one]]
"""
    readable, found = mine.ask(code)
    assert readable > 1_000_000
    assert found == []


def test_secrets_are_read_by_name_and_only_its_own(probes: tuple[Probe, Probe]) -> None:
    mine, theirs = probes
    assert mine.ask("answer = context.secret('mine-secret')") == "of mine"
    assert theirs.ask("answer = context.secret('theirs-secret')") == "of theirs"
    for name in ("theirs-secret", "../openfaas-fn.probe-theirs/theirs-secret", "/etc/hostname"):
        assert mine.ask(f"context.secret({name!r})")["error"] == "KeyError"


def test_a_changed_secret_reaches_new_replicas(platform: Platform) -> None:
    platform.client.create_secret(Secret("turns", value="old"))
    platform.deploy("keeper", PROBE, secrets=["turns"])
    probe = Probe(platform, "keeper")
    assert probe.ask("answer = context.secret('turns')") == "old"
    platform.client.update_secret(Secret("turns", value="new"))
    platform.deploy("keeper", PROBE, secrets=["turns"], env_vars={"A": "B"})
    assert probe.ask("answer = context.secret('turns')") == "new"


def test_links_in_its_log_folder_show_a_function_nothing_of_others(probes: tuple[Probe, Probe]) -> None:
    mine = probes[0]
    logs = mine.platform.data.logs / "openfaas-fn" / mine.name
    password = mine.platform.data.password
    mine.ask(f"import os\nos.symlink({str(password)!r}, {str(logs / 'x.log')!r})")
    mine.ask(f"import os\nos.mkfifo({str(logs / 'y.log')!r})")
    assert (logs / "x.log").is_symlink() and (logs / "y.log").is_fifo()
    text = "".join(line.text for line in mine.platform.logs(mine.name))
    assert "something" in text
    assert password.read_text().strip() not in text


def test_nonsense_on_the_status_descriptor_harms_nobody(probes: tuple[Probe, Probe]) -> None:
    mine, theirs = probes
    before = mine.platform.pids()
    mine.ask("import os\nfor line in (b'{', b'[1]\\n', b'{\"failed\": 1}\\n', b'\\xff' * 99999): os.write(4, line)")
    assert theirs.ask_for("1") == mine.ask_for("1") == 1
    mine.platform.scale(theirs.name, 2)
    mine.platform.scale(theirs.name, 1)
    assert mine.platform.pids() == before


def test_a_memory_limit_ends_the_call_or_the_replica_that_breaks_it_and_no_other(platform: Platform) -> None:
    platform.deploy("hungry", HUNGRY, limits={"memory": "64Mi", "cpu": "0.5"})
    platform.deploy("modest", HUNGRY)
    (modest,) = platform.replicas("modest")
    assert platform.call("hungry", b"1000000").text == "1000000"
    answer = platform.call("hungry", b"200000000")
    assert answer.status in (500, 502), answer
    wait_for(lambda: platform.call("hungry", b"1000000").text == "1000000", "the next replica")
    assert platform.call("modest", b"200000000").text == "200000000"
    assert platform.replicas("modest") == [modest]
    limits = platform.condition("hungry").limits
    assert "memory" in limits and "cpu" in limits
    assert platform.condition("modest").limits == ""


def test_processes_that_a_limited_replica_starts_share_its_limit(platform: Platform) -> None:
    platform.deploy("parent", PROBE, limits={"memory": "64Mi"})
    probe = Probe(platform, "parent")
    code = "import subprocess, sys\nanswer = subprocess.call([sys.executable, '-c', 'bytearray(200_000_000)'])"
    answer = platform.call("parent", code.encode())
    assert answer.status != 200 or json.loads(answer.body) != 0
    wait_for(lambda: is_alive(probe.pid), "the replica, or the next")


def test_the_whole_standard_library_can_be_imported(probes: tuple[Probe, Probe]) -> None:
    """Packages that the fork server has loaded already find their other modules as well."""
    names = (
        "concurrent.futures.process, ctypes.util, email.mime.text, http.cookiejar, importlib.metadata, json.tool, "
        "logging.handlers, multiprocessing.pool, sqlite3, ssl, unittest.mock, urllib.request, xml.etree.ElementTree"
    )
    assert probes[0].ask(f"import {names}\nanswer = 'all'") == "all"


def _user(probe: Probe) -> int:
    return int(probe.ask_for("os.getuid()"))


def _artefact(probe: Probe) -> Path:
    digest = probe.platform.status(probe.name).image.rpartition("sha256:")[2]
    return probe.platform.data.artefact(digest)


def _secrets(probe: Probe) -> Path:
    return probe.platform.run_folder / "secrets" / f"openfaas-fn.{probe.name}"
