"""Templates are found by name and alias, a project's own before the built-in ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker_builder.templates import find_template, list_templates, load_template
from stoker_sdk.errors import BadInput, NotFound


def own_template(folder: Path, name: str, text: str = "language: mine\n") -> Path:
    (folder / name / "function").mkdir(parents=True)
    (folder / name / "template.yml").write_text(text)
    return folder / name


def test_the_built_in_templates_are_listed_by_name() -> None:
    assert [template.name for template in list_templates()] == ["python3", "python3-http"]


@pytest.mark.parametrize("template", list_templates(), ids=lambda template: template.name)
def test_a_built_in_template_is_complete(template: object) -> None:
    found = find_template(template.name)  # type: ignore[attr-defined]
    assert (found.mode, found.handler, found.handler_folder) == ("python", "function.handler", "function")
    assert found.welcome and found.test[:3] == ("python", "-m", "pytest")
    assert {path.name for path in found.path.iterdir()} >= {"README.md", "Dockerfile", "template.yml"}
    names = {path.name for path in found.starter.iterdir()}
    assert names >= {"handler.py", "handler_test.py", "requirements.txt"}


@pytest.mark.parametrize("name", ["python", "Python", "PYTHON3"])
def test_alias_and_case_lead_to_the_template(name: str) -> None:
    assert find_template(name).name == "python3"


def test_an_unknown_template_is_refused_with_the_names_that_exist() -> None:
    with pytest.raises(NotFound, match=r"'cobol' does not exist: choose one of python3, python3-http"):
        find_template("cobol")


@pytest.mark.parametrize("name", ["../python3", "a/b", "", ".", "..", "/etc", "a b", "x" + "\0"])
def test_a_name_that_is_a_path_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match="is not allowed"):
        find_template(name)


def test_a_projects_own_template_hides_the_built_in_one(tmp_path: Path) -> None:
    own = own_template(tmp_path, "python3")
    assert find_template("python3", tmp_path).path == own
    assert find_template("python", tmp_path).path == own
    assert [template.name for template in list_templates(tmp_path)] == ["python3", "python3-http"]


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
        ("stoker: {mode: python}", "stoker.handler must name the module"),
        ("stoker: {mode: python, handler: a/b}", "stoker.handler must name the module"),
    ],
)
def test_a_bad_template_file_is_refused_and_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        load_template(own_template(tmp_path, "mine", text))
    assert "template 'mine'" in str(caught.value)
