"""Builds of other languages: their checkers, their packages, their tests as a gate, and what hostile folders get."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from builder_process import REPOSITORY, artefact_of, build, handler_files, request_tar

from stoker_builder.errors import MissingTool
from stoker_builder.languages.tools import need
from stoker_sdk.data_dir import DataDir

NODE = "module.exports = async () => 'hello';\n"
GO = 'package function\n\nimport "net/http"\n\n// Handle answers.\n' + (
    "func Handle(w http.ResponseWriter, r *http.Request) {}\n"
)
RUBY = "class Handler\n  def call(event, context) = 'hello'\nend\n"
BASH = "cat\n"
PROGRAMS = {"node": "node", "go": "go", "ruby": "ruby", "bash": "bash"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data_dir() -> Iterator[Path]:
    """One for all: the caches of compilers take long to fill. Every user may enter it, which `tmp_path` is not."""
    folder = Path(tempfile.mkdtemp(prefix="stoker-builds-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


def needs(lang: str) -> None:
    if shutil.which(PROGRAMS[lang]) is None:
        pytest.skip(f"{PROGRAMS[lang]} is not on this machine; tests/needs.sh installs it")


def package(**fields: object) -> str:
    return json.dumps({"name": "function", **fields})


@pytest.mark.parametrize("lang", PROGRAMS)
def test_a_starter_becomes_an_artefact_without_tests_and_the_same_inputs_build_nothing(
    data_dir: Path, lang: str
) -> None:
    needs(lang)
    files = handler_files(REPOSITORY / "templates" / lang / "function")
    first = build(data_dir, request_tar(files, name="starter", lang=lang))
    assert first.code == 0, first
    assert any(line.startswith("tests: ") for line in first.log)
    folder, manifest = artefact_of(first, data_dir)
    assert (manifest.template, manifest.python) == (lang, "")
    assert not [path for path in folder.rglob("*") if "test" in path.name]
    assert not (folder / "Dockerfile").exists()
    again = build(data_dir, request_tar(files, name="starter", lang=lang))
    assert (again.image, again.result["cached"], again.log) == (first.image, True, [])


BROKEN: Mapping[str, tuple[str, dict[str, str | bytes], str]] = {
    "node without a handler": ("node", {"index.js": NODE}, "handler.js is missing"),
    "node that is none": ("node", {"handler.js": "module.exports = async (\n"}, r"handler.js:\d: SyntaxError"),
    "node with import in a CommonJS file": ("node", {"handler.cjs": "import fs from 'fs';\n"}, "name it handler.mjs"),
    "package.json that is none": ("node", {"handler.js": NODE, "package.json": "{"}, "package.json is not JSON"),
    "package.json that is deep": ("node", {"handler.js": NODE, "package.json": "[" * 100000}, "package.json"),
    "package.json that is a list": ("node", {"handler.js": NODE, "package.json": "[]"}, "must be a JSON object"),
    "package.json that is huge": ("node", {"handler.js": NODE, "package.json": b" " * (9 << 20)}, "larger than 8 MiB"),
    "dependencies that are a list": (
        "node",
        {"handler.js": NODE, "package.json": package(dependencies=["left"])},
        "dependencies must be an object",
    ),
    "a dependency on a local path": (
        "node",
        {"handler.js": NODE, "package.json": package(dependencies={"x": "file:../../etc"})},
        "is a local path",
    ),
    "a lock that links": (
        "node",
        {
            "handler.js": NODE,
            "package.json": package(dependencies={"x": "1"}),
            "package-lock.json": json.dumps({"packages": {"node_modules/x": {"link": True, "resolved": "../x"}}}),
        },
        "leads out of the packages",
    ),
    "a lock of an old kind": (
        "node",
        {"handler.js": NODE, "package.json": package(dependencies={"x": "1"}), "package-lock.json": "{}"},
        "is of an old kind",
    ),
    "go without Handle": ("go", {"handler.go": "package function\n"}, "must define func Handle"),
    "go of another package": ("go", {"handler.go": GO.replace("function", "main", 1)}, "call it `function`"),
    "go that is not formatted": ("go", {"handler.go": GO.replace("{}", "{  }")}, "gofmt: handler.go"),
    "go that is none": ("go", {"handler.go": GO + "func {\n"}, r"handler.go:\d+"),
    "go that does not compile": ("go", {"handler.go": GO.replace("{}", "{ nothing() }")}, "nothing"),
    "go of another module": ("go", {"handler.go": GO, "go.mod": "module x\n"}, "must be called handler/function"),
    "go that leads out": (
        "go",
        {"handler.go": GO, "go.mod": "module handler/function\n\nreplace a/b => ../../etc\n"},
        "leads out of the handler folder",
    ),
    "ruby without a handler": ("ruby", {"index.rb": RUBY}, "handler.rb is missing"),
    "ruby without Handler": ("ruby", {"handler.rb": "puts 1\n"}, "must define `class Handler`"),
    "ruby that is none": ("ruby", {"handler.rb": RUBY + "def (\n"}, "handler.rb:"),
    "ruby with gems": ("ruby", {"handler.rb": RUBY, "Gemfile": "gem 'rack'\n"}, "installs no gems"),
    "bash without a handler": ("bash", {"run.sh": BASH}, "handler.sh is missing"),
    "bash that is none": ("bash", {"handler.sh": "if\n"}, "handler.sh: line"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_built_is_one_clear_line_and_leaves_nothing(data_dir: Path, case: str) -> None:
    lang, files, message = BROKEN[case]
    needs(lang)
    before = _left(data_dir)
    outcome = build(data_dir, request_tar(files, name="broken", lang=lang))
    assert outcome.code == 1 and outcome.result["code"] == "bad-input"
    assert outcome.error.count("\n") < 2
    assert re.search(message, outcome.error), outcome.error
    assert "Traceback" not in outcome.error + outcome.errors
    assert _left(data_dir) == before


def _left(data_dir: Path) -> list[str]:
    data = DataDir(data_dir)
    kept = [*data.artefacts.glob("*"), *data.environments.glob("*"), *data.builds.glob("run-*")]
    return sorted(map(str, kept))


FAILING: Mapping[str, tuple[str, dict[str, str | bytes], str]] = {
    "node": (
        "node",
        {"handler.js": NODE, "package.json": package(scripts={"test": "node -e \"throw Error('it is wrong')\""})},
        "it is wrong",
    ),
    "go": (
        "go",
        {
            "handler.go": GO,
            "handler_test.go": 'package function\n\nimport "testing"\n\n'
            'func TestIt(t *testing.T) { t.Error("it is wrong") }\n',
        },
        "it is wrong",
    ),
    "ruby": (
        "ruby",
        {"handler.rb": RUBY, "handler_test.rb": "abort 'it is wrong'\n"},
        "it is wrong",
    ),
    "bash": ("bash", {"handler.sh": BASH, "handler_test.sh": "echo it is wrong; exit 3\n"}, "it is wrong"),
}


@pytest.mark.parametrize("lang", FAILING)
def test_a_failing_test_means_no_artefact_and_its_last_lines_are_told(data_dir: Path, lang: str) -> None:
    needs(lang)
    _, files, message = FAILING[lang]
    before = _left(data_dir)
    outcome = build(data_dir, request_tar(files, name="failing", lang=lang))
    assert (outcome.code, outcome.result["code"]) == (1, "failed-tests")
    assert message in outcome.error and "nothing is published" in outcome.error
    assert _left(data_dir) == before
    skipped = build(data_dir, request_tar(files, name="failing", lang=lang, args={"TEST_ENABLED": "false"}))
    assert skipped.code == 0 and "tests: switched off by TEST_ENABLED" in skipped.log


def test_go_tests_of_several_packages_run_and_read_files_beside_them(data_dir: Path) -> None:
    needs("go")
    test = 'package {}\n\nimport (\n\t"os"\n\t"testing"\n)\n\nfunc TestIt(t *testing.T) {{\n'
    test += '\tif _, err := os.Stat("data.txt"); err != nil {{\n\t\tt.Error(err)\n\t}}\n\tprintln("ran {}")\n}}\n'
    files = {
        "handler.go": GO,
        "handler_test.go": test.format("function", "function"),
        "data.txt": "x",
        "rules/rules.go": "package rules\n",
        "rules/rules_test.go": test.format("rules", "rules"),
        "rules/data.txt": "y",
    }
    outcome = build(data_dir, request_tar(files, lang="go"))
    assert outcome.code == 0, outcome
    assert {"ran function", "ran rules"} <= set(outcome.log)
    folder, _ = artefact_of(outcome, data_dir)
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == {
        "artefact.json",
        "handler",
        "function/data.txt",
        "function/rules/data.txt",
    }


def test_go_modules_are_taken_from_a_vendor_folder_without_a_network(data_dir: Path) -> None:
    needs("go")
    files = {
        "handler.go": GO.replace('import "net/http"', 'import (\n\t"net/http"\n\n\t"example.com/greet"\n)').replace(
            "{}", "{ w.Write([]byte(greet.Word)) }"
        ),
        "go.mod": "module handler/function\n\ngo 1.19\n\nrequire example.com/greet v1.0.0\n",
        "go.sum": "",
        "vendor/modules.txt": "# example.com/greet v1.0.0\n## explicit\nexample.com/greet\n",
        "vendor/example.com/greet/greet.go": 'package greet\n\nconst Word = "hello"\n',
    }
    outcome = build(data_dir, request_tar(files, lang="go"), {"GOPROXY": "off"})
    assert outcome.code == 0, outcome
    folder, _ = artefact_of(outcome, data_dir)
    assert b"hello" in (folder / "handler").read_bytes() and not (folder / "vendor").exists()


def test_a_missing_module_of_go_is_told_with_its_name(data_dir: Path) -> None:
    needs("go")
    files = {"handler.go": GO.replace('import "net/http"', 'import (\n\t"net/http"\n\n\t_ "example.com/none"\n)')}
    outcome = build(data_dir, request_tar(files, lang="go"), {"GOPROXY": "off"})
    assert outcome.code == 1 and "example.com/none" in outcome.error


def test_secrets_of_npmrc_are_not_part_of_what_is_deployed(data_dir: Path) -> None:
    needs("node")
    files = {"handler.js": NODE, ".npmrc": "//registry.example.com/:_authToken=very-secret\n"}
    outcome = build(data_dir, request_tar(files, lang="node"))
    folder, _ = artefact_of(outcome, data_dir)
    for path in folder.rglob("*"):
        assert not path.is_file() or b"very-secret" not in path.read_bytes()


def test_packages_that_were_installed_on_the_desk_do_not_travel(data_dir: Path) -> None:
    needs("node")
    outcome = build(data_dir, request_tar({"handler.js": NODE, "node_modules/x/index.js": "evil"}, lang="node"))
    folder, _ = artefact_of(outcome, data_dir)
    assert not list(folder.rglob("node_modules"))


def test_packages_of_npm_are_installed_once_for_all_that_ask_for_the_same(data_dir: Path) -> None:
    """It needs the registry of npm, as the install of Python's packages needs an index."""
    needs("node")
    handler = "const ms = require('ms');\nmodule.exports = async () => String(ms('2m'));\n"
    test = "const handle = require('./handler');\nhandle().then((x) => { if (x !== '120000') process.exit(1); });\n"
    files = {
        "handler.js": handler,
        "check.js": test,
        "package.json": package(dependencies={"ms": "2.1.3"}, scripts={"test": "node check.js"}),
    }
    outcomes = [build(data_dir, request_tar(files, name=name, lang="node")) for name in ("first", "second")]
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    folder, manifest = artefact_of(outcomes[0], data_dir)
    assert artefact_of(outcomes[1], data_dir)[1].environment == manifest.environment != ""
    assert any("is there already" in line for line in outcomes[1].log)
    assert not any("is there already" in line for line in outcomes[0].log)
    link = folder / "node_modules"
    assert not link.readlink().is_absolute()
    assert link.resolve() == (DataDir(data_dir).environment(manifest.environment) / "node_modules").resolve()
    assert (link / "ms" / "package.json").is_file()


