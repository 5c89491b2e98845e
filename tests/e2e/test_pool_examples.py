"""The examples with a database, built with their own tests, and run against a real one where there is one."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest
from loads import calls
from pooled import answers, set_secret
from postgres import Postgres
from running_platform import REPOSITORY, Platform, wait_for

pytestmark = pytest.mark.slow

EXAMPLES = REPOSITORY / "stack-examples"
BUDGET = {"annotations": {"stoker.dev/connections": "20"}, "labels": {"com.openfaas.scale.max": "4"}}
HASTY = {"com.openfaas.ready.http.periodSeconds": "1", "com.openfaas.ready.http.failureThreshold": "1"}
needs_node = pytest.mark.skipif(
    not (REPOSITORY / "templates" / "node").exists() or not shutil.which("npm"), reason="needs node and its template"
)


def folder_of(path: str) -> dict[str, str]:
    folder = EXAMPLES / path
    return {
        file.name: file.read_text()
        for file in folder.iterdir()
        if file.is_file() and file.suffix in (".py", ".js", ".txt", ".json")
    }


@pytest.mark.parametrize(
    ("path", "lang"),
    [
        ("postgres-pool/postgres-psycopg", "python3-http"),
        ("postgres-pool/postgres-asyncpg", "python3-http"),
        pytest.param("postgres-pool-node/postgres-node", "node", marks=needs_node),
    ],
)
async def test_notes_are_kept_over_a_pool_that_outlives_calls_and_not_its_replica(
    platform: Platform, postgres: Postgres, path: str, lang: str
) -> None:
    name = Path(path).name
    dsn = postgres.make_user(name)
    with postgres.connect() as connection:
        connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{name}" AUTHORIZATION "{name}"')  # found before `public`
    set_secret(platform, "postgres-dsn", dsn)
    spec = {"labels": BUDGET["labels"], "annotations": BUDGET["annotations"] | HASTY}
    platform.deploy(name, folder_of(path), lang=lang, secrets=["postgres-dsn"], **spec)
    assert len(postgres.rows(name)) == 1  # before any call
    for number in range(3):
        notes = platform.call(name, f"note {number}".encode()).json()["notes"]
    assert notes == ["note 2", "note 1", "note 0"]
    assert postgres.opened(name) == 1
    platform.scale(name, 2)
    answers(await calls(platform.http, name, 100, method="GET"))
    assert len(postgres.rows(name)) <= 2 * 4
    postgres.stop()
    try:
        wait_for(lambda: platform.status(name).available_replicas == 0, "unreadiness", 20)
    finally:
        postgres.start()
    wait_for(lambda: platform.status(name).available_replicas == 2, "its recovery")
    wait_for(lambda: platform.call(name, method="GET").status == 200, "an answer")
    platform.client.scale(name, 0)
    wait_for(lambda: not postgres.rows(name), "the end of its sessions", 10)
    platform.client.remove(name)


@pytest.mark.parametrize(
    ("path", "lang"),
    [
        ("mongo-pool-python/mongo-python", "python3-http"),
        pytest.param("mongo-pool-node/mongo-node", "node", marks=needs_node),
    ],
)
def test_mongodb_is_dialled_by_the_first_call_and_its_absence_is_told(platform: Platform, path: str, lang: str) -> None:
    name = Path(path).name
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        set_secret(platform, "mongo-uri", f"mongodb://127.0.0.1:{server.getsockname()[1]}/")
        platform.deploy(name, folder_of(path), lang=lang, secrets=["mongo-uri"], annotations=HASTY)
        server.settimeout(0.5)
        with pytest.raises(TimeoutError):
            server.accept()  # it is ready, and has not dialled
        assert platform.call(name, method="GET").status == 500
        server.settimeout(5)
        server.accept()[0].close()
        wait_for(lambda: "unhealthy" in platform.condition(name).message, "unreadiness")
    platform.client.remove(name)
