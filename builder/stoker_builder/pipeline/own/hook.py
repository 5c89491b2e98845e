"""git's `proc-receive` hook: it passes the client's commands on to the pipeline, and the pipeline's words back.

git starts it with pkt-lines on standard input and output (version, commands, push options, then `ok REF` or
`ng REF REASON` for each); what is written to standard error is shown to the client as `remote: …`. The pipeline is at
the other end of the descriptor that STOKER_HOOK_FD names. It decides and does everything; nothing but the standard
library is imported here, so that a push does not wait for it.
"""

import json
import os
import socket
import sys
from typing import BinaryIO


def read_packet(stream: BinaryIO) -> bytes | None:
    """One pkt-line's content without its newline; None for a flush."""
    size = int(stream.read(4), 16)
    return stream.read(size - 4) if size else None


def read_packets(stream: BinaryIO) -> list[str]:
    packets = []
    while (packet := read_packet(stream)) is not None:
        packets.append(packet.decode("utf-8", "surrogateescape").rstrip("\n"))
    return packets


def write_packets(stream: BinaryIO, texts: list[str]) -> None:
    for text in texts:
        data = text.encode("utf-8", "surrogateescape")
        stream.write(b"%04x" % (len(data) + 4) + data)
    stream.write(b"0000")
    stream.flush()


def main() -> int:
    git_in, git_out = sys.stdin.buffer, sys.stdout.buffer
    version = read_packets(git_in)[0]
    wants_options = "push-options" in version.partition("\0")[2].split()
    write_packets(git_out, ["version=1\0push-options" if wants_options else "version=1"])
    commands = [line.split(" ", 2) for line in read_packets(git_in)]
    options = read_packets(git_in) if wants_options else []
    pipeline = socket.socket(fileno=int(os.environ["STOKER_HOOK_FD"])).makefile("rw", encoding="utf-8")
    pipeline.write(json.dumps({"commands": commands, "options": options}) + "\n")
    pipeline.flush()
    for line in pipeline:
        said = json.loads(line)
        if "progress" in said:
            sys.stderr.write(said["progress"] + "\n")
            sys.stderr.flush()
        else:
            write_packets(git_out, said["verdicts"])
            return 0
    sys.stderr.write("the pipeline ended before it had an answer: push again\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
