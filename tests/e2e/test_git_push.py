"""A push to the platform's own git remote, from the first one on: live, changed, refused, removed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from loads import calls_going_on, wrk
from running_platform import Platform, wait_for
from working_copy import WorkingCopy, handler, passing, stack

from stoker_sdk.errors import NotFound
from stoker_sdk.function import FunctionSpec

pytestmark = pytest.mark.slow


@pytest.fixture
def copy(platform: Platform, tmp_path: Path, request: pytest.FixtureRequest) -> WorkingCopy:
    """An empty repository of an owner of this test's own."""
    owner = request.node.name.replace("_", "-").removeprefix("test-")[:38].strip("-")
    return WorkingCopy(platform, tmp_path / "greet", f"{owner}/greet")


def test_a_fresh_repository_is_live_after_one_push(copy: WorkingCopy) -> None:
    copy.commit(**passing("greet", "fresh "), stackDOTyml=stack("greet"))
    pushed = copy.push()
    assert pushed.code == 0, pushed.said
    assert copy.answer("greet") == "fresh you"
    assert "greet: 1 passed" in pushed.said
    address = next(line for line in pushed.lines if line.startswith("greet: live at "))
    assert address.endswith(f"/function/{copy.service('greet')}")
    run = copy.runs()[0]
    assert (run.state, [each.state for each in run.functions]) == ("succeeded", ["deployed"])


def test_an_edit_is_live_without_a_failed_call(copy: WorkingCopy) -> None:
    copy.commit(**passing("greet", "one "), stackDOTyml=stack("greet"))
    assert copy.push().code == 0
    with wrk(copy.platform, copy.service("greet"), method="POST") as load:
        copy.commit(**passing("greet", "two "))
        with calls_going_on(copy.platform, copy.service("greet")):
            assert copy.push("-o", "wait").code == 0
        report = load.report()
    assert copy.answer("greet") == "two you"
    assert (report.bad, report.socket, report.timeout) == (0, 0, 0)


def test_a_broken_test_is_named_and_the_old_version_answers(copy: WorkingCopy) -> None:
    copy.commit(**passing("greet", "old "), stackDOTyml=stack("greet"))
    assert copy.push().code == 0
    copy.commit(greet__handlerDOTpy=handler("broken "))
    refused = copy.push("-o", "wait")
    assert refused.code == 1 and "[remote rejected]" in refused.said
    assert "test failed: handler_test.py::test_it_answers" in refused.said
    assert copy.answer("greet") == "old you"
    assert any(line.startswith("greet: what was there before goes on: http") for line in refused.lines)
    run = copy.runs()[0]
    assert (run.state, run.functions[0].test) == ("failed", "handler_test.py::test_it_answers")
    copy.commit(**passing("greet", "new "))
    assert copy.push().code == 0
    assert copy.answer("greet") == "new you"


def test_a_version_that_does_not_start_never_goes_live_not_even_later(copy: WorkingCopy) -> None:
    copy.commit(greet__handlerDOTpy=handler("old "), stackDOTyml=stack("greet"))
    assert copy.push().code == 0
    name = copy.service("greet")
    with wrk(copy.platform, name, method="POST") as load:
        copy.commit(greet__handlerDOTpy=handler("new ") + "\n\ndef init():\n    raise OSError('no database')\n")
        refused = copy.push("-o", "wait")
        report = load.report()
    assert refused.code == 1 and "OSError: no database" in refused.said
    assert (report.bad, report.socket, report.timeout) == (0, 0, 0)
    assert copy.answer("greet") == "old you"
    copy.platform.wait_ready(name)
    copy.platform.scale(name, 3)
    assert {copy.answer("greet") for _ in range(9)} == {"old you"}


def test_a_function_that_leaves_the_stack_is_removed_and_another_repository_keeps_its_own(
    copy: WorkingCopy, tmp_path: Path
) -> None:
    other = WorkingCopy(copy.platform, tmp_path / "other", f"{copy.owner}/other")
    for each in (copy, other):
        each.commit(**passing("greet", "hello "), **passing("wave", "bye "), stackDOTyml=stack("greet", "wave"))
        assert each.push().code == 0
    copy.git("rm", "-r", "--quiet", "wave")
    copy.commit(stackDOTyml=stack("greet"))
    pushed = copy.push()
    assert "wave: removed" in pushed.said
    with pytest.raises(NotFound):
        copy.platform.client.function(copy.service("wave"))
    assert copy.answer("greet") == other.answer("greet") == "hello you"
    assert other.answer("wave") == "bye you"


def test_only_what_has_changed_is_built(copy: WorkingCopy) -> None:
    copy.commit(**passing("greet", "hello "), **passing("wave", "bye "), stackDOTyml=stack("greet", "wave"))
    assert copy.push().code == 0
    before = copy.platform.condition(copy.service("wave")).revision
    copy.commit(**passing("greet", "hi "))
    assert copy.push().code == 0
    states = {each.name: each.state for each in copy.runs()[0].functions}
    assert states == {"greet": "deployed", "wave": "unchanged"}
    assert copy.platform.condition(copy.service("wave")).revision == before
    assert copy.answer("greet") == "hi you"


def test_a_function_that_was_deployed_by_hand_is_left_alone(copy: WorkingCopy) -> None:
    name = copy.service("greet")
    copy.platform.deploy(name, handler("by hand "))
    copy.commit(**passing("greet", "by push "), stackDOTyml=stack("greet"))
    refused = copy.push("-o", "wait")
    assert refused.code == 1
    assert "was not deployed by a push, and is left alone" in refused.said
    assert copy.answer("greet") == "by hand you"


