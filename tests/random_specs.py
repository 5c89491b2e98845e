"""Deploy requests as users could write them, at random, for hypothesis; every one is allowed."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from stoker_sdk.names import LABEL_PATTERN

_KEY = st.from_regex(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,20}[A-Za-z0-9])?", fullmatch=True)
_PREFIX = st.sampled_from(["", "", "example.com/", "a.b-c.d/"])
_QUALIFIED = st.builds("{}{}".format, _PREFIX, _KEY)
_LABEL_VALUE = st.one_of(st.just(""), st.from_regex(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,60}[A-Za-z0-9])?", fullmatch=True))
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
_ENVIRONMENT_VALUE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)
_ENVIRONMENT_KEY = st.from_regex(r"[-._a-zA-Z][-._a-zA-Z0-9]{0,20}", fullmatch=True).filter(
    lambda key: key != "exec_timeout"
)
_NUMBER = st.from_regex(r"[0-9]{1,6}(\.[0-9]{1,3})?|\.[0-9]{1,3}", fullmatch=True)
_UNIT = st.sampled_from(["", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "e3", "E2"])
_QUANTITY = st.one_of(
    st.sampled_from(["0.5", "500m", "128M", "1", "0128Mi", "1.50", "1e3"]), st.builds(str.__add__, _NUMBER, _UNIT)
)
_RESOURCES = st.fixed_dictionaries({}, optional={"memory": _QUANTITY, "cpu": _QUANTITY, "nvidia.com/gpu": st.just("1")})

NAMES = st.from_regex(LABEL_PATTERN, fullmatch=True).filter(lambda name: len(name) <= 63)

FIELDS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "envProcess": _TEXT.filter(bool),
        "envVars": st.dictionaries(_ENVIRONMENT_KEY, _ENVIRONMENT_VALUE, max_size=5),
        "constraints": st.lists(_TEXT, max_size=3),
        "labels": st.dictionaries(_QUALIFIED, _LABEL_VALUE, max_size=5),
        "annotations": st.dictionaries(_QUALIFIED, _TEXT, max_size=5),
        "limits": _RESOURCES,
        "requests": _RESOURCES,
        "readOnlyRootFilesystem": st.just(True),
    },
)
"""Every optional field of a deploy request but its secrets."""
