"""The pages: what they show, to whom, and that nothing that strangers write gets into their HTML."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from control_harness import GREET
from pages_harness import SHA, Browser, Pages, running_pages

from stoker_sdk.runs import FunctionResult, RunLine

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7*7777 }}"


@pytest.fixture
async def pages(tmp_path: Path) -> AsyncIterator[Pages]:
    async with running_pages(tmp_path) as running:
        yield running


async def test_the_overview_has_every_owner_and_what_was_deployed_by_hand(pages: Pages) -> None:
    pages.pipeline.add("alice", "hello")
    pages.pipeline.add("bob", "broken", state="failed")
    name = await pages.deploy_of("alice", "hello", "greet")
    await pages.control.deploy("plain")
    pages.control.counters.start(f"{name}.openfaas-fn")
    pages.control.counters.end(f"{name}.openfaas-fn", 500, 0.02)
    text = await (await pages.admin()).text("/ui/")
    assert f'href="{pages.url}/function/{name}"' in text and SHA[:7] in text and SHA not in text
    for part in ("Deployed by hand", ">plain</a>", "/ui/owners/bob", "broken", "failed", 'class="bad-text">1<'):
        assert part in text, part


async def test_an_empty_platform_says_how_to_begin(pages: Pages) -> None:
    text = await (await pages.admin()).text("/ui/")
    assert "stoker up" in text and f"git remote add stoker {pages.url}/git/ME/REPOSITORY" in text
    text = await (await pages.owner("Carol")).text("/ui/")
    assert "carol" in text and "that this platform is connected to" in text and "stoker up" not in text


async def test_without_git_there_is_a_plain_list_of_functions_and_nobody_asks_the_pipeline(tmp_path: Path) -> None:
    async with running_pages(tmp_path, has_git=False) as pages:
        await pages.control.deploy("greet")
        browser = await pages.admin()
        text = await browser.text("/ui/functions")
        for part in ("greet", "example/greet:1", "1 of 1", f"{pages.url}/function/greet"):
            assert part in text, part
        await browser.text("/ui/runs/1", 404)
        assert not pages.pipeline.asked


async def test_a_function_shows_names_of_variables_and_secrets_but_no_value(pages: Pages) -> None:
    await pages.control.client.post("/system/secrets", json={"name": "api-key", "value": "the secret value"})
    await pages.control.deploy(envVars={"LEVEL": "the level's value"}, secrets=["api-key"])
    await pages.control.provider.print(GREET, "a line")
    text = await (await pages.admin()).text("/ui/functions/openfaas-fn/greet")
    assert "LEVEL" in text and "api-key" in text and "a line" in text
    assert "value" not in re.sub(r"<input[^>]*>", "", text)


async def test_nothing_that_strangers_write_is_html(pages: Pages) -> None:
    functions = [FunctionResult(HOSTILE, "s", "failed", reason=HOSTILE, test=HOSTILE, image=HOSTILE)]
    pages.pipeline.add("alice", "hello", state="failed", subject=HOSTILE, reason=HOSTILE, functions=functions)
    pages.pipeline.lines[1] = [RunLine("2026-01-31T12:00:00Z", HOSTILE, HOSTILE)]
    name = await pages.deploy_of("alice", "hello", "greet", envProcess=HOSTILE, image=f"x/y:1{HOSTILE}")
    await pages.control.provider.print(GREET._replace(name=name), HOSTILE)
    browser = await pages.admin()
    for path in (
        "/ui/",
        "/ui/functions",
        "/ui/owners/alice",
        "/ui/repositories/alice/hello",
        "/ui/runs/1",
        f"/ui/functions/openfaas-fn/{name}",
    ):
        text = await browser.text(path)
        assert "<script>alert" not in text and "<img src=x" not in text and "54439" not in text, path
    async with await browser.get("/ui/runs/1/events") as events:
        assert "<script>" not in await events.text()
    async with await browser.get("/ui/runs/1/log") as log:
        assert log.content_type == "text/plain" and log.headers["X-Content-Type-Options"] == "nosniff"


async def test_names_in_addresses_are_looked_up_and_never_shown_raw(pages: Pages) -> None:
    browser = await pages.admin()
    for path in ("owners/%3Cscript%3E", "functions/a/%3Cb%3E", "functions/..%2f/x", "repositories/%00/x", "runs/1e3",
                 "runs/%D9%A1", "static/..%2f..%2fapp.py", "nowhere"):  # fmt: skip
        text = await browser.text(f"/ui/{path}", 404)
        assert "<script>" not in text and "<b>" not in text


async def test_owners_see_their_own_and_their_organisations_only(pages: Pages) -> None:
    for owner in ("alice", "alic", "acme", "bob"):
        pages.pipeline.add(owner, "hello")
        await pages.deploy_of(owner, "hello", "greet")
    await pages.control.deploy("plain")
    browser = await pages.owner("Alice", "ACME")
    for path in ("/ui/", "/ui/functions"):
        text = await browser.text(path)
        assert "greet--hello--alice" in text and "greet--hello--acme" in text
        assert "hello--bob" not in text and "hello--alic<" not in text and ">plain<" not in text
    await browser.text("/ui/owners/alice")
    await browser.text("/ui/owners/acme")


@pytest.mark.parametrize(
    "path",
    ["owners/bob", "repositories/bob/hello", "runs/1", "runs/1/log", "runs/1/events",
     "functions/openfaas-fn/greet--hello--bob", "functions/openfaas-fn/plain"],
)  # fmt: skip
async def test_another_owners_page_is_refused_as_if_there_was_none(pages: Pages, path: str) -> None:
    pages.pipeline.add("bob", "hello")
    await pages.deploy_of("bob", "hello", "greet")
    await pages.control.deploy("plain")
    await (await pages.admin()).text(f"/ui/{path}")
    browser = await pages.owner("alice")
    refused = await browser.text(f"/ui/{path}", 404)
    missing = await browser.text("/ui/owners/nobody-at-all", 404)
    assert refused == missing


async def test_another_owners_run_is_neither_repeated_nor_cancelled(pages: Pages) -> None:
    pages.pipeline.add("bob", "hello")
    pages.pipeline.add("alice", "hello")
    browser = await pages.owner("alice")
    token = await browser.token()
    for action in ("retry", "cancel"):
        async with await browser.post(f"/ui/runs/1/{action}", {"token": token}) as refused:
            assert refused.status == 404
    assert {asked for asked in pages.pipeline.asked if not asked.startswith("GET")} == set()
    async with await browser.post("/ui/runs/2/retry", {"token": token}) as done:
        assert (done.status, done.headers["Location"]) == (303, "/ui/runs/2")
    assert "POST /system/runs/2/retry" in pages.pipeline.asked


async def events_of(browser: Browser, path: str, **headers: str) -> list[tuple[str, str, str]]:
    """Id, event and data of each."""
    async with await browser.get(path, **headers) as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        blocks = (await response.text()).strip().split("\n\n")
    found = []
    for block in blocks:
        fields = [line.partition(": ") for line in block.splitlines()]
        values = {name: "\n".join(text for key, _, text in fields if key == name) for name in ("id", "event", "data")}
        found.append((values["id"], values["event"], values["data"]))
    return found


async def test_a_live_log_goes_on_where_the_browser_was(pages: Pages) -> None:
    pages.pipeline.add("alice", "hello")
    pages.pipeline.lines[1] = [RunLine("2026-01-31T12:00:00Z", f"line {number}") for number in range(1, 5)]
    browser = await pages.admin()
    whole = await events_of(browser, "/ui/runs/1/events")
    assert [(id, event) for id, event, _ in whole] == [
        *((str(number), "line") for number in range(1, 5)),
        ("", "head"),
        ("", "end"),
    ]
    assert "line 4" in whole[3][2] and "succeeded" in whole[4][2]
    for path, headers in (("?after=3", {}), ("", {"Last_Event_ID": "3"}), ("?after=1", {"Last_Event_ID": "3"})):
        resumed = await events_of(browser, f"/ui/runs/1/events{path}", **headers)
        assert [id for id, event, _ in resumed if event == "line"] == ["4"]


async def test_a_long_log_is_shown_from_its_end_and_whole_as_a_text(pages: Pages) -> None:
    pages.pipeline.add("alice", "hello")
    pages.pipeline.lines[1] = [RunLine("2026-01-31T12:00:00Z", f"line-{number}") for number in range(2500)]
    browser = await pages.admin()
    text = await browser.text("/ui/runs/1")
    assert "line-499<" not in text and "line-500<" in text and "500 more lines" in text
    assert (await browser.text("/ui/runs/1/log")).count("\n") == 2500


async def test_of_many_functions_what_failed_comes_first_and_what_was_left_alone_is_a_list(pages: Pages) -> None:
    left = [FunctionResult(f"same{number}", state="unchanged", url=f"https://h/{number}") for number in range(30)]
    changed = [FunctionResult("good", state="deployed"), FunctionResult("bad", state="failed")]
    pages.pipeline.add("alice", "hello", state="failed", functions=[*left[:20], *changed, *left[20:]])
    text = await (await pages.admin()).text("/ui/runs/1")
    titles = [re.sub(r"<.*", "", title).strip() for title in re.findall(r"<h2>(.*)</h2>", text)]
    assert titles == ["bad", "good", "Unchanged", "Log"]
    assert text.count('<li><a href="https://h/') == 30


async def test_a_run_that_goes_has_the_script_and_a_link_for_those_without(pages: Pages) -> None:
    pages.pipeline.add("alice", "hello", state="running", ended_at="")
    pages.pipeline.lines[1] = [RunLine("2026-01-31T12:00:00Z", "begun")]
    browser = await pages.admin()
    text = await browser.text("/ui/runs/1")
    assert "live.js" in text and "/ui/runs/1/events?after=1" in text and ">Refresh</a>" in text
    assert "Cancel this run" in text
    pages.pipeline.add("alice", "hello")
    assert "live.js" not in await browser.text("/ui/runs/2")


async def badge(browser: Browser, path: str) -> str:
    async with await browser.get(path) as response:
        assert (response.status, response.content_type) == (200, "image/svg+xml")
        assert response.headers["Cache-Control"] == "no-cache"
        match = re.search(r"<title>stoker: (\w+)</title>", await response.text())
        assert match is not None
        return match[1]


async def test_a_badge_tells_the_last_verdict_to_who_has_its_address(pages: Pages) -> None:
    results = [FunctionResult("greet", "g", "unchanged"), FunctionResult("wave", "w", "failed")]
    pages.pipeline.add("alice", "hello")
    pages.pipeline.add("alice", "hello", state="failed", functions=results)
    pages.pipeline.add("alice", "hello", state="running", ended_at="")
    match = re.search(
        r'src="(/badge/alice/hello\.svg\?key=\w+)"', await (await pages.admin()).text("/ui/repositories/alice/hello")
    )
    assert match is not None
    stranger, path = pages.browser(), match[1]
    assert await badge(stranger, path) == "failing"
    assert await badge(stranger, path + "&function=greet") == "passing"
    assert await badge(stranger, path + "&function=wave") == "failing"
    for wrong in ("/badge/alice/hello.svg", path[:-1], path.replace("hello", "other"), "/badge/no/body.svg?key=x"):
        assert await badge(stranger, wrong) == "unknown"
    async with (
        await stranger.get(path) as first,
        await stranger.get(path, If_None_Match=first.headers["ETag"]) as again,
    ):
        assert (again.status, await again.read()) == (304, b"")


async def test_badges_may_be_public(tmp_path: Path) -> None:
    async with running_pages(tmp_path, public_badges=True) as pages:
        pages.pipeline.add("alice", "hello")
        assert await badge(pages.browser(), "/badge/Alice/Hello.svg") == "passing"


async def test_a_control_that_is_away_is_told_in_words(pages: Pages) -> None:
    browser = await pages.admin()
    pages.control.socket.unlink()
    await asyncio.sleep(0)
    text = await browser.text("/ui/", 503)
    assert "try again" in text
