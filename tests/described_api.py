"""schemathesis over the API's own description, for the tests and the fuzzing of it.

Loading schemathesis makes hypothesis print nothing for the values of a failing test, everybody's tests included. That
is put back here, and its pytest plugin is switched off in pyproject.toml.
"""

from __future__ import annotations

import hypothesis.core
import schemathesis
from hypothesis.vendor.pretty import RepresentationPrinter
from schemathesis import checks
from schemathesis.generation.hypothesis import setup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
    use_after_free,
)

from stoker_gateway.control.openapi import describe

setup()
hypothesis.core.RepresentationPrinter = RepresentationPrinter

SCHEMA = schemathesis.openapi.from_dict(describe())
# A build starts a process and wants a tar, which no schema describes: `tests/fuzz` sends those.
OPERATIONS = [found.ok() for found in SCHEMA.exclude(path="/system/builds").get_all_operations()]

CHECKS = [
    checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    unsupported_method,
    use_after_free,
]
