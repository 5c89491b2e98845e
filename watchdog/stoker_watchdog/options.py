"""The watchdogs' options, read from environment variables: contract sections 8.1 and 8.7, and ours.

Durations: a bare number of seconds, or Go's syntax (`1m30s`); what cannot be read is the default. The same variables
mean the same on one machine, where a function's environment holds them, and in a container, where the process's does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

MODES = ("python", "http", "streaming", "serializing", "classic", "static")
"""What this process can run itself. `classic` is `serializing` by the rules of the classic watchdog (section 8.7)."""
FORKING = ("streaming", "serializing", "classic")

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_DURATION = re.compile(rf"\+?(?:{_PART.pattern})+")
_PATH = re.compile(r"/[!-~]*")
_GO_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_GO_FALSE = ("0", "f", "F", "FALSE", "false", "False")
_MAX_SECONDS = 292 * 365 * 86400.0  # what Go's nanoseconds can hold


class OptionsError(Exception):
    """An option cannot be used; the message says which, and what to write."""


@dataclass(frozen=True)
class Options:
    """Times in seconds, sizes in bytes. `command` is split at spaces, without quoting."""

    mode: str = "streaming"
    command: tuple[str, ...] = ()
    upstream_url: str = ""
    static_path: str = "/home/app/public"
    content_type: str = "application/octet-stream"
    """Of answers in the forking modes; in mode classic an empty one means the request's."""
    port: int = 8080
    read_timeout: float = 30.0
    write_timeout: float = 30.0
    exec_timeout: float = 30.0
    """Of one call; 0 is no limit."""
    healthcheck_interval: float = 30.0
    suppress_lock: bool = False
    buffer_http: bool = False
    max_inflight: int = 0
    prefix_logs: bool = True
    log_buffer_size: int = 65536
    """The longest line of the function's output that is logged in one piece; -1 is no limit."""
    log_callid: bool = False
    ready_path: str = ""
    jwt_auth: bool = False
    jwt_auth_debug: bool = False
    jwt_auth_local: bool = False
    cgi_headers: bool = True
    combine_output: bool = True
    marshal_request: bool = False
    write_debug: bool = False
    debug_headers: bool = False
    # Ours
    metrics_port: int = 8081
    jwt_issuer_url: str = "http://gateway.openfaas:8080"
    """Where `/.well-known/openid-configuration` is asked for."""
    handler: str = "function.handler"
    threads: int = 32
    concurrency: int = 0
    name: str = ""
    namespace: str = ""
    secrets: str = "/var/openfaas/secrets"
    connections: int = 0
    health_period: float = 2.0
    health_timeout: float = 1.0
    health_failures: int = 3
    health_successes: int = 1
    replace_after: float = 60.0

    def check_shared(self) -> None:
        """Raise `OptionsError` for what no mode can start with."""
        if self.ready_path and not _PATH.fullmatch(self.ready_path):
            raise OptionsError(f"ready_path is {self.ready_path[:100]!r}: write a path such as /ready")

    def check(self) -> None:
        """Raise `OptionsError` for what the mode cannot start with."""
        self.check_shared()
        if self.mode not in MODES:
            raise OptionsError(f"mode is {self.mode[:40]!r}: use one of {', '.join(MODES)}")
        if self.mode in (*FORKING, "http") and not self.command:
            raise OptionsError(f"mode {self.mode} needs a program: set fprocess")
        if self.mode == "http" and not self.upstream_url:
            raise OptionsError("mode http needs upstream_url, such as http://127.0.0.1:3000, or port 0 for a free one")
        if self.write_timeout == 0:
            raise OptionsError("write_timeout is 0: give it a value above 0, such as 30s")