def test_a_lock_that_does_not_fit_is_told_with_what_to_do(data_dir: Path) -> None:
    needs("node")
    lock = {"lockfileVersion": 3, "packages": {"": {"dependencies": {"ms": "2.0.0"}}}}
    files = {
        "handler.js": NODE,
        "package.json": package(dependencies={"ms": "2.1.3"}),
        "package-lock.json": json.dumps(lock),
    }
    outcome = build(data_dir, request_tar(files, lang="node"))
    assert outcome.result["code"] == "failed-install"
    assert "package-lock.json does not fit package.json: run `npm install`" in outcome.error


def test_a_missing_tool_is_named_with_its_package() -> None:
    with pytest.raises(MissingTool, match=r"needs the program no-such-tool, .* \(Debian: apt install its-package\)"):
        need("mine", **{"no-such-tool": "its-package"})


@pytest.mark.skipif(shutil.which("dotnet") is not None, reason="the .NET SDK is here")
def test_csharp_without_its_sdk_says_so(data_dir: Path) -> None:
    outcome = build(data_dir, request_tar({"Handler.cs": "class Handler {}"}, lang="csharp"))
    assert outcome.result["code"] == "missing-tool" and "needs the program dotnet" in outcome.error


def test_an_image_is_not_built_here_and_the_message_says_where(data_dir: Path) -> None:
    outcome = build(data_dir, request_tar({"Dockerfile": "FROM scratch\n"}, lang="dockerfile"))
    assert outcome.result["code"] == "bad-input"
    assert "stoker publish" in outcome.error and "Kubernetes" in outcome.error


