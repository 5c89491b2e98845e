"""What a replica must be able to do though it is a fork: start programs, and start quickly with slow imports."""

from __future__ import annotations

from running_platform import Platform, wait_for

SPAWNS = """
import asyncio, subprocess

async def handle(event, context):
    if event.text == "plain":
        return subprocess.run(["echo", "plain"], capture_output=True).stdout
    process = await asyncio.create_subprocess_exec("echo", "asyncio", stdout=asyncio.subprocess.PIPE)
    answer, _ = await process.communicate()
    return answer
"""

SLOW_IMPORT = """
import time
time.sleep(0.2)
IMPORTED_IN = __import__("os").getpid()
"""

IMPORTS_SLOWLY = """
import os
import slow_package

def handle(req):
    return f"{slow_package.IMPORTED_IN} {os.getpid()}"
"""


def test_a_handler_may_start_programs_with_and_without_asyncio(platform: Platform) -> None:
    platform.deploy("spawns", {"handler.py": SPAWNS}, lang="python3-http")
    for kind in ("plain", "asyncio", "asyncio", "plain"):
        answer = platform.call("spawns", kind.encode())
        assert (answer.status, answer.body) == (200, f"{kind}\n".encode())


def test_what_a_function_imports_slowly_is_imported_once_and_inherited_by_later_replicas(platform: Platform) -> None:
    platform.deploy("slow-imports", {"handler.py": IMPORTS_SLOWLY, "slow_package.py": SLOW_IMPORT})
    first = platform.call("slow-imports").body.decode().split()
    assert first[0] == first[1]

    def inherited() -> bool:
        platform.scale("slow-imports", 0)
        imported_in, pid = platform.call("slow-imports").body.decode().split()
        return imported_in != pid

    wait_for(inherited, "a replica that did not import for itself")
    assert inherited(), "and so does every later one"


def test_a_replica_with_slow_imports_keeps_to_its_memory_limit(platform: Platform) -> None:
    files = {"handler.py": IMPORTS_SLOWLY, "slow_package.py": SLOW_IMPORT}
    platform.deploy("slow-limited", files, env_vars={"A": "b"}, limits={"memory": "256Mi", "cpu": "1"})
    for _ in range(3):
        platform.scale("slow-limited", 0)
        assert platform.call("slow-limited").status == 200
