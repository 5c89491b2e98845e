"""`stoker template pull` and `template store`, with git repositories and stores on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from git_repository import commit, git, make_repository
from running_control import Shell, shell


@pytest.fixture
def stoker(tmp_path: Path) -> Shell:
    return shell(tmp_path)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two templates; tag `v1` has an older text than the branch `main`, and branch `next` a newer one."""
    folder = make_repository(tmp_path / "templates")
    files = {"template__nimDOTx__templateDOTyml": "language: nim\n", "READMEDOTmd": "hello\n"}
    files |= {"template__nim__templateDOTyml": "language: nim\n", "template__nim__function__mainDOTnim": "one\n"}
    files |= {"template__zig__templateDOTyml": "language: zig\n", "template__zig__function__mainDOTzig": "zig\n"}
    files.pop("template__nimDOTx__templateDOTyml")
    commit(folder, **files)
    git(folder, "tag", "v1")
    commit(folder, template__nim__function__mainDOTnim="two\n")
    git(folder, "checkout", "--quiet", "-b", "next")
    commit(folder, template__nim__function__mainDOTnim="three\n")
    git(folder, "checkout", "--quiet", "main")
    return folder


def main_nim(stoker: Shell, name: str = "nim") -> str:
    return (stoker.folder / "template" / name / "function" / "main.nim").read_text().strip()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_pull_copies_every_template_and_says_where_from(stoker: Shell, repository: Path) -> None:
    done = stoker("template", "pull", str(repository))
    assert done.code == 0, done.err
    assert "template nim, zig: pulled from" in done.out
    assert names(stoker.folder / "template") == ["nim", "zig"] and main_nim(stoker) == "two"
    meta = json.loads((stoker.folder / "template/nim/meta.json").read_text())
    assert meta["repository"] == str(repository) and meta["sha"] == git(repository, "rev-parse", "main")
    assert meta["ref_name"] == "" and meta["written_at"]
    assert stoker("new", "greet", "--lang", "nim").code == 0


@pytest.mark.parametrize(("ref", "text"), [("v1", "one"), ("next", "three"), ("main", "two"), ("sha", "one")])
def test_a_branch_a_tag_or_a_hash_can_be_named(stoker: Shell, repository: Path, ref: str, text: str) -> None:
    sha = git(repository, "rev-parse", "v1")
    for each in [f"sha-{sha}", f"sha-{sha[:8]}"] if ref == "sha" else [ref]:
        done = stoker("template", "pull", f"file://{repository}#{each}", "--overwrite")
        assert done.code == 0, done.err
        assert main_nim(stoker) == text


def test_what_is_here_already_stays_unless_it_shall_be_replaced(stoker: Shell, repository: Path) -> None:
    mine = stoker.file("template/nim/template.yml", "language: mine\n")
    done = stoker("template", "pull", str(repository))
    assert "template nim: is here already; --overwrite replaces it" in done.out and "zig" in done.out
    assert mine.read_text() == "language: mine\n"
    assert stoker("template", "pull", str(repository), "--overwrite").code == 0
    assert main_nim(stoker) == "two" and names(stoker.folder / "template") == ["nim", "zig"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("--upload-pack=touch x", "No such option"),
        ("-oProxyCommand=x", "No such option"),
        ("ext::sh -c touch% x", "is not a repository"),
        ("fd::17", "is not a repository"),
        ("gopher://example.org/x", "gopher:// addresses are not fetched"),
        ("", "cannot be fetched"),
        ("https://example.org/x#../../main", "is not a branch"),
        ("https://example.org/x#--upload-pack=x", "is not a branch"),
        ("nowhere", "cannot be fetched"),
        ("REPOSITORY#nope", "cannot be fetched"),
        ("REPOSITORY#sha-0000000", "cannot be fetched"),
    ],
)
def test_what_is_no_repository_is_refused_and_nothing_is_written(
    stoker: Shell, repository: Path, source: str, words: str
) -> None:
    address = source.replace("REPOSITORY", str(repository))
    environment = {"OPENFAAS_TEMPLATE_URL": str(repository / "missing")}
    done = stoker("template", "pull", *([address] if address else []), **environment)
    assert done.code in (1, 2) and words.lower() in done.err.lower() and "Traceback" not in done.err
    assert names(stoker.folder) == []


def test_links_that_leave_a_template_are_refused_and_those_that_stay_are_kept(stoker: Shell, repository: Path) -> None:
    (repository / "template/nim/function/also.nim").symlink_to("main.nim")
    commit(repository)
    assert stoker("template", "pull", str(repository)).code == 0
    assert (stoker.folder / "template/nim/function/also.nim").read_text() == "two\n"

    for goal in ("/etc/passwd", "../../zig/template.yml", "../../../../../etc/passwd"):
        link = repository / "template/nim/function/evil.nim"
        link.unlink(missing_ok=True)
        link.symlink_to(goal)
        commit(repository, message=goal)
        done = stoker("template", "pull", str(repository), "--overwrite")
        assert done.code == 1 and "is a symbolic link that leaves the folder" in done.err
        assert not (stoker.folder / "template/nim/function/evil.nim").is_symlink()


