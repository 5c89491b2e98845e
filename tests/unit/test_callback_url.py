"""Which texts are taken as `X-Callback-Url`."""

from __future__ import annotations

import subprocess
import sys
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from stoker_gateway.queue.callback_url import MAX_URL, check_callback_url
from stoker_sdk.errors import BadInput


@pytest.mark.parametrize(
    "text",
    [
        "http://example.org",
        "HTTPS://Example.org:8443/a%2Fb?x={1}|2#f",
        "http://gateway.openfaas:8080/function/next",
        "http://my_service/",
        "http://127.0.0.1:8000/hook",
        "http://[::1]:8000/",
        "http://[::ffff:10.0.0.1]/",
        "http://xn--bcher-kva.example./",
        "http://example.org/" + "a" * (MAX_URL - 19),
    ],
)
def test_urls_that_can_be_called_are_taken(text: str) -> None:
    check_callback_url(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "write http://HOST/PATH"),
        ("example.org/hook", "write http://HOST/PATH"),
        ("//example.org/", "write http://HOST/PATH"),
        ("http:/example.org", "write http://HOST/PATH"),
        ("ftp://example.org/", "write http://HOST/PATH"),
        ("file:///etc/passwd", "write http://HOST/PATH"),
        ("unix:///run/docker.sock", "write http://HOST/PATH"),
        ("http+unix://%2Frun%2Fdocker.sock/", "write http://HOST/PATH"),
        ("javascript:alert(1)", "write http://HOST/PATH"),
        ("http://", "its host must be"),
        ("http:///path", "its host must be"),
        ("http://:80/", "its host must be"),
        ("http://user:secret@example.org/", "user name"),
        ("http://example.org@127.0.0.1/", "user name"),
        ("http://example.org:0/", "port 0 is not"),
        ("http://example.org:65536/", "port 65536 is not"),
        ("http://example.org:http/", "its host must be"),
        ("http://example.org:/", "its host must be"),
        ("http://127.1/", "neither a host name nor an address"),
        ("http://2130706433/", "neither a host name nor an address"),
        ("http://0x7f000001/", "neither a host name nor an address"),
        ("http://0x7f.0.0.1/", "neither a host name nor an address"),
        ("http://0177.0.0.1/", "neither a host name nor an address"),
        ("http://127.0.0.1./", "neither a host name nor an address"),
        ("http://1.2.3.4.5/", "neither a host name nor an address"),
        ("http://[::1", "its host must be"),
        ("http://[fe80::1%25eth0]/", "its host must be"),
        ("http://[1.2.3.4]/", "neither a host name nor an address"),
        ("http://-a.example/", "neither a host name nor an address"),
        ("http://a..example/", "neither a host name nor an address"),
        ("http://./", "neither a host name nor an address"),
        ("http://%65xample.org/", "its host must be"),
        ("http://" + "a." * 130 + "org/", "neither a host name nor an address"),
        ("http://example.org/%zz", "two hexadecimal digits"),
        ("http://example.org/a b", "must be percent-encoded"),
        ("http://example.org/\r\nX: y", "must be percent-encoded"),
        ("http://example.org\\@127.0.0.1/", "must be percent-encoded"),
        ("http://bücher.example/", "must be percent-encoded"),
        ("http://example.org/" + "a" * MAX_URL, "characters, and 4096 are the most"),
    ],
)
def test_urls_that_cannot_be_called_are_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(BadInput, match=reason) as caught:
        check_callback_url(text)
    assert "secret" not in str(caught.value)
    assert len(str(caught.value)) < 300


@given(st.text(alphabet="htps:/.@[]%0x127aA-_?#\\ é", max_size=40).map(lambda rest: "http://" + rest))
@example("http://a#@b/")
@example("http://a?@b/")
def test_the_client_reads_the_same_host_as_the_check(text: str) -> None:
    try:
        check_callback_url(text)
    except BadInput:
        return
    url = URL(text, encoded=True)
    assert url.user is None
    assert (url.raw_host or "").lower() == urlsplit(text).hostname


def test_the_check_is_light_enough_for_a_proxy() -> None:
    code = "import sys, stoker_gateway.queue.callback_url; sys.exit('aiohttp' in sys.modules or 'yarl' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
