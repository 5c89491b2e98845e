"""What a commit may ask for: the stack file of a stranger, read whole before anything is built."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stoker_builder.pipeline.run.manifest import Manifest, read_manifest
from stoker_builder.pipeline.seal_key import read_seal_key
from stoker_sdk.errors import StokerError
from stoker_sdk.origin import origin_of
from stoker_sdk.runs import FORK, Push, Run
from stoker_sdk.sealing import public_key_of, purpose_of, seal

RUN = Run(7, Push("stoker", "me", "web", "main", "a" * 40))
HEAD = "provider:\n  name: openfaas\nfunctions:\n"
GREET = "  greet:\n    lang: python3\n    handler: ./greet\n    image: greet\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    checkout = tmp_path / "checkout"
    (checkout / "greet").mkdir(parents=True)
    (checkout / "greet" / "handler.py").write_text("def handle(req):\n    return req\n")
    return checkout


def read(folder: Path, text: str, run: Run = RUN) -> Manifest:
    (folder / "stack.yml").write_text(text)
    return read_manifest(folder, run, folder.parent / "seal.key")


def test_a_function_is_named_and_marked_by_where_it_comes_from(folder: Path) -> None:
    (wanted,) = read(folder, HEAD + GREET).functions
    assert wanted.spec.service == "greet--web--me"
    assert origin_of(wanted.spec.annotations) == wanted.origin
    marks = wanted.spec.annotations or {}
    assert (marks["stoker.dev/sha"], marks["stoker.dev/run"], marks["stoker.dev/push"]) == (
        "a" * 40,
        "7",
        "stoker main",
    )
    assert (wanted.spec.labels or {})["com.openfaas.cloud.git-owner"] == "me"


def test_what_is_the_operators_is_ignored_and_said(folder: Path) -> None:
    text = """provider:
  name: openfaas
  gateway: http://elsewhere.example.org
functions:
  greet:
    lang: python3
    handler: ./greet
    image: evil.example.org/greet:1
    namespace: openfaas
    fprocess: cat /etc/shadow
    constraints: [node=1]
    build_args: {TEST_ENABLED: "false", LEVEL: "1"}
    labels: {com.openfaas.cloud.git-owner: you, team: blue}
    annotations: {stoker.dev/owner: you, stoker.dev/sha: x, stoker.dev/unpinned: "true", topic: news}
    environment: {MODE: fast, PATH_OF: "${HOME}", DEFAULT: "${X:-d}"}