def read_options(environment: Mapping[str, str], *, mode: str = "", prefix_logs: bool = True) -> Options:
    """Read every option. `mode`, when given, is what is already known; `prefix_logs` is that option's default."""
    value = environment.get
    mode = mode or value("mode", "") or "streaming"
    classic = mode == "classic"
    command = value("function_process", "") or value("fprocess", "")
    write_timeout = duration(value("write_timeout", ""), 30.0)
    local = _flag(value("jwt_auth_local", ""), False)
    issuer = "http://127.0.0.1:8000" if local else "http://gateway.openfaas:8080"
    return Options(
        mode=mode,
        command=tuple(command.split()),
        upstream_url=value("http_upstream_url", "") or value("upstream_url", ""),
        static_path=value("static_path", "") or "/home/app/public",
        content_type=value("content_type", "") or ("" if classic else "application/octet-stream"),
        port=number(value("port", ""), 8080),
        read_timeout=duration(value("read_timeout", ""), 30.0),
        write_timeout=write_timeout,
        exec_timeout=duration(value("exec_timeout", ""), 0.0 if classic else 30.0),
        healthcheck_interval=duration(value("healthcheck_interval", ""), write_timeout),
        suppress_lock=_flag(value("suppress_lock", ""), False),
        buffer_http=_flag(value("buffer_http", "") or value("http_buffer_req_body", ""), False),
        max_inflight=number(value("max_inflight", ""), 0),
        prefix_logs=_go_flag(value("prefix_logs", ""), prefix_logs),
        log_buffer_size=-1 if value("log_buffer_size", "") == "-1" else number(value("log_buffer_size", ""), 65536),
        log_callid=_go_flag(value("log_callid", "") or value("log_call_id", ""), False),
        ready_path=value("ready_path", ""),
        jwt_auth=_flag(value("jwt_auth", ""), False),
        jwt_auth_debug=_flag(value("jwt_auth_debug", ""), False),
        jwt_auth_local=local,
        cgi_headers=not classic or _flag(value("cgi_headers", ""), True),
        combine_output=_flag(value("combine_output", ""), True),
        marshal_request=classic and _flag(value("marshal_request", ""), False),
        write_debug=_flag(value("write_debug", ""), False),
        debug_headers=_flag(value("debug_headers", ""), False),
        metrics_port=number(value("STOKER_METRICS_PORT", ""), 8081),
        jwt_issuer_url=(value("STOKER_JWT_ISSUER_URL", "") or issuer).rstrip("/"),
        handler=value("handler", "") or "function.handler",
        threads=number(value("STOKER_THREADS", ""), 32) or 32,
        concurrency=number(value("STOKER_CONCURRENCY", ""), 0),
        name=value("OPENFAAS_NAME", ""),
        namespace=value("OPENFAAS_NAMESPACE", ""),
        secrets=value("STOKER_SECRETS", "") or "/var/openfaas/secrets",
        connections=number(value("STOKER_CONNECTIONS", ""), 0),
        health_period=duration(value("STOKER_HEALTH_PERIOD", ""), 2.0) or 2.0,
        health_timeout=duration(value("STOKER_HEALTH_TIMEOUT", ""), 1.0) or 1.0,
        health_failures=number(value("STOKER_HEALTH_FAILURES", ""), 3) or 3,
        health_successes=number(value("STOKER_HEALTH_SUCCESSES", ""), 1) or 1,
        replace_after=duration(value("STOKER_REPLACE_AFTER", ""), 60.0),
    )


def duration(text: str, default: float) -> float:
    """Seconds in a bare number or a Go duration; the default for anything else, negative ones included."""
    if text.isascii() and text.isdigit() and len(text) < 12:
        return float(text)
    seconds = go_duration(text)
    return default if seconds is None else seconds


def go_duration(text: str) -> float | None:
    """Seconds in Go's syntax, such as `1m30s`; None when it is not that."""
    if len(text) > 100 or not text.isprintable() or not _DURATION.fullmatch(text):
        return None
    seconds = sum(float(amount) * _UNITS[unit] for amount, unit in _PART.findall(text))
    return seconds if seconds <= _MAX_SECONDS else None


def number(text: str, default: int) -> int:
    """A whole number that is not negative, or the default."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else default


def _flag(text: str, default: bool) -> bool:
    """True for exactly `true` and `1`, as most options of the watchdogs are read."""
    return text in ("true", "1") if text else default


def _go_flag(text: str, default: bool) -> bool:
    return True if text in _GO_TRUE else False if text in _GO_FALSE else default
