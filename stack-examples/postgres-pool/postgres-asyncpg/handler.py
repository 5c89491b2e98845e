"""Notes in PostgreSQL, over an asynchronous pool that is opened before the first call."""

import asyncpg

MAX_IDLE = 60.0  # seconds after which a connection that nobody uses is closed; one stays
OPEN_TIMEOUT = 10.0  # seconds that a connection may take
TABLE = "CREATE TABLE IF NOT EXISTS notes (id bigserial PRIMARY KEY, text text NOT NULL)"


async def init(context):
    pool = await asyncpg.create_pool(
        context.secret("postgres-dsn"),
        min_size=1,
        max_size=context.connections or 4,
        max_inactive_connection_lifetime=MAX_IDLE,
        timeout=OPEN_TIMEOUT,
        command_timeout=30,
    )
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(1)")  # two replicas may start at once
        await connection.execute(TABLE)
    return pool


async def health(context):
    async with context.state.acquire(timeout=0.8) as connection:
        await connection.execute("SELECT 1")


async def close(context):
    await context.state.close()


async def handle(event, context):
    async with context.state.acquire(timeout=5) as connection:
        if event.method == "POST":
            await connection.execute("INSERT INTO notes (text) VALUES ($1)", event.text)
        rows = await connection.fetch("SELECT text FROM notes ORDER BY id DESC LIMIT 10")
    return {"notes": [row["text"] for row in rows]}
