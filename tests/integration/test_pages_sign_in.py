"""Sessions, forms and where requests come from: what must hold against whoever sends a browser somewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from http.cookies import SimpleCookie
from pathlib import Path

import pytest
from control_harness import PASSWORD, credentials
from pages_harness import Pages, running_pages

from stoker_gateway.pages.sessions import Sessions


@pytest.fixture
async def pages(tmp_path: Path) -> AsyncIterator[Pages]:
    async with running_pages(tmp_path) as running:
        yield running


def cookie_of(headers: list[str], name: str) -> SimpleCookie:
    [found] = [header for header in headers if header.startswith(f"{name}=")]
    return SimpleCookie(found)


@pytest.mark.parametrize("path", ["", "functions", "owners/a", "repositories/a/b", "runs/1", "runs/1/log",
                                  "runs/1/events", "functions/openfaas-fn/greet"])  # fmt: skip
async def test_who_is_not_signed_in_is_asked_to(pages: Pages, path: str) -> None:
    async with await pages.browser().get(f"/ui/{path}") as response:
        assert (response.status, response.headers["Location"]) == (302, f"/ui/sign-in?next=/ui/{path}")


async def test_basic_credentials_are_for_the_api_and_not_for_pages(pages: Pages) -> None:
    async with await pages.browser().get("/ui/", Authorization=credentials("admin", PASSWORD)) as response:
        assert response.status == 302


async def test_the_right_password_opens_the_page_that_was_asked_for(pages: Pages) -> None:
    browser = pages.browser()
    async with await browser.sign_in(next="/ui/runs/7?a=b") as response:
        assert (response.status, response.headers["Location"]) == (303, "/ui/runs/7?a=b")
    assert "admin" in await browser.text("/ui/")


@pytest.mark.parametrize(
    "password", ["", "wrong", PASSWORD + " ", PASSWORD.upper(), "é", "\ud800".encode("utf-8", "replace").decode()]
)
async def test_a_wrong_password_opens_nothing(pages: Pages, password: str) -> None:
    browser = pages.browser()
    async with await browser.sign_in(password) as response:
        assert response.status == 403 and "User or password is wrong" in await response.text()
    async with await browser.get("/ui/") as response:
        assert response.status == 302


@pytest.mark.parametrize(
    "target",
    ["https://evil.example/", "//evil.example/", "/ui//evil.example", "/\\evil.example", "/ui/\\evil", "/function/evil",
     "javascript:alert(1)", "/ui/\r\nX: y", "ui/"],
)  # fmt: skip
async def test_no_link_leads_out_by_way_of_the_sign_in(pages: Pages, target: str) -> None:
    async with await pages.browser().sign_in(next=target) as response:
        assert response.headers["Location"] == "/ui/"


async def test_the_session_is_for_the_pages_alone_and_out_of_scripts_reach(pages: Pages) -> None:
    async with await pages.browser().sign_in() as response:
        cookie = cookie_of(response.headers.getall("Set-Cookie"), "stoker-session")["stoker-session"]
    assert (cookie["path"], cookie["samesite"], cookie["httponly"], cookie["secure"]) == ("/ui", "Lax", True, "")
    assert PASSWORD not in cookie.value and "admin" not in cookie.value
    browser = pages.browser()
    form = {"token": await browser.token("/ui/sign-in"), "user": "admin", "password": PASSWORD}
    async with await browser.post("/ui/sign-in", form, X_Forwarded_Proto="https") as response:
        name = "__Secure-stoker-session"
        cookie = cookie_of(response.headers.getall("Set-Cookie"), name)[name]
    assert cookie["secure"] and cookie["httponly"]


async def test_a_session_that_was_changed_is_none(pages: Pages, tmp_path: Path) -> None:
    text = Sessions(PASSWORD, tmp_path / "x").begin("admin", is_admin=True)
    forged = Sessions("another password", tmp_path / "y").begin("admin", is_admin=True)
    for value, status in ((text, 200), (text[:-3] + "AAA", 302), (forged, 302), ("", 302), ("x" * 5000, 302)):
        async with await pages.browser().get("/ui/", Cookie=f"stoker-session={value}") as response:
            assert response.status == status, value[:20]


async def test_what_is_sealed_for_one_thing_does_not_stand_for_another(pages: Pages) -> None:
    browser = pages.browser()
    async with await browser.get("/ui/github") as there:
        flow = cookie_of(there.headers.getall("Set-Cookie"), "stoker-github")["stoker-github"].value
    async with await pages.browser().get("/ui/", Cookie=f"stoker-session={flow}") as response:
        assert response.status == 302


async def test_signing_out_ends_the_session_also_for_who_has_copied_it(pages: Pages, tmp_path: Path) -> None:
    browser = await pages.admin()
    [copied] = [one.value for one in browser.client.cookie_jar if one.key == "stoker-session"]
    async with await browser.post("/ui/sign-out", {"token": await browser.token()}) as response:
        assert (response.status, response.headers["Location"]) == (303, "/ui/sign-in")
    for client in (browser, pages.browser()):
        async with await client.get("/ui/", Cookie=f"stoker-session={copied}") as response:
            assert response.status == 302
    text = (tmp_path / "ended-sessions.json").read_text()
    assert copied not in text
    again = Sessions(PASSWORD, tmp_path / "ended-sessions.json")  # the process that is started next
    assert again._ended


@pytest.mark.parametrize("token", ["", "x", "0" * 64])
async def test_a_form_without_our_token_does_nothing(pages: Pages, token: str) -> None:
    pages.pipeline.add("alice", "hello")
    browser = await pages.admin()
    for path in ("/ui/runs/1/retry", "/ui/runs/1/cancel", "/ui/sign-out"):
        async with await browser.post(path, {"token": token}) as response:
            assert response.status == 403
    assert not [asked for asked in pages.pipeline.asked if not asked.startswith("GET")]
    await browser.text("/ui/")


async def test_the_token_of_another_session_is_none_of_ours(pages: Pages) -> None:
    pages.pipeline.add("alice", "hello")
    theirs = await (await pages.owner("alice")).token()
    browser = await pages.admin()
    async with await browser.post("/ui/runs/1/retry", {"token": theirs}) as response:
        assert response.status == 403


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"},
     {"Sec_Fetch_Site": "same-site"}, {"Origin": "http://127.0.0.1:1"}],
)  # fmt: skip
async def test_a_form_from_elsewhere_does_nothing_even_with_the_token(pages: Pages, headers: dict[str, str]) -> None:
    pages.pipeline.add("alice", "hello")
    browser = await pages.admin()
    async with await browser.post("/ui/runs/1/retry", {"token": await browser.token()}, **headers) as response:
        assert response.status == 403
    assert "POST /system/runs/1/retry" not in pages.pipeline.asked


async def test_nobody_can_be_signed_in_by_a_foreign_form(pages: Pages) -> None:
    token = await pages.browser().token("/ui/sign-in")  # the attacker's own
    form = {"token": token, "user": "admin", "password": PASSWORD}
    async with await pages.browser().post("/ui/sign-in", form) as response:
        assert response.status == 403 and "stoker-session" not in str(response.headers.getall("Set-Cookie"))


async def test_pages_are_neither_framed_nor_fetched(pages: Pages) -> None:
    browser = await pages.admin()
    async with await browser.get("/ui/") as response:
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert response.headers["Cache-Control"] == "no-store" and "Server" not in response.headers
    for dest in ("iframe", "empty", "script", "image"):
        async with await browser.get("/ui/", Sec_Fetch_Dest=dest) as response:
            assert response.status == 403
    async with await browser.get("/ui/static/live.js", Sec_Fetch_Dest="script") as response:
        assert response.status == 200 and "immutable" in response.headers["Cache-Control"]


async def test_no_page_has_a_script_or_style_in_it(pages: Pages) -> None:
    pages.pipeline.add("alice", "hello", state="running", ended_at="")
    name = await pages.deploy_of("alice", "hello", "greet")
    browser = await pages.admin()
    for path in (
        "",
        "functions",
        "owners/alice",
        "repositories/alice/hello",
        "runs/1",
        f"functions/openfaas-fn/{name}",
    ):
        text = await browser.text(f"/ui/{path}")
        assert "style=" not in text and "<style" not in text and " onclick" not in text
        assert text.count("<script") == (path == "runs/1")


async def test_on_a_host_of_their_own_pages_are_nowhere_else(tmp_path: Path) -> None:
    async with running_pages(tmp_path, host="pages.example.org", gateway="https://faas.example.org") as pages:
        port = pages.url.rpartition(":")[2]
        async with await pages.browser().get("/ui/runs/1?a=b", Host=f"faas.example.org:{port}") as response:
            assert response.status == 302
            assert response.headers["Location"] == f"http://pages.example.org:{port}/ui/runs/1?a=b"
        host = f"Pages.example.org:{port}"
        async with await pages.browser().get("/ui/sign-in", Host=host) as response:
            assert response.status == 200
        await pages.control.deploy()
        session = f"stoker-session={Sessions(PASSWORD, tmp_path / 'x').begin('admin', is_admin=True)}"
        async with await pages.browser().get("/ui/", Host=host, Cookie=session) as response:
            assert "https://faas.example.org/function/greet" in await response.text()


async def test_a_password_over_plain_http_is_warned_of(pages: Pages) -> None:
    browser = pages.browser()
    assert "not encrypted" not in await browser.text("/ui/sign-in")  # 127.0.0.1
    async with await browser.get("/ui/sign-in", Host="faas.example.org:8080") as response:
        assert "not encrypted" in await response.text()
    async with await browser.get("/ui/sign-in", Host="faas.example.org", X_Forwarded_Proto="https") as response:
        assert "not encrypted" not in await response.text()


# GitHub


async def test_github_tells_who_somebody_is_and_their_token_is_kept_nowhere(pages: Pages, tmp_path: Path) -> None:
    pages.github.login, pages.github.organisations = "Alice", [f"org-{number}" for number in range(130)]
    browser = pages.browser()
    async with await browser.sign_in_with_github("/ui/functions") as response:
        assert (response.status, response.headers["Location"]) == (303, "/ui/functions")
        assert pages.github.tokens.pop() not in str(response.headers)
    assert pages.github.asked == ["/user", "/user/memberships/orgs", "/user/memberships/orgs"]
    assert "Alice" in await browser.text("/ui/owners/alice")
    await browser.text("/ui/owners/org-10")
    await browser.text("/ui/owners/bob", 404)


async def test_an_app_that_may_not_read_members_shows_people_their_own(pages: Pages) -> None:
    pages.github.login, pages.github.is_forbidden = "Alice", True
    browser = pages.browser()
    async with await browser.sign_in_with_github() as response:
        assert response.status == 303
    await browser.text("/ui/owners/alice")
    await browser.text("/ui/owners/org-10", 404)


async def test_a_sign_in_that_began_elsewhere_is_refused(pages: Pages) -> None:
    attacker, victim = pages.browser(), pages.browser()
    path = await attacker.go_to_github()
    async with await victim.get(path) as response:
        assert response.status == 403 and "stoker-session" not in str(response.headers.getall("Set-Cookie", []))
    await victim.get("/ui/github")  # a flow of their own does not fit either
    async with await victim.get(path) as response:
        assert response.status == 403


async def test_a_code_is_good_once(pages: Pages) -> None:
    browser = pages.browser()
    path = await browser.go_to_github()
    pages.github.codes.clear()
    async with await browser.get(path) as response:
        assert response.status == 403 and "did not confirm" in await response.text()


@pytest.mark.parametrize("query", ["", "?state=", "?code=x", "?error=access_denied"])
async def test_who_comes_back_with_nothing_is_told_to_begin_again(pages: Pages, query: str) -> None:
    browser = pages.browser()
    await browser.get("/ui/github")
    async with await browser.get(f"/ui/github/back{query}") as response:
        assert response.status == 403 and "Sign in" in await response.text()
