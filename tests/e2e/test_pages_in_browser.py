"""The pages in a real Chromium, of a real platform: for people with and without a script, a wide screen, a good eye."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from github_oauth import CLIENT_ID, CLIENT_SECRET, GitHubOAuth
from playwright.sync_api import Browser, Page, expect, sync_playwright
from running_platform import Platform, wait_for
from working_copy import WorkingCopy, handler, passing, stack

pytestmark = pytest.mark.slow

DOMAIN = "stoker.localhost"
HOST = f"pages.{DOMAIN}"
PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
HOSTILE = "<img src=x onerror=\"document.title='taken'\"> & <script>document.title='taken'</script>"
SLOW_TEST = """import time
from .handler import handle
def test_it_answers():
    for number in range(8):
        print("waited", number)
        time.sleep(0.5)
    assert handle("x") == "slow x"
"""


@pytest.fixture(scope="module")
def github() -> Iterator[GitHubOAuth]:
    with GitHubOAuth("nobody").in_a_thread() as running:
        yield running


@pytest.fixture(scope="module")
def site(platform: Platform, github: GitHubOAuth, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform where people sign in with GitHub, with the functions of two owners and one by hand."""
    secret = tmp_path_factory.mktemp("oauth") / "secret"
    secret.write_text(CLIENT_SECRET)
    flags = [*("--domain", DOMAIN, "--pages-host", HOST, "--github-oauth-api-url", github.url)]
    flags += ["--github-oauth-client-id", CLIENT_ID, "--github-oauth-secret-file", str(secret)]
    own = Platform(like=platform, flags=tuple(flags))
    try:
        own.start()
        own.deploy("plain", "def handle(req):\n    raise ValueError(req)")
        own.call("plain", HOSTILE.encode())
        for owner in ("alice", "bob"):
            copy = WorkingCopy(own, tmp_path_factory.mktemp(owner) / "hello", f"{owner}/hello")
            copy.commit(f"Greet {HOSTILE}", **passing("greet", "hello "), stackDOTyml=stack("greet"))
            assert copy.push().code == 0
            copy.answer("greet")
        yield own
    finally:
        print(own.log if own.log_file.exists() else "")
        own.delete()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert program, "install chromium, or run tests/needs.sh"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visitor:
    """One browser with cookies of its own."""

    def __init__(self, chromium: Browser, site: Platform, **settings: Any) -> None:
        self.context = chromium.new_context(base_url=f"http://{HOST}:{site.http[1]}", **settings)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.password = site.data.password.read_text().strip()

    def sign_in(self) -> Page:
        self.page.goto("/ui/")
        self.page.get_by_label("Password").fill(self.password)
        self.page.get_by_role("button", name="Sign in").click()
        expect(self.page.get_by_role("heading", name="Overview")).to_be_visible()
        return self.page

    def sign_in_with_github(self) -> Page:
        self.page.goto("/ui/")
        assert_accessible(self.page)
        self.page.get_by_role("link", name="Sign in with GitHub").click()
        expect(self.page.get_by_role("heading", name="Overview")).to_be_visible()
        return self.page


@pytest.fixture
def visit(chromium: Browser, site: Platform) -> Iterator[Any]:
    """Makes visitors; nothing may have been written to a console at the end."""
    made: list[Visitor] = []

    def make(**settings: Any) -> Visitor:
        made.append(Visitor(chromium, site, **settings))
        return made[-1]

    yield make
    for one in made:
        one.context.close()
    assert [text for one in made for text in one.complaints if "404" not in text] == []


def pages_of(site: Platform, owner: str = "alice") -> list[str]:
    run = site.client.runs.list_runs(owner=owner)[-1]
    return [
        "/ui/",
        "/ui/functions",
        f"/ui/owners/{owner}",
        f"/ui/repositories/{owner}/hello",
        f"/ui/runs/{run.id}",
        f"/ui/functions/openfaas-fn/greet--hello--{owner}",
        "/ui/functions/openfaas-fn/plain",
        "/ui/owners/nobody",
    ]


