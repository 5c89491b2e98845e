"""`stoker serve --domain`: owners' functions on their hosts over HTTP and HTTPS, and what is not to be had there."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from running_platform import Answer, Platform, wait_for

from stoker_gateway.tls import ensure_certificates
from stoker_sdk.errors import Conflict, StokerError

DOMAIN = "faas.localhost"
ECHO = """
def handle(event, context):
    return {"statusCode": 200, "body": f"NAME {event.method} {event.path} {event.headers.get('X-Forwarded-Host')}"}
"""
CALLER = """
import os, urllib.request
def handle(req):
    return urllib.request.urlopen(f"{req}/function/hidden").read().decode()
"""
OWNER = "stoker.dev/owner"


@pytest.fixture(scope="module")
def rates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("rates") / "owners"
    file.write_text("limited 5/s\n")
    return file


@pytest.fixture(scope="module")
def public(platform: Platform, rates: Path) -> Iterator[Platform]:
    flags = ("--domain", DOMAIN, "--owner-rates", str(rates), "--name", f"ops.{DOMAIN}")
    one = Platform(like=platform, proxies=2, flags=flags)
    yield one.start()
    print(one.log)
    one.delete()


def deploy(platform: Platform, name: str, owner: str, **annotations: str) -> None:
    marked = ({OWNER: owner} if owner else {}) | {f"stoker.dev/{key}": text for key, text in annotations.items()}
    platform.deploy(name, ECHO.replace("NAME", name), lang="python3-http", annotations=marked)


def routes(*places: str) -> str:
    parts = [place.partition("/") for place in places]
    return json.dumps([{"host": host, "path": f"/{path}"} for host, _, path in parts])


def ask(platform: Platform, host: str, path: str, method: str = "GET") -> Answer:
    return platform.request(method, path, b"", {"Host": host})


def ask_securely(platform: Platform, host: str, path: str) -> tuple[int, str]:
    """As a client does that resolves the host to this machine and trusts the platform's CA alone."""
    context = ssl.create_default_context(cafile=str(platform.data.ca_certificate))
    with (
        socket.create_connection(platform.https, 20) as plain,
        context.wrap_socket(plain, server_hostname=host) as secure,
    ):
        secure.sendall(b"GET %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (path.encode(), host.encode()))
        response = http.client.HTTPResponse(secure)
        response.begin()
        return response.status, response.read().decode()


def test_an_owners_function_is_on_its_own_host(public: Platform) -> None:
    deploy(public, "greet", "Alice")
    deploy(public, "other", "bob")
    answer = ask(public, f"ALICE.{DOMAIN}", "/greet/a%2Fb?x=1")
    assert (answer.status, answer.text) == (200, f"greet GET /a%2Fb ALICE.{DOMAIN}")
    for host, path, said in (
        (f"carol.{DOMAIN}", "/greet", f"nobody has the host carol.{DOMAIN}"),
        (f"alice.{DOMAIN}", "/other", f"alice.{DOMAIN} has no function at /other"),
        (f"alice.{DOMAIN}", "/system/functions", "has no function at /system/functions"),
    ):
        answer = ask(public, host, path)
        assert answer.status == 404 and said in answer.text
    assert ask(public, DOMAIN, "/healthz").status == 200
    assert ask(public, f"ops.{DOMAIN}", "/healthz").status == 200
    assert ask(public, DOMAIN, "/function/greet").status == 200


def test_the_certificate_is_good_for_every_owner(public: Platform) -> None:
    deploy(public, "secure", "alice")
    for host in (f"alice.{DOMAIN}", f"pr-7--shop--alice.{DOMAIN}", DOMAIN, "localhost"):
        status, _ = ask_securely(public, host, "/secure")
        assert status == (200 if host == f"alice.{DOMAIN}" else 404)
    with pytest.raises(ssl.SSLCertVerificationError):
        ask_securely(public, "alice.example.org", "/secure")


def command(platform: Platform, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "stoker_cli", *words, "--gateway", platform.http_url],
        env=platform.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def test_addresses_are_shown(public: Platform) -> None:
    deploy(public, "shown", "alice", routes=routes("api.example.com/shown"))
    port = public.https[1]
    urls = [f"https://alice.{DOMAIN}:{port}/shown", f"https://api.example.com:{port}/shown"]
    assert public.condition("shown").urls == urls
    described = command(public, "describe", "shown")
    assert f"Public URL:          {urls[0]}\n                     {urls[1]}\n" in described
    listed = command(public, "list").splitlines()
    assert listed[0].split() == ["Function", "Invocations", "Replicas", "URL"]
    assert urls[0] in next(line for line in listed if line.startswith("shown "))


def test_a_route_that_another_has_is_refused_at_deploy_naming_both(public: Platform) -> None:
    deploy(public, "users", "", routes=routes("shop.example.com/v1/"))
    assert ask(public, "shop.example.com", "/v1/7").text == "users GET /v1/7 shop.example.com"
    with pytest.raises(Conflict, match=r"shop\.example\.com/v1/.*'users'.*'people'"):
        deploy(public, "people", "", routes=routes("shop.example.com/v1"))
    deploy(public, "people", "", routes=routes("shop.example.com/v1/people"))
    assert ask(public, "shop.example.com", "/v1/people").text.startswith("people ")
    assert ask(public, "shop.example.com", "/v1/peoples").text.startswith("users ")


def test_of_two_deploys_at_once_one_gets_the_route(public: Platform) -> None:
    image = public.build("racer", ECHO, "python3-http")

    def deploy_racer(number: int) -> str:
        name = f"racer-{number}"
        try:
            public.deploy_image(name, image, annotations={"stoker.dev/routes": routes("race.example.com/")})
        except StokerError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(deploy_racer, range(8)))
    winner = outcomes.index("")
    assert all(f"'racer-{winner}'" in said for number, said in enumerate(outcomes) if number != winner)
    assert ask(public, "race.example.com", "/x").status == 200


