"""Texts of stack files: whatever they hold, reading one ends with a stack or with a clear error."""

from __future__ import annotations

from hypothesis import strategies as st
from mutations import changed
from rounds import play
from running_platform import REPOSITORY, Platform

from stoker_sdk.errors import BadInput, NotFound
from stoker_sdk.stack import parse_stack

_FULL = """
version: 1.0
provider: {name: openfaas, gateway: "${GATEWAY:-http://127.0.0.1:8080}"}
functions:
  greet:
    lang: python3
    handler: ./greet
    image: ${PREFIX:-example}/greet:0.1
    environment: {A: b, NUMBER: 0.10, YES: yes, DATE: 2024-01-01}
    environment_file: [env.yml]
    labels: {com.openfaas.scale.min: 2}
    annotations: {topic: "a,b"}
    secrets: [one, two]
    constraints: ["a=b"]
    limits: {memory: 40Mi, cpu: 100m}
    requests: {memory: 20Mi}
    readonly_root_filesystem: true
    build_args: {X: y}
    build_options: [dev]
    skip_build: false
    timeout: 5s
    concurrency: 10
    scale: {min: 1, max: 5}
    schedule: {cron: "TZ=UTC */5 * * * *", missed: run-once}
    routes: [{path: /x}]
    retries: {attempts: 3}
  other: &base {lang: go, handler: ./other, image: x}
  third: *base
configuration:
  templates: [{name: x, source: "https://example.com/x"}]
  copy: [./shared]
"""
TEXTS = [_FULL, *(path.read_text() for path in sorted(REPOSITORY.glob("stack-examples/*/stack.yml")))]
_PIECES = (
    b"&a ", b"*a ", b"<<: *a\n", b"!!python/object:os.system ", b"!!binary ", b"? ", b"- ", b": ", b"{", b"[" * 300,
    b"]", b"\t", b"\n  ", b"${", b"${A:-", b"${A?x}", b"}", b"$", b"%YAML 9.9\n", b"---\n", b"...\n", b"|\n", b">-\n",
    b"'", b'"', b"\\x", b"\0", b"\xff", "\ufeff".encode(), "\u2028".encode(), b"~", b"null", b".inf", b"1e999", b"0o7",
    b"9" * 5000,
    b"../../etc/passwd", b"http://[", b"http://x:99999", b"version: 2\n",
)  # fmt: skip


@st.composite
def texts(draw: st.DrawFn) -> str:
    data = draw(changed(draw(st.sampled_from(TEXTS)).encode(), _PIECES, most=5))
    return data.decode("utf-8", draw(st.sampled_from(["replace", "surrogateescape", "ignore"])))


def fuzz(platform: Platform) -> int:
    def check(text: str) -> None:
        for environment in ({"PREFIX": "me"}, None):
            try:
                parse_stack(text, environment)
            except (BadInput, NotFound) as error:
                assert str(error).strip(), "an error without words"

    return play(st.one_of(texts(), st.text(max_size=200)), check, 150)