def assert_accessible(page: Page) -> None:
    violations = Axe().run(page).response["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in violations] == []


def assert_fits(page: Page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), page.url


def test_the_administrator_signs_in_looks_and_signs_out(site: Platform, visit: Any) -> None:
    page = visit().sign_in()
    assert_accessible(page)
    row = page.get_by_role("row", name="greet").first
    expect(row.get_by_text("ready")).to_be_visible()
    expect(row.get_by_role("link", name="hello", exact=True)).to_be_visible()
    expect(page.get_by_role("heading", name="Deployed by hand")).to_be_visible()
    address = row.locator("a.address").get_attribute("href")
    assert address == f"https://alice.{DOMAIN}:{site.https[1]}/greet"
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in", exact=True)).to_be_visible()
    assert_accessible(page)
    page.goto("/ui/functions")
    assert "/ui/sign-in" in page.url


def test_a_wrong_password_is_told_and_read_out(visit: Any) -> None:
    visitor = visit()
    visitor.page.goto("/ui/")
    visitor.page.get_by_label("Password").fill("wrong")
    visitor.page.get_by_role("button", name="Sign in").click()
    expect(visitor.page.get_by_role("alert")).to_have_text("User or password is wrong.")
    assert_accessible(visitor.page)
    visitor.complaints.clear()  # the 403


@pytest.mark.parametrize("settings", [{}, {"color_scheme": "dark"}, PHONE, PHONE | {"color_scheme": "dark"}],
                         ids=["wide", "dark", "phone", "dark phone"])  # fmt: skip
def test_every_page_is_accessible_and_fits(site: Platform, visit: Any, settings: dict[str, Any]) -> None:
    page = visit(**settings).sign_in()
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(22, 24, 27)") == (settings.get("color_scheme") == "dark")
    for path in pages_of(site):
        page.goto(path)
        assert_accessible(page)
        assert_fits(page)
        assert page.title() != "taken"


def test_without_a_script_every_page_says_the_same(site: Platform, visit: Any) -> None:
    page = visit(java_script_enabled=False).sign_in()
    for path in pages_of(site):
        page.goto(path)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
    page.goto(pages_of(site)[4])
    expect(page.get_by_label("Log of the run")).to_contain_text("live at")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in", exact=True)).to_be_visible()


def test_a_log_grows_while_its_run_goes(site: Platform, visit: Any, tmp_path: Path) -> None:
    copy = WorkingCopy(site, tmp_path / "slow", "alice/slow")
    files = {"slow__handlerDOTpy": handler("slow "), "slow__handler_testDOTpy": SLOW_TEST}
    copy.commit("Slow", **files, stackDOTyml=stack("slow"))
    push = copy.start("push", copy.url, "main")
    run = wait_for(lambda: copy.runs(), "the run")[0]
    page = visit().sign_in()
    still = visit(java_script_enabled=False).sign_in()
    for each in (page, still):
        each.goto(f"/ui/runs/{run.id}")
    expect(still.get_by_role("link", name="Refresh")).to_be_visible()
    expect(page.get_by_role("link", name="Refresh")).to_be_hidden()
    assert_accessible(page)
    log = page.get_by_label("Log of the run")
    expect(log).to_contain_text("slow live at", timeout=60_000)
    push.communicate(timeout=60)
    expect(page.locator("#run > .lead .state")).to_have_text("succeeded")
    expect(page.get_by_role("list", name="From commit to first call of slow")).to_contain_text("ready")
    expect(page.get_by_role("button", name="Cancel this run")).to_be_hidden()
    lines = [line.text for line in site.client.runs.log(run.id)]
    assert log.locator(".line").count() == len(lines), "each line once"
    assert_accessible(page)
    copy.answer("slow")
    still.get_by_role("link", name="Refresh").click()
    expect(still.get_by_text(f"run {run.id} succeeded")).to_be_visible()


def test_a_log_goes_on_after_the_end_of_the_pages_process(site: Platform, visit: Any, tmp_path: Path) -> None:
    copy = WorkingCopy(site, tmp_path / "going", "alice/going")
    files = {"going__handlerDOTpy": handler("slow "), "going__handler_testDOTpy": SLOW_TEST}
    copy.commit("Going", **files, stackDOTyml=stack("going"))
    push = copy.start("push", copy.url, "main")
    run = wait_for(lambda: copy.runs(), "the run")[0]
    visitor = visit()
    page = visitor.sign_in()
    page.goto(f"/ui/runs/{run.id}")
    log = page.get_by_label("Log of the run")
    expect(log).to_contain_text("going tests:", timeout=60_000)
    site.kill("the pages")
    expect(log).to_contain_text("succeeded", timeout=60_000)
    push.communicate(timeout=60)
    said = [line.text for line in site.client.runs.log(run.id)]
    shown = log.locator(".line > span").all_inner_texts()
    assert [text.strip() for text in shown] == [text.strip() for text in said]
    visitor.complaints.clear()  # the broken connection


def test_the_first_call_of_a_run_is_on_its_page(site: Platform, visit: Any) -> None:
    page = visit().sign_in()
    page.goto(pages_of(site, "bob")[4])
    way = page.get_by_role("list", name="From commit to first call of greet")
    expect(way.get_by_role("listitem")).to_have_count(5)
    expect(way.locator("li.done")).to_have_count(5)


def test_an_owner_sees_their_own_and_is_refused_anothers(site: Platform, visit: Any, github: GitHubOAuth) -> None:
    github.login = "Alice"
    page = visit().sign_in_with_github()
    expect(page.get_by_role("link", name="alice", exact=True)).to_be_visible()
    for path in pages_of(site, "alice")[:6]:
        page.goto(path)
        assert "bob" not in page.content() and "plain<" not in page.content()
    for path in (*pages_of(site, "bob")[2:6], "/ui/functions/openfaas-fn/plain"):
        answer = page.goto(path)
        assert answer is not None and answer.status == 404
        expect(page.get_by_role("heading", name="Not found")).to_be_visible()
        expect(page.get_by_text("nothing here, or nothing that you may see")).to_be_visible()
        assert_accessible(page)


@pytest.mark.parametrize("settings", [{}, PHONE | {"java_script_enabled": False}], ids=["wide", "phone, no script"])
def test_a_function_is_called_from_its_page(site: Platform, visit: Any, settings: dict[str, Any]) -> None:
    page = visit(**settings).sign_in()
    page.goto("/ui/functions/openfaas-fn/greet--hello--alice")
    page.get_by_label("Or from here").fill(HOSTILE)
    page.get_by_role("button", name="Call").click()
    answer = page.locator("#answer")
    expect(answer.get_by_label("Its answer")).to_have_text(f"hello {HOSTILE}")
    expect(answer.locator(".state.good")).to_have_text("200")
    expect(page.get_by_label("Or from here")).to_have_value(HOSTILE)
    if not settings:
        assert_accessible(page)
        assert_fits(page)
    page.goto("/ui/functions/openfaas-fn/plain")
    page.get_by_role("button", name="Call").click()
    expect(answer.locator(".state.bad")).to_have_text("500")
    assert page.title() != "taken"


def test_another_owners_function_is_not_called(site: Platform, visit: Any, github: GitHubOAuth) -> None:
    github.login = "alice"
    visitor = visit()
    page = visitor.sign_in_with_github()
    page.goto(pages_of(site)[5])
    form = page.locator("form.call")
    form.evaluate("form => form.action = '/ui/functions/openfaas-fn/greet--hello--bob/call'")
    page.get_by_role("button", name="Call").click()
    expect(page.get_by_role("heading", name="Not found")).to_be_visible()
    visitor.complaints.clear()  # the 404


def test_badge_and_overview_follow_the_pushes(site: Platform, visit: Any, tmp_path: Path) -> None:
    copy = WorkingCopy(site, tmp_path / "tested", "carol/tested")
    copy.commit(**passing("greet", "old "), stackDOTyml=stack("greet"))
    assert copy.push().code == 0
    page = visit().sign_in()
    page.goto("/ui/repositories/carol/tested")
    badge = page.get_by_role("img", name="Badge").get_attribute("src")
    assert badge is not None
    pages_host = {"Host": f"{HOST}:80"}
    assert "stoker: passing" in site.request("GET", badge, b"", pages_host).text
    copy.commit(greet__handlerDOTpy=handler("broken "))
    copy.push()
    assert "stoker: failing" in site.request("GET", badge, b"", pages_host).text
    page.goto("/ui/owners/carol")
    assert [state.inner_text() for state in page.locator(".state").all()] == ["ready", "failed"]
    assert copy.answer("greet") == "old you"
    page.goto("/ui/repositories/carol/tested")
    expect(page.get_by_text("test failed: handler_test.py::test_it_answers")).to_be_visible()


def test_a_run_is_repeated_by_a_button(site: Platform, visit: Any, github: GitHubOAuth) -> None:
    github.login = "bob"
    page = visit().sign_in_with_github()
    before = len(site.client.runs.list_runs(owner="bob"))
    page.goto(pages_of(site, "bob")[4])
    page.get_by_role("button", name="Run again").click()
    expect(page.get_by_text("repeats run")).to_be_visible()
    assert len(site.client.runs.list_runs(owner="bob")) == before + 1
    expect(page.locator("#run > .lead .state")).to_have_text("succeeded", timeout=60_000)


def test_the_host_of_the_pages_has_no_functions_and_others_have_no_pages(site: Platform) -> None:
    assert site.request("GET", "/function/plain", b"", {"Host": f"{HOST}:80"}).status == 404
    assert site.request("GET", "/system/functions", b"", {"Host": HOST.upper()}).status == 404
    elsewhere = site.request("GET", "/ui/functions", b"", {"Host": "127.0.0.1:8080"})
    assert (elsewhere.status, elsewhere.headers["location"]) == (302, f"http://{HOST}:8080/ui/functions")
    assert site.call("plain", b"x").status == 500
    assert site.request("POST", "/greet", b"you", {"Host": f"alice.{DOMAIN}"}).text == "hello you"
    assert site.request("GET", "/ui/", b"", {"Host": f"alice.{DOMAIN}"}).status == 404


def test_the_cookies_of_a_visitor_never_reach_a_function(own_platform: Platform, chromium: Browser) -> None:
    own_platform.deploy("headers", {"handler.py": "def handle(event, context):\n    return str(event.headers)"},
                        lang="python3-http")  # fmt: skip
    context = chromium.new_context(base_url=own_platform.http_url)
    page = context.new_page()
    page.goto("/ui/")
    page.get_by_label("Password").fill(own_platform.data.password.read_text().strip())
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    assert [cookie["name"] for cookie in context.cookies(f"{own_platform.http_url}/ui/")]
    page.goto("/function/headers")
    assert "stoker-session" not in page.content() and "user-agent" in page.content().lower()
    context.close()


def test_nobody_pays_for_pages_that_nobody_opens(own_platform: Platform) -> None:
    assert "the pages" not in own_platform.pids()
    assert own_platform.request("GET", "/ui/sign-in", b"").status == 200
    own_platform.kill("the pages")
    assert own_platform.request("GET", "/ui/sign-in", b"").status == 200
