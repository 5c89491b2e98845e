"""The bare loop: start a program, write the body to it, read its answer to the end, wait for it; one after another.

    python fork_loop.py SECONDS PROGRAM...       prints runs a second, and processor time per run

The same primitive as the replica uses (`posix_spawn`), and nothing else: no HTTP, no event loop, no environment of its
own for each run. One at a time, because on one core nothing is faster.
"""

from __future__ import annotations

import os
import sys
import time

BODY = b"hello"


def run(command: list[str], environment: dict[bytes, bytes]) -> bytes:
    stdin, feed = os.pipe2(os.O_CLOEXEC)
    output, stdout = os.pipe2(os.O_CLOEXEC)
    actions = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, stdout, 1)]
    pid = os.posix_spawn(command[0], command, environment, file_actions=actions)
    os.close(stdin)
    os.close(stdout)
    os.write(feed, BODY)
    os.close(feed)
    answer = b""
    while data := os.read(output, 65536):
        answer += data
    os.close(output)
    os.waitpid(pid, 0)
    return answer


def main() -> None:
    seconds, command = float(sys.argv[1]), sys.argv[2:]
    environment = dict(os.environb)
    if run(command, environment) != BODY:
        sys.exit(f"{command[0]} does not give back what it is given")
    begun, runs = time.monotonic(), 0
    while (passed := time.monotonic() - begun) < seconds:
        run(command, environment)
        runs += 1
    print(runs / passed, sum(os.times()[:4]) / runs)


if __name__ == "__main__":
    main()
