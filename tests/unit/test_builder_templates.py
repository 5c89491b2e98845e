"""Templates are found by name and alias, a project's own before the built-in ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker_builder.templates import find_template, list_templates, load_template, with_local_steps
from stoker_sdk.errors import BadInput, NotFound

BUILT_IN = ["bash", "csharp", "dockerfile", "go", "node", "python3", "python3-flask", "python3-http", "ruby"]


def own_template(folder: Path, name: str, text: str = "language: mine\n") -> Path:
    (folder / name / "function").mkdir(parents=True)
    (folder / name / "template.yml").write_text(text)
    return folder / name


def test_the_built_in_templates_are_listed_by_name() -> None:
    assert [template.name for template in list_templates()] == BUILT_IN


@pytest.mark.parametrize("template", list_templates(), ids=lambda template: template.name)
def test_a_built_in_template_is_complete(template: object) -> None:
    found = find_template(template.name)  # type: ignore[attr-defined]
    assert found.handler_folder == "function" and found.welcome
    assert {path.name for path in found.path.iterdir()} >= {"README.md", "template.yml"}
    if found.name == "dockerfile":
        assert not found.mode and (found.starter / "Dockerfile").is_file()
        return
    assert found.mode and (found.fprocess or found.mode == "python")
    assert (found.path / "Dockerfile").is_file()
    names = {path.name.lower() for path in found.starter.iterdir()}
    assert any(name.startswith("handler.") for name in names)
    assert any("test" in name for name in names) or found.name == "csharp"


@pytest.mark.parametrize(
    ("name", "built_in"),
    [
        ("python3-http-debian", "python3-http"),
        ("python3-flask-debian", "python3-flask"),
        ("node20", "node"),
        ("Node22", "node"),
        ("golang-middleware", "go"),
    ],
)
def test_well_known_names_lead_to_a_built_in_template(name: str, built_in: str) -> None:
    assert find_template(name).name == built_in


def test_a_pulled_template_of_a_well_known_name_is_built_by_ours_and_says_so(tmp_path: Path) -> None:
    pulled = load_template(own_template(tmp_path, "node20", "language: node20\nfprocess: node index.js\n"))
    used = with_local_steps(pulled)
    assert (used.name, used.mode) == ("node", "native")
    assert "template node20" in used.notes[0] and "built-in node is used" in used.notes[0]


def test_a_pulled_template_of_another_name_or_layout_is_left_as_it_is(tmp_path: Path) -> None:
    for name, text in (("golang-http", "language: go\n"), ("node22", "language: node\nhandler_folder: src\n")):
        pulled = load_template(own_template(tmp_path, name, text))
        assert with_local_steps(pulled) is pulled


@pytest.mark.parametrize("name", ["python", "Python", "PYTHON3"])
def test_alias_and_case_lead_to_the_template(name: str) -> None:
    assert find_template(name).name == "python3"


def test_an_unknown_template_is_refused_with_the_names_that_exist() -> None:
    with pytest.raises(NotFound, match=r"'cobol' does not exist: choose one of .*python3, python3-flask, python3-http"):
        find_template("cobol")


@pytest.mark.parametrize("name", ["../python3", "a/b", "", ".", "..", "/etc", "a b", "x" + "\0"])
def test_a_name_that_is_a_path_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match="is not allowed"):
        find_template(name)


def test_a_projects_own_template_hides_the_built_in_one(tmp_path: Path) -> None:
    own = own_template(tmp_path, "python3")
    assert find_template("python3", tmp_path).path == own
    assert find_template("python", tmp_path).path == own
    assert [template.name for template in list_templates(tmp_path)] == BUILT_IN


def test_a_missing_project_folder_leaves_the_built_in_ones(tmp_path: Path) -> None:
    assert find_template("python3-http", tmp_path / "template").name == "python3-http"


def test_contract_keys_keep_the_text_that_was_written(tmp_path: Path) -> None:
    text = """
language: 1.0
fprocess: on
welcome_message: hello
handler_folder: src
mount_ssh: true
build_options:
  - name: dev
    packages: [make, gcc]
"""
    template = load_template(own_template(tmp_path, "mine", text))
    assert (template.language, template.fprocess, template.welcome) == ("1.0", "on", "hello")
    assert (template.handler_folder, template.mode) == ("src", "")
    assert template.build_options[0].packages == ["make", "gcc"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("language: [", "cannot be read"),
        ("- a list", "cannot be read"),
        ("handler_folder: ../up", "handler_folder '../up' must be the name of one folder"),
        ("stoker: {mode: magic}", "stoker.mode 'magic' is not one of"),
        ("stoker: {mode: http}", "needs fprocess, the command to start"),
        ("stoker: {mode: python, handler: a, toolchain: cobol}", "stoker.toolchain 'cobol' is not one of"),
        ("stoker: {mode: python}", "stoker.handler must name the module"),
        ("stoker: {mode: python, handler: a/b}", "stoker.handler must name the module"),
    ],
)
def test_a_bad_template_file_is_refused_and_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        load_template(own_template(tmp_path, "mine", text))
    assert "template 'mine'" in str(caught.value)