def test_hooks_filters_and_submodules_of_a_repository_do_not_run(stoker: Shell, repository: Path) -> None:
    touched = repository.parent / "touched"
    hook = repository / ".git/hooks/post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {touched}\n")
    hook.chmod(0o755)
    commit(
        repository,
        DOTgitattributes="* filter=evil\n",
        DOTgitmodules=f'[submodule "x"]\n\tpath = x\n\turl = {touched}\n',
    )
    assert stoker("template", "pull", str(repository)).code == 0
    assert not touched.exists()


def test_a_broken_template_or_none_at_all_installs_nothing(stoker: Shell, repository: Path) -> None:
    commit(repository, template__bad__templateDOTyml="language: [")
    done = stoker("template", "pull", str(repository))
    assert done.code == 1 and "template 'bad': template.yml cannot be read" in done.err
    empty = make_repository(repository.parent / "empty")
    commit(empty, READMEDOTmd="nothing\n")
    done = stoker("template", "pull", str(empty))
    assert done.code == 1 and "no folder `template`" in done.err
    assert names(stoker.folder) == []


def test_a_stack_names_its_templates_and_a_build_pulls_those_that_lack(stoker: Shell, repository: Path) -> None:
    stoker.file("f/main.nim", "mine\n")
    stoker.file("template/zig/template.yml", "language: mine\n")
    stoker.file(
        "stack.yml",
        "provider: {name: openfaas}\nconfiguration:\n  templates:\n"
        f"    - {{name: zig, source: {repository}}}\n    - {{name: nim@v1, source: {repository}}}\n"
        "functions:\n  f: {lang: nim@v1, handler: ./f, image: me/f}\n",
    )
    done = stoker("build", "--shrinkwrap", "--disable-stack-pull")
    assert done.code == 1 and "template 'nim@v1' is not here" in done.err
    done = stoker("build", "--shrinkwrap")
    assert done.code == 0, done.err
    assert "template nim@v1: pulled from" in done.err and main_nim(stoker, "nim@v1") == "one"
    assert (stoker.folder / "build/f/function/main.nim").read_text() == "mine\n"
    assert (stoker.folder / "template/zig/template.yml").read_text() == "language: mine\n"
    assert stoker("template", "pull", "stack", "--overwrite").code == 0
    assert (stoker.folder / "template/zig/template.yml").read_text() == "language: zig\n"


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a b", ""])
def test_a_template_of_a_stack_needs_a_good_name(stoker: Shell, repository: Path, name: str) -> None:
    stoker.file(
        "stack.yml",
        "provider: {name: openfaas}\nfunctions: {}\n"
        f"configuration: {{templates: [{{name: '{name}', source: {repository}}}]}}\n",
    )
    done = stoker("template", "pull", "stack")
    assert done.code == 1 and "is no template's name" in done.err
    assert names(stoker.folder) == ["stack.yml"]


def test_the_template_store_is_listed_described_and_pulled_from(stoker: Shell, repository: Path) -> None:
    entry = {"template": "nim", "platform": "x86_64", "language": "Nim", "source": "me", "description": "Nim it is"}
    entry |= {"repo": str(repository), "official": "true", "recommended": True}
    others = [{**entry, "source": "you", "official": "false", "repo": "nowhere", "recommended": False}]
    path = stoker.file(
        "store.json",
        json.dumps([entry, *others, {**others[0], "template": "zig"}, {**others[0], "template": "zig", "source": "x"}]),
    )
    environment = {"OPENFAAS_TEMPLATE_STORE_URL": str(path)}

    assert stoker("template", "store", "ls", "--recommended", **environment).out.split() == [
        *("Name", "Source", "Description"),
        *("nim", "me", "Nim", "it", "is"),
    ]
    assert "Repository:   " + str(repository) in stoker("template", "store", "describe", "nim", **environment).out
    done = stoker("template", "store", "pull", "nim@v1", **environment)
    assert done.code == 0, done.err
    assert names(stoker.folder / "template") == ["nim@v1"] and main_nim(stoker, "nim@v1") == "one"
    assert "choose one of you/zig, x/zig" in stoker("template", "store", "pull", "zig", **environment).err
    assert "has no template 'nope'" in stoker("template", "store", "describe", "nope", **environment).err


@pytest.mark.parametrize(
    ("content", "words"), [("[", "is not a store"), ("{}", "is not a store"), ("[{}]", "is not a store")]
)
def test_a_store_that_is_none_is_named(stoker: Shell, content: str, words: str) -> None:
    path = stoker.file("store.json", content)
    done = stoker("template", "store", "list", "--url", str(path))
    assert done.code == 1 and words in done.err and str(path) in done.err
    assert "there is no file" in stoker("template", "store", "list", "--url", "nothing.json").err
    assert "only http:// and https://" in stoker("template", "store", "list", "--url", "ftp://x/y").err
    assert "larger than 4 MiB" in stoker("template", "store", "list", "--url", "/dev/zero").err
