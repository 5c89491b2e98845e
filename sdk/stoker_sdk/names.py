"""Which names are allowed for functions, namespaces, secrets and labels, and how a route's name is split.

The rules are Kubernetes' own (RFC 1123 labels, qualified label keys), so that a function that runs on one machine
can be moved to a cluster without being renamed.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from stoker_sdk.errors import BadInput

DEFAULT_NAMESPACE = "openfaas-fn"
"""Contract section 1: clients hard-code it."""

RESERVED_NAMESPACES = frozenset({"kube-system", "openfaas"})
"""Where a cluster and the platform itself run: no place for functions (contract section 2.4)."""

MAX_NAME = 63

LABEL_PATTERN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
SUBDOMAIN_PATTERN = rf"{LABEL_PATTERN}(\.{LABEL_PATTERN})*"

_LABEL = re.compile(LABEL_PATTERN)
_SUBDOMAIN = re.compile(SUBDOMAIN_PATTERN)
_KEY_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_ENVIRONMENT_KEY = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_PATH = re.compile(r"/[!$&'()*+,\-./0-9:;=@A-Z_a-z~%]*")


class FunctionKey(NamedTuple):
    """What identifies a function: its namespace and its name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        """`NAME.NAMESPACE`, as in routes and metric labels (contract sections 1 and 7)."""
        return f"{self.name}.{self.namespace}"


def function_key(name: str, namespace: str = "") -> FunctionKey:
    """The checked key for a name and a namespace, each given apart. Raises `BadInput`."""
    return FunctionKey(check_namespace(namespace or DEFAULT_NAMESPACE), check_function_name(name))


def key_from_route(text: str) -> FunctionKey:
    """Split `NAME[.NAMESPACE]`: the namespace is what follows the last dot (contract section 1)."""
    name, dot, namespace = text.rpartition(".")
    return FunctionKey(namespace, name) if dot else FunctionKey(DEFAULT_NAMESPACE, text)


def check_function_name(name: str) -> str:
    return _check_label(name, "function name")


def check_namespace(namespace: str) -> str:
    return _check_label(namespace, "namespace")


def check_function_namespace(namespace: str) -> str:
    """A namespace that may hold functions. Raises `BadInput`."""
    if check_namespace(namespace) in RESERVED_NAMESPACES:
        raise BadInput(f"namespace {namespace!r} belongs to the platform: choose another for functions")
    return namespace


def check_secret_name(name: str) -> str:
    """A DNS-1123 subdomain of at most 253 characters, as Kubernetes asks of Secret objects."""
    if not name or len(name) > 253 or not _SUBDOMAIN.fullmatch(name):
        raise BadInput(
            f"secret name {name[:80]!r} is not allowed: use lower-case letters, digits, '-' and '.', "
            "and begin and end with a letter or digit"
        )
    return name


def check_label(key: str, value: str) -> None:
    """Check one label against Kubernetes' rules for keys and values. Raises `BadInput`."""
    check_qualified_key(key, "label")
    if value and (len(value) > MAX_NAME or not _KEY_NAME.fullmatch(value)):
        raise BadInput(
            f"label {key!r} has the value {value[:80]!r}, which is not allowed: at most 63 letters, digits, "
            "'-', '_' and '.', beginning and ending with a letter or digit; use an annotation for free text"
        )


def check_qualified_key(key: str, what: str) -> None:
    """Check the key of a label or an annotation (`what` names which): `[prefix/]name`. Raises `BadInput`."""
    prefix, slash, name = key.rpartition("/")
    prefix_ok = not slash or (len(prefix) <= 253 and _SUBDOMAIN.fullmatch(prefix))
    if not prefix_ok or len(name) > MAX_NAME or not _KEY_NAME.fullmatch(name):
        raise BadInput(
            f"{what} key {key[:120]!r} is not allowed: use [prefix/]name, with at most 63 letters, digits, '-', '_' "
            "and '.' in the name"
        )


def check_environment_key(key: str) -> None:
    """Check the name of an environment variable as Kubernetes does. Raises `BadInput`."""
    if not _ENVIRONMENT_KEY.fullmatch(key):
        raise BadInput(
            f"environment variable {key[:80]!r} is not allowed: use letters, digits, '_', '-' and '.', "
            "and do not begin with a digit"
        )


def check_path(path: str) -> None:
    """Raise `BadInput` unless the path begins with `/` and has nothing in it that a proxy could read otherwise."""
    if len(path) > 1000 or not _PATH.fullmatch(path) or any(part in (".", "..") for part in path.split("/")):
        raise BadInput(f"path {path[:60]!r} is not allowed: begin with '/', without '..', spaces, '?' and '#'")


def _check_label(text: str, what: str) -> str:
    if not text or len(text) > MAX_NAME or not _LABEL.fullmatch(text):
        raise BadInput(
            f"{what} {text[:80]!r} is not allowed: use 1 to 63 lower-case letters, digits and '-', "
            "and begin and end with a letter or digit"
        )
    return text