def test_a_template_that_was_pulled_under_a_well_known_name_builds_with_ours(data_dir: Path) -> None:
    template = {"template.yml": "language: python3\nfprocess: python index.py\n", "index.py": "import flask\n"}
    files = {"handler.py": "def handle(req):\n    return req\n"}
    outcome = build(data_dir, request_tar(files, template=template))
    assert outcome.code == 0 and "built-in python3 is used" in outcome.log[0]
    folder, _ = artefact_of(outcome, data_dir)
    assert not (folder / "index.py").exists()


FLASK = """
from flask import Response, jsonify, request

def handle(req):
    if request.path == "/response":
        return Response(f"{request.method} {request.args['a']} {request.headers['X-Test']}", 418, {"X-One": "1"})
    return jsonify(sent=req)
"""
FLASK_TEST = """
from types import SimpleNamespace
import flask_shape

class Headers(dict):
    def getlist(self, name):
        return [self[name]]

def call(path, query="", body=b""):
    event = SimpleNamespace(
        method="POST", path=path, raw_query=query, body=body, text=body.decode(), headers=Headers({"X-Test": "yes"})
    )
    return flask_shape.handle(event, None)

def test_request_and_response():
    answer = call("/response", "a=b")
    assert (answer["statusCode"], answer["body"], answer["headers"]["X-One"]) == (418, b"POST b yes", ["1"])

def test_json():
    assert b'"sent"' in call("/", body=b"hello")["body"]
"""


def test_a_handler_that_imports_flask_finds_request_and_response(data_dir: Path) -> None:
    """It needs an index of Python packages."""
    files = {"handler.py": FLASK, "handler_test.py": FLASK_TEST, "requirements.txt": "flask>=3.1,<4\n"}
    outcome = build(data_dir, request_tar(files, lang="python3-flask"))
    assert outcome.code == 0, outcome
    assert any("2 passed" in line for line in outcome.log)
