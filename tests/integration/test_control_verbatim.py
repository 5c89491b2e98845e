"""What was deployed reads back the same to the letter, whatever it was: a client's `diff` shows no change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_specs import FIELDS, NAMES
from running_control import PASSWORD, RunningControl, running_control

AUTH = ("admin", PASSWORD)


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningControl]:
    with running_control(tmp_path_factory.mktemp("control")) as running:
        yield running


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=NAMES, image=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=80), fields=FIELDS)
def test_a_deployed_function_reads_back_verbatim(
    control: RunningControl, name: str, image: str, fields: dict[str, Any]
) -> None:
    session = requests.Session()
    session.auth = AUTH
    url = control.url + "/system/functions"
    sent = {"service": name, "image": image} | fields
    assert session.post(url, json=sent).status_code == 202
    try:
        described = session.get(f"{control.url}/system/function/{name}").json()
        [listed] = session.get(url).json()
        for found in (described, listed):
            assert {key: found[key] for key in fields} == fields
            assert (found["name"], found["image"]) == (name, image)
            unset = {"envProcess", "envVars", "constraints", "labels", "annotations", "limits", "requests"} - set(
                fields
            )
            assert not unset & set(found)
        again = session.put(url, json=sent)
        assert (again.status_code, again.headers["X-Stoker-Revision"]) == (202, "1")
    finally:
        assert session.delete(url, json={"functionName": name}).status_code == 202
