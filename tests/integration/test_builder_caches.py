"""Packages whose installers reach for what is the platform's: the caches that builds share, and what root does in them.

The index is a folder with a source distribution, whose build backend is in it.
"""

from __future__ import annotations

import fcntl
import io
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from builder_process import Outcome, build, request_tar

from stoker_builder.tree import remove_tree
from stoker_sdk.data_dir import DataDir
from stoker_sdk.ids import UserIds, first_id_of

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs user ids")]

BACKEND = """
import os
import pathlib
import zipfile


def build_wheel(folder, config_settings=None, metadata_directory=None):
    {does}
    with zipfile.ZipFile(os.path.join(folder, "wild-1-py3-none-any.whl"), "w") as wheel:
        wheel.writestr("wild.py", "")
        wheel.writestr("wild-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: wild\\nVersion: 1\\n")
        wheel.writestr("wild-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("wild-1.dist-info/RECORD", "")
    return "wild-1-py3-none-any.whl"
"""
PROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
ABOUT = "Metadata-Version: 2.1\nName: wild\nVersion: 1\n"


@pytest.fixture
def data() -> Iterator[DataDir]:
    """In a folder that every user may enter, which `tmp_path` is not."""
    folder = Path(tempfile.mkdtemp(prefix="stoker-caches-"))
    folder.chmod(0o711)
    yield DataDir(folder)
    remove_tree(folder)


def install(data: DataDir, does: str) -> Outcome:
    """Build a function with a package whose installation does this."""
    packages = data.path / "packages"
    packages.mkdir(exist_ok=True)
    files = {"pyproject.toml": PROJECT, "backend.py": BACKEND.format(does=does), "PKG-INFO": ABOUT}
    with tarfile.open(packages / "wild-1.tar.gz", "w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(f"wild-1/{name}")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    function = {"handler.py": "def handle(req):\n    return req\n", "requirements.txt": "wild==1\n"}
    return build(data.path, request_tar(function), {"UV_FIND_LINKS": str(packages), "UV_NO_INDEX": "1"})


def test_an_installer_puts_nothing_in_the_place_of_a_cache(data: DataDir) -> None:
    theirs = data.path / "theirs"
    theirs.mkdir()
    (theirs / "file").touch()
    cache = data.builds / "cache" / "uv"
    outcome = install(
        data, f"os.rename({str(cache)!r}, {str(cache) + '-moved'!r}); os.symlink({str(theirs)!r}, {str(cache)!r})"
    )
    assert [path.stat().st_uid for path in (theirs, theirs / "file")] == [0, 0]
    assert outcome.result["code"] == "failed-install"
    assert "PermissionError" in " ".join(outcome.log), outcome
    assert cache.is_dir() and not cache.is_symlink()
    assert install(data, "pass").code == 0


def test_what_was_put_there_when_installers_still_could_is_removed(data: DataDir) -> None:
    theirs, caches = data.path / "theirs", data.builds / "cache"
    theirs.mkdir()
    assert install(data, "pass").code == 0
    user = (caches / "uv").stat().st_uid
    os.chown(caches, user, user)
    remove_tree(caches / "uv")
    (caches / "uv").symlink_to(theirs)
    (caches / "npm").symlink_to("/nonexistent")
    remove_tree(data.environments)
    assert install(data, "pass").code == 0
    assert theirs.stat().st_uid == 0 and not list(theirs.iterdir())
    assert caches.stat().st_uid == 0 and [path.name for path in caches.iterdir()] == ["uv"]
    assert ((caches / "uv").lstat().st_uid, (caches / "uv").is_symlink()) == (user, False)


def test_what_a_killed_build_left_running_is_ended_unless_it_may_be_anothers(data: DataDir) -> None:
    assert install(data, "pass").code == 0
    user = UserIds(data.ids, first_id_of(data.path)).id_for("builder")
    left = subprocess.Popen(["sleep", "600"], user=user, group=user)
    try:
        other = os.open(data.builds, os.O_RDONLY)
        fcntl.flock(other, fcntl.LOCK_SH)  # as another build holds it
        remove_tree(data.environments)
        assert install(data, "pass").code == 0
        assert left.poll() is None
        os.close(other)
        remove_tree(data.environments)
        assert install(data, "pass").code == 0
        assert left.wait(10) == -9
    finally:
        left.kill()
        left.wait()
