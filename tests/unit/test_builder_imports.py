"""Which packages may be imported before a function is."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker_builder.imports import modules_ahead

DEFINES = '"""About."""\nfrom __future__ import annotations\nimport os, frames.io as io\n'


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """With the packages `frames` and `plain`, and `native`, which has no source."""
    folder = tmp_path / "environment"
    for path in ("frames/__init__.py", "plain.py", "native.so", "frames-1.dist-info/entry_points.txt", "data/file"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    return folder


def ahead(environment: Path, **files: str) -> tuple[str, ...]:
    handler = environment.parent / "handler"
    for name, text in files.items():
        path = handler / name.replace("__", "/").replace("DOT", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return modules_ahead(handler, environment)


def test_installed_packages_that_its_files_import_are(environment: Path) -> None:
    tests = "from plain import one\nfrom .handler import handle\nimport data, native, missing\n"
    assert ahead(environment, handlerDOTpy=DEFINES, handler_testDOTpy=tests) == ("frames", "plain")


@pytest.mark.parametrize(
    "rest",
    [
        "LIMIT = 5\nimport plain\n",
        "import plain\n\napplication = plain.Application()\n",
        "@io.cached\ndef handle(req):\n    import plain\n    io.setup()\n",
        "class Handler:\n    limit: int = 5\n",
        "NAME: str = os.environ.get('NAME', '')\n",
    ],
)
def test_definitions_stay_without_influence(environment: Path, rest: str) -> None:
    assert "frames" in ahead(environment, handlerDOTpy=DEFINES + rest)


def test_what_a_call_imports_is_left_to_it(environment: Path) -> None:
    assert ahead(environment, handlerDOTpy="def handle(req):\n    import frames\n") == ()


@pytest.mark.parametrize(
    "rest",
    [
        "os.environ['THREADS'] = '1'\nimport plain\n",
        "os.environ.setdefault('THREADS', '1')\n",
        "was = os.environ.setdefault('THREADS', '1')\nimport plain\n",
        "@io.patched\nclass Patched: pass\nimport plain\n",
        "try:\n    import plain\nexcept ImportError:\n    pass\n",
        "if os.environ.get('FAST'):\n    import plain\n",
        "for name in ('frames', 'plain'):\n    pass\n",
        "del os.environ['THREADS']\n",
    ],
)
def test_none_is_where_a_file_does_something(environment: Path, rest: str) -> None:
    assert ahead(environment, handlerDOTpy=DEFINES, own__settingsDOTpy=DEFINES + rest) == ()


@pytest.mark.parametrize("name", ["pytest.ini", "setup.cfg", "tox.ini", "pyproject.toml", ".pytest.ini"])
def test_none_is_where_pytest_has_settings(environment: Path, name: str) -> None:
    assert ahead(environment, handlerDOTpy=DEFINES, **{name: ""}) == ()


def test_none_is_where_a_package_extends_pytest(environment: Path) -> None:
    (environment / "frames-1.dist-info" / "entry_points.txt").write_text("[pytest11]\nframes = frames.testing\n")
    assert ahead(environment, handlerDOTpy=DEFINES) == ()