"""
    manifest = read(folder, text)
    (wanted,) = manifest.functions
    assert (wanted.spec.namespace, wanted.spec.env_process, wanted.spec.constraints) == ("", "", None)
    assert wanted.request.settings.build_args == {"LEVEL": "1"}
    assert (wanted.spec.labels or {})["team"] == "blue"
    assert (wanted.spec.labels or {})["com.openfaas.cloud.git-owner"] == "me"
    assert (wanted.spec.annotations or {})["topic"] == "news"
    assert origin_of(wanted.spec.annotations) == wanted.origin
    assert wanted.spec.env_vars == {"MODE": "fast", "PATH_OF": "", "DEFAULT": "d"}
    said = "\n".join(manifest.notes)
    for name in ("namespace", "fprocess", "constraints", "build_args.TEST_ENABLED", "annotations.stoker.dev/owner"):
        assert f"functions.greet.{name} is not honoured here" in said
    assert "provider.gateway is not honoured" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "stack.yml: is empty"),
        ("functions: [", "stack.yml:1:13: is not YAML"),
        ("provider: {name: docker}\n", "stack.yml:1:12: provider.name: the provider's name must be openfaas"),
        (HEAD + GREET.replace("./greet", "../../etc"), "leaves the stack's folder"),
        (HEAD + GREET.replace("./greet", "/etc"), "is an absolute path"),
        (
            HEAD + GREET.replace("./greet", "./nowhere"),
            "stack.yml:6:5: functions.greet.handler: there is no folder",
        ),
        (HEAD + GREET.replace("  greet:", "  ../greet:"), "function name '../greet' is not allowed"),
        (HEAD + GREET.replace("  greet:", "  Greet:"), "function name 'Greet' is not allowed"),
        (HEAD + GREET.replace("    lang: python3\n", ""), "needs `lang` and `handler`"),
        (HEAD + GREET + GREET, "is written twice"),
        (
            HEAD + GREET + "    secrets: [you.key]\n",
            "stack.yml:8:5: functions.greet.secrets: 'you.key' is not",
        ),
        (HEAD + GREET + "    secrets: [key]\n", "theirs are called me.NAME"),
        (HEAD + GREET + "    limits: {memory: lots}\n", "is not a quantity"),
        (HEAD + GREET + "    timeout: soon\n", "is not a duration"),
        (HEAD + GREET + "    environment: [1]\n", "must be a mapping"),
        (HEAD + GREET + "    environment_file: [../../../etc/passwd]\n", "leaves the stack's folder"),
        (HEAD + GREET + "configuration: {copy: [..]}\n", "leaves the stack's folder"),
        (
            HEAD + GREET + "configuration: {copy: [.]}\n",
            "stack.yml:8:24: configuration.copy[0]: '.' is the whole",
        ),
        (HEAD + "".join(GREET.replace("greet:", f"f{n}:", 1) for n in range(201)), "200 are the most"),
        (
            "a: &a [x,x,x,x,x,x,x,x,x]\n"
            + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(8))
            + HEAD
            + GREET
            + "    secrets: *h\n",
            "stack.yml:",
        ),
        (HEAD + GREET.replace("python3", "cobol"), "template 'cobol' does not exist here: choose one of bash"),
        (
            HEAD + GREET.replace("python3", "../../x"),
            "stack.yml:5:5: functions.greet.lang: template name",
        ),
        (HEAD + GREET.replace("python3", "dockerfile"), "a Dockerfile is not built here"),
        ("[" * 20_000, "nested too deeply"),
        ("a: " + "x" * 300_000, "larger than 256 KiB"),
        ("\x00", "is not YAML"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_place(folder: Path, text: str, said: str) -> None:
    with pytest.raises(StokerError) as refused:
        read(folder, text)
    assert said in str(refused.value)
    assert "stack.yml" in str(refused.value)


@pytest.mark.parametrize("target", ["/etc/passwd", "../../outside", "greet/handler.py", "stack.yml"])
def test_a_stack_file_that_is_a_link_is_refused(folder: Path, target: str) -> None:
    (folder / "stack.yml").symlink_to(target)
    with pytest.raises(StokerError, match="is a symbolic link or cannot be read"):
        read_manifest(folder, RUN, folder.parent / "seal.key")


def test_a_stack_file_that_is_a_pipe_is_refused(folder: Path) -> None:
    os.mkfifo(folder / "stack.yml")
    with pytest.raises(StokerError, match="is not a file"):
        read_manifest(folder, RUN, folder.parent / "seal.key")


def test_a_handler_folder_that_links_out_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (folder / "linked").symlink_to(tmp_path / "outside")
    with pytest.raises(StokerError, match="leaves the stack's folder"):
        read(folder, HEAD + GREET.replace("./greet", "./linked"))
    (folder / "greet" / "secret").symlink_to("/etc/shadow")
    with pytest.raises(StokerError, match="'secret' is a symbolic link that leaves the folder"):
        read(folder, HEAD + GREET)


def test_a_template_of_its_own_is_not_looked_at(folder: Path) -> None:
    (folder / "template" / "mine").mkdir(parents=True)
    (folder / "template" / "mine" / "template.yml").symlink_to("/dev/zero")
    manifest = read(folder, HEAD + GREET)
    assert "./template is not honoured: the platform's templates are used" in manifest.notes
    (folder / "template").symlink_to("/")
    with pytest.raises(StokerError, match="template 'mine' does not exist"):
        read(folder, HEAD + GREET.replace("python3", "mine"))
    assert Path("/etc/passwd").exists()


def test_a_repository_without_a_stack_file_is_told_which_file_to_rename(folder: Path) -> None:
    with pytest.raises(StokerError, match=r"there is no stack\.yml at the root of the repository"):
        read_manifest(folder, RUN, folder.parent / "seal.key")
    (folder / "other.yml").write_text("a: 1\n")
    (folder / "kubecon.yml").write_text(HEAD + GREET)
    with pytest.raises(StokerError, match=r"rename kubecon\.yml to stack\.yml"):
        read_manifest(folder, RUN, folder.parent / "seal.key")


def test_a_forks_pull_request_gets_no_secret_of_any_kind(folder: Path) -> None:
    stranger = Push("github", "me", "web", "pull/3", "a" * 40, default=False, pull=3, details={FORK: "true"})
    key = public_key_of(read_seal_key(folder.parent / "seal.key"))
    (folder / "token.sealed").write_text(seal(key, b"hush-hush", purpose_of("me", "web", "TOKEN")))
    text = HEAD + GREET + "    secrets: [me.key]\n    build_secrets: {TOKEN: token.sealed}\n"
    ours = read(folder, text).functions[0]
    assert (ours.spec.secrets, ours.request.settings.secrets) == (["me.key"], {"TOKEN": "hush-hush"})
    manifest = read(folder, text, Run(7, stranger))
    theirs = manifest.functions[0]
    assert (theirs.spec.secrets or [], theirs.request.settings.secrets) == ([], {})
    assert any("secrets are not given to the pull request of a fork" in note for note in manifest.notes)


def test_a_pull_request_has_neither_schedules_nor_routes(folder: Path) -> None:
    text = HEAD + GREET + '    schedule: "* * * * *"\n    routes: [{host: shop.example.org}]\n    timeout: 5s\n'
    pull = Push("github", "me", "web", "pull/3", "a" * 40, default=False, pull=3)
    live, preview = (read(folder, text, run).functions[0].spec.annotations or {} for run in (RUN, Run(7, pull)))
    settings = {"stoker.dev/schedule", "stoker.dev/routes", "stoker.dev/timeout"}
    assert settings <= set(live)
    assert settings & set(preview) == {"stoker.dev/timeout"}


def test_other_branches_and_pull_requests_have_names_of_their_own(folder: Path) -> None:
    pushes = [
        Push("stoker", "me", "web", "main", "a" * 40),
        Push("stoker", "me", "web", "dev", "a" * 40, default=False),
        Push("stoker", "me", "web", "dev", "a" * 40, default=False, pull=3),
        Push("stoker", "you", "web", "main", "a" * 40),
    ]
    names = [read(folder, HEAD + GREET, Run(1, push)).functions[0].spec.service for push in pushes]
    assert len(set(names)) == len(pushes)


def test_a_build_secret_is_opened_for_its_repository_alone(folder: Path) -> None:
    key = public_key_of(read_seal_key(folder.parent / "seal.key"))
    text = HEAD + GREET + "    build_secrets: {INDEX_TOKEN: token.sealed}\n"
    (folder / "token.sealed").write_text(seal(key, b"s3cr3t-token", "me/web INDEX_TOKEN"))
    (wanted,) = read(folder, text).functions
    assert wanted.request.settings.secrets == {"INDEX_TOKEN": "s3cr3t-token"}
    for other in (Push("stoker", "me", "api", "main", "a" * 40), Push("stoker", "you", "web", "main", "a" * 40)):
        with pytest.raises(StokerError, match=r"stack\.yml:8:21: .*was not sealed for"):
            read(folder, text, Run(1, other))
    with pytest.raises(StokerError, match="was not sealed for me/web OTHER_TOKEN"):
        read(folder, text.replace("INDEX_TOKEN", "OTHER_TOKEN"))


@pytest.mark.parametrize(
    ("name", "file", "said"),
    [
        ("INDEX_TOKEN", "nowhere", "there is no 'nowhere' in the repository"),
        ("INDEX_TOKEN", "../seal.key", "leaves the stack's folder"),
        ("INDEX_TOKEN", "plain", "is not a sealed secret"),
        ("LD_PRELOAD", "sealed", "is not allowed"),
        ("UV_CACHE_DIR", "sealed", "is not allowed"),
        ("PATH", "sealed", "is not allowed"),
        ("lower", "sealed", "is not allowed"),
        ("SHORT", "short", "has fewer than 6 characters"),
    ],
)
def test_build_secrets_that_cannot_be_used(folder: Path, name: str, file: str, said: str) -> None:
    key = public_key_of(read_seal_key(folder.parent / "seal.key"))
    (folder / "plain").write_text("s3cr3t-token")
    (folder / "sealed").write_text(seal(key, b"s3cr3t-token", f"me/web {name}"))
    (folder / "short").write_text(seal(key, b"x", f"me/web {name}"))
    with pytest.raises(StokerError) as refused:
        read(folder, HEAD + GREET + f"    build_secrets: {{{name}: {file}}}\n")
    assert said in str(refused.value) and "s3cr3t" not in str(refused.value)


# Pushes as images


def read_for_images(folder: Path, text: str) -> Manifest:
    (folder / "stack.yml").write_text(text)
    return read_manifest(folder, RUN, folder.parent / "seal.key", as_images=True)


def own_template(folder: Path, text: str = "language: own\nfprocess: run-it now\n") -> Path:
    template = folder / "template" / "own"
    template.mkdir(parents=True)
    (template / "template.yml").write_text(text)
    (template / "Dockerfile").write_text("FROM debian\n")
    return template


def test_for_images_a_repository_s_own_template_and_dockerfile_count(folder: Path) -> None:
    template = own_template(folder)
    text = HEAD + GREET.replace("python3", "own") + GREET.replace("greet:", "plain:").replace("python3", "dockerfile")
    manifest = read_for_images(folder, text)
    own, plain = manifest.functions
    assert (own.request.template, own.spec.env_process, plain.request.settings.lang) == (
        template,
        "run-it now",
        "dockerfile",
    )
    assert manifest.notes == ()


def test_for_images_a_built_in_template_needs_nothing_said(folder: Path) -> None:
    (wanted,) = read_for_images(folder, HEAD + GREET).functions
    assert wanted.request.template is None and wanted.spec.env_process == ""


def test_for_images_arguments_that_are_the_builder_s_are_ignored_and_said(folder: Path) -> None:
    names = ("BUILDKIT_SYNTAX", "STOKER_PACKAGE", "http_proxy", "TEST_ENABLED")
    arguments = ", ".join(f"{name}: x" for name in (*names, "LEVEL"))
    manifest = read_for_images(folder, HEAD + GREET + f"    build_args: {{{arguments}}}\n")
    assert manifest.functions[0].request.settings.build_args == {"LEVEL": "x"}
    assert [note.split()[1] for note in manifest.notes] == [f"functions.greet.build_args.{name}" for name in names]


def test_for_images_a_template_that_leads_elsewhere_or_is_too_large_is_refused(folder: Path) -> None:
    template = own_template(folder)
    (template / "template.yml").unlink()
    (template / "template.yml").symlink_to("/etc/passwd")
    with pytest.raises(StokerError, match="is a symbolic link that leaves the folder"):
        read_for_images(folder, HEAD + GREET)
    (template / "template.yml").unlink()
    (template / "template.yml").write_text("x" * 70_000)
    with pytest.raises(StokerError, match="is not a file of at most 64 KiB"):
        read_for_images(folder, HEAD + GREET)


def test_for_images_the_folder_of_templates_is_no_link(folder: Path) -> None:
    (folder / "template").symlink_to("/etc")
    with pytest.raises(StokerError, match=r"\./template is not a folder"):
        read_for_images(folder, HEAD + GREET)


def test_for_images_a_template_that_is_nowhere_is_named(folder: Path) -> None:
    with pytest.raises(StokerError, match=r"stack.yml.*template 'none' is not here"):
        read_for_images(folder, HEAD + GREET.replace("python3", "none"))