def test_a_private_function_is_called_from_inside_only(public: Platform) -> None:
    deploy(public, "hidden", "alice", visibility="private")
    public.deploy("caller", CALLER)
    assert ask(public, f"alice.{DOMAIN}", "/hidden").status == 404
    assert public.condition("hidden").urls == []
    assert public.call("hidden", headers={"X-Forwarded-For": "203.0.113.9"}).status == 404
    assert public.call_later("hidden", headers={"X-Forwarded-For": "203.0.113.9"}).status == 404
    assert public.call("caller", public.http_url.encode()).text.startswith("hidden GET / ")
    accepted = public.call_later("hidden", headers={"X-Stoker-Keep-Result": "1m"})
    assert accepted.status == 202
    id = accepted.headers["x-call-id"]
    wait_for(lambda: public.client.call_status(id).state == "done", "the call by a worker")


def test_an_owners_rate_holds_over_all_proxies_and_changes_without_a_restart(public: Platform, rates: Path) -> None:
    deploy(public, "slow", "limited")
    deploy(public, "free", "unlimited")
    wait_for(lambda: refused(public, "limited", "slow", 40) > 0, "the rate to be in force")
    began = time.monotonic()
    passed = sum(ask(public, f"limited.{DOMAIN}", "/slow").status == 200 for _ in range(400))
    seconds = time.monotonic() - began
    assert passed <= 5 * (seconds + 2) + 2
    answer = wait_for(lambda: over_rate(public), "a refusal")
    assert answer.headers["retry-after"] == "1" and answer.headers["x-stoker-error"] == "client; owner-rate"
    assert refused(public, "unlimited", "free", 40) == 0
    new = rates.with_name("new")
    new.write_text("limited none\n")
    new.replace(rates)
    wait_for(lambda: refused(public, "limited", "slow", 40) == 0, "the new rate")


def refused(platform: Platform, owner: str, name: str, calls: int) -> int:
    return sum(ask(platform, f"{owner}.{DOMAIN}", f"/{name}").status == 429 for _ in range(calls))


def over_rate(platform: Platform) -> Answer | None:
    answer = ask(platform, f"limited.{DOMAIN}", "/slow")
    return answer if answer.status == 429 else None


def test_addresses_outlive_control(public: Platform) -> None:
    deploy(public, "kept", "alice", routes=routes("kept.example.com/"))
    public.kill("control")
    assert ask(public, f"alice.{DOMAIN}", "/kept").status == 200
    public.wait_until_it_answers()
    assert ask(public, "kept.example.com", "/").status == 200
    with pytest.raises(Conflict, match="'kept'"):
        deploy(public, "thief", "alice", routes=routes("kept.example.com/"))


@pytest.fixture
def given_certificate(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A pair that another authority signed, as a user would bring it."""
    made = ensure_certificates(tmp_path / "tls", ["*.faas.example.org"])
    yield made.chain, made.key


def test_a_given_certificate_is_shown_to_clients(
    make_platform: Callable[..., Platform], given_certificate: tuple[Path, Path]
) -> None:
    chain, key = given_certificate
    platform = make_platform(flags=("--tls-certificate", str(chain), "--tls-key", str(key), "--no-async"))
    assert shows(platform, chain)
    other = ensure_certificates(chain.parent.parent / "other", ["*.faas.example.org"])
    for file, new in ((chain, other.chain), (key, other.key)):
        file.write_bytes(new.read_bytes())
    wait_for(lambda: shows(platform, other.chain), "the renewed certificate")


def shows(platform: Platform, chain: Path) -> bool:
    return chain.read_text().startswith(ssl.get_server_certificate(platform.https).strip())


def test_a_certificate_that_cannot_be_used_is_refused_at_once(
    platform: Platform, given_certificate: tuple[Path, Path]
) -> None:
    chain, _ = given_certificate
    idle = Platform(like=platform)
    command = idle.command("--tls-certificate", str(chain), "--tls-key", str(chain))
    done = subprocess.run(command, env=idle.environment, capture_output=True, text=True, timeout=30, check=False)
    idle.delete()
    assert done.returncode == 1
    assert "no certificate with its key" in done.stderr and "Traceback" not in done.stderr