def test_drift_is_undone_by_the_next_run(copy: WorkingCopy) -> None:
    copy.commit(**passing("greet", "hello "), stackDOTyml=stack("greet"))
    assert copy.push().code == 0
    status = copy.platform.status(copy.service("greet"))
    drifted = FunctionSpec(
        status.name, status.image, env_vars={"A": "b"}, labels=status.labels, annotations=status.annotations
    )
    copy.platform.client.update(drifted)
    run = copy.platform.client.runs.retry(copy.runs()[0].id)
    wait_for(lambda: not copy.platform.client.runs.show(run.id).is_open, "the end of the run")
    assert copy.platform.client.runs.show(run.id).functions[0].state == "deployed"
    assert not copy.platform.status(copy.service("greet")).env_vars


def test_two_pushes_within_a_second_end_with_the_newer_live(copy: WorkingCopy) -> None:
    copy.commit(**passing("greet", "first "), stackDOTyml=stack("greet"))
    first = copy.start("push", copy.url, "main")
    wait_for(lambda: copy.runs(), "the first run")
    copy.commit(**passing("greet", "second "))
    second = copy.push()
    first.communicate(timeout=60)
    assert second.code == 0
    assert copy.answer("greet") == "second you"
    newest, oldest = copy.runs()
    assert newest.state == "succeeded" and oldest.state in ("superseded", "succeeded")


def test_a_forced_push_is_what_is_live(copy: WorkingCopy) -> None:
    old = copy.commit(**passing("greet", "old "), stackDOTyml=stack("greet"))
    copy.push()
    copy.commit(**passing("greet", "new "))
    copy.push()
    copy.git("reset", "--quiet", "--hard", old)
    assert copy.push().code == 1  # git itself asks for --force
    assert copy.push("--force").code == 0
    assert copy.answer("greet") == "old you"
    assert [run.state for run in copy.runs()] == ["succeeded"] * 3


def test_tags_other_branches_and_empty_pushes_start_nothing(copy: WorkingCopy) -> None:
    copy.commit(**passing("greet", "hello "), stackDOTyml=stack("greet"))
    assert copy.push().code == 0
    copy.git("tag", "v1")
    tag = copy.push(refs=("v1",))
    assert tag.code == 0 and "the tag is stored; live is what is on main" in tag.said
    branch = copy.push(refs=("main:feature",))
    assert branch.code == 0 and "branch feature is stored; live is what is on main" in branch.said
    assert copy.push(refs=(":feature",)).code == 0
    assert "Everything up-to-date" in copy.push().said
    assert len(copy.runs()) == 1


def test_the_live_branch_cannot_be_deleted_but_its_repository_can(copy: WorkingCopy) -> None:
    copy.commit(**passing("greet", "hello "), stackDOTyml=stack("greet"))
    assert copy.push().code == 0
    refused = copy.push(refs=(":main",))
    assert refused.code == 1 and "this branch is live" in refused.said
    assert copy.answer("greet") == "hello you"
    run = copy.platform.client.runs.remove_repository(copy.owner, copy.name)
    wait_for(lambda: not copy.platform.client.runs.show(run).is_open, "the end of the run")
    assert copy.platform.client.runs.show(run).state == "succeeded"
    with pytest.raises(NotFound):
        copy.platform.client.function(copy.service("greet"))
    assert copy.run("ls-remote", copy.url).code != 0


def test_what_was_pushed_can_be_cloned(copy: WorkingCopy, tmp_path: Path) -> None:
    (copy.folder / "data").write_bytes(os.urandom(3 << 20))  # more than git sends in one piece
    sha = copy.commit(**passing("greet", "hello "), stackDOTyml=stack("greet"))
    assert copy.push().code == 0
    assert copy.run("clone", "--quiet", copy.url, str(tmp_path / "clone")).code == 0
    assert sha in copy.run("ls-remote", copy.url).said and "refs/stoker" not in copy.run("ls-remote", copy.url).said


def test_of_several_branches_at_once_the_one_called_main_is_live(copy: WorkingCopy) -> None:
    copy.commit(**passing("greet", "main "), stackDOTyml=stack("greet"))
    copy.git("checkout", "--quiet", "-b", "another")
    copy.commit(**passing("greet", "another "))
    assert copy.push(refs=("another", "main")).code == 0
    assert copy.answer("greet") == "main you"


def test_owners_take_turns(copy: WorkingCopy, tmp_path: Path) -> None:
    """One owner's ten pushes do not hold up another's one."""
    others = [WorkingCopy(copy.platform, tmp_path / f"other{n}", f"{copy.owner}/other{n}") for n in range(10)]
    one = WorkingCopy(copy.platform, tmp_path / "one", f"{copy.owner[:30]}-b/one")
    for each in (*others, one):
        each.commit(**passing("greet", "hello "), stackDOTyml=stack("greet"))
    for each in (*others, one):
        assert each.push("-o", "detach").code == 0
    runs = copy.platform.client.runs
    mine = one.runs()[0].id
    wait_for(lambda: not runs.show(mine).is_open, "the end of the run", 60)
    waiting = [run for run in runs.list_runs(owner=copy.owner) if run.is_open]
    assert runs.show(mine).state == "succeeded"
    assert sum(run.state == "running" for run in waiting) <= 1
    wait_for(lambda: not any(run.is_open for run in runs.list_runs(owner=copy.owner)), "the others", 100)
    assert {run.state for run in runs.list_runs(owner=copy.owner)} == {"succeeded"}


def test_without_the_password_nothing_is_told(copy: WorkingCopy) -> None:
    for path in ("/git/x/y/info/refs?service=git-receive-pack", "/system/runs", "/system/repositories"):
        assert copy.platform.request("GET", path, b"").status == 401
    assert not (copy.platform.data.git / "repositories" / "x").exists()
