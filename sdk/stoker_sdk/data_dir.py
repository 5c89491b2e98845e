"""Where the platform keeps its files on one machine, and what lies where in there.

One value that knows every path, so that the processes which share the folder cannot disagree about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stoker_sdk.names import FunctionKey

ADMIN = "admin"
"""The one user of a platform whose password is in its data folder."""


@dataclass(frozen=True)
class DataDir:
    """The data folder of `stoker serve`; every property is a path in it, whether or not anything is there
    yet.
    """

    path: Path

    @property
    def lock(self) -> Path:
        """Held by the running server; a second server on the same folder is refused."""
        return self.path / "server.lock"

    @property
    def password(self) -> Path:
        """Mode 0600; the user is `admin`."""
        return self.path / "password"

    @property
    def key(self) -> Path:
        """Mode 0600; the Fernet key that secrets are encrypted with."""
        return self.path / "key"

    @property
    def tls(self) -> Path:
        return self.path / "tls"

    @property
    def ca_certificate(self) -> Path:
        return self.tls / "ca.pem"

    @property
    def ca_key(self) -> Path:
        return self.tls / "ca.key"

    @property
    def server_certificate(self) -> Path:
        return self.tls / "server.pem"

    @property
    def server_key(self) -> Path:
        return self.tls / "server.key"

    @property
    def functions(self) -> Path:
        return self.path / "functions"

    def function(self, key: FunctionKey) -> Path:
        return self.functions / key.namespace / f"{key.name}.json"

    @property
    def secrets(self) -> Path:
        return self.path / "secrets"

    def secret(self, namespace: str, name: str) -> Path:
        return self.secrets / namespace / name

    @property
    def namespaces(self) -> Path:
        """One JSON file for each; the default namespace has one only when it was changed."""
        return self.path / "namespaces"

    @property
    def artefacts(self) -> Path:
        return self.path / "artefacts"

    def artefact(self, digest: str) -> Path:
        """`digest` is the 64 hex digits, without `sha256:`."""
        return self.artefacts / digest

    @property
    def environments(self) -> Path:
        return self.path / "environments"

    def environment(self, digest: str) -> Path:
        return self.environments / digest

    @property
    def builds(self) -> Path:
        """Staging of running builds."""
        return self.path / "builds"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def function_logs(self, key: FunctionKey) -> Path:
        return self.logs / key.namespace / key.name

    @property
    def queue(self) -> Path:
        """The broker's: stored calls, and its log."""
        return self.path / "queue"

    @property
    def containers(self) -> Path:
        """There while a Docker Engine may have containers of this platform."""
        return self.path / "containers"

    @property
    def pulled_images(self) -> Path:
        """Which images of the Docker Engine this platform has fetched."""
        return self.path / "pulled-images.json"

    @property
    def seal_key(self) -> Path:
        """Mode 0600; the private key of what `stoker secret seal` seals, raw."""
        return self.path / "seal.key"

    @property
    def git(self) -> Path:
        """The pipeline's: repositories of the platform's own git remote, and checkouts of running runs."""
        return self.path / "git"

    @property
    def github_app(self) -> Path:
        """Mode 0600, encrypted with the key; there once `stoker github setup` has been run."""
        return self.path / "github-app"

    @property
    def ended_sessions(self) -> Path:
        """Of the pages: who signed out, until their session had ended anyway."""
        return self.path / "ended-sessions.json"

    @property
    def ids(self) -> Path:
        return self.path / "ids.json"

    @property
    def interpreter(self) -> Path:
        """The Python that functions run with, staged where every user may execute it."""
        return self.path / "interpreter"

    @property
    def set_aside(self) -> Path:
        """Files that could not be read at a start, kept for a person to look at."""
        return self.path / "set-aside"


def default_data_dir(environment: Mapping[str, str], *, is_root: bool) -> DataDir:
    """`STOKER_DATA_DIR`, else `/var/lib/stoker` for root, else below the user's XDG data folder."""
    named = environment.get("STOKER_DATA_DIR")
    if named:
        return DataDir(Path(named).absolute())
    if is_root:
        return DataDir(Path("/var/lib/stoker"))
    xdg = environment.get("XDG_DATA_HOME", "")
    # The XDG specification says that a relative path is to be ignored.
    base = Path(xdg) if xdg.startswith("/") else Path(environment.get("HOME", "/")) / ".local" / "share"
    return DataDir(base / "stoker")
