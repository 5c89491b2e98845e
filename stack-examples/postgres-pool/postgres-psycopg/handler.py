"""Notes in PostgreSQL, over a pool that is opened before the first call and kept until the replica leaves."""

from psycopg_pool import ConnectionPool

MAX_IDLE = 60  # seconds after which a connection that nobody uses is closed; one stays
OPEN_TIMEOUT = 10  # seconds that the first connection may take
TABLE = "CREATE TABLE IF NOT EXISTS notes (id bigserial PRIMARY KEY, text text NOT NULL)"


def make_pool(context):
    return ConnectionPool(
        context.secret("postgres-dsn"),
        min_size=1,
        max_size=context.connections or 4,
        max_idle=MAX_IDLE,
        timeout=5,
        open=False,
    )


def init(context):
    pool = make_pool(context)
    try:
        pool.open(wait=True, timeout=OPEN_TIMEOUT)
    except BaseException:
        pool.close()
        raise
    with pool.connection() as connection:
        connection.execute("SELECT pg_advisory_xact_lock(1)")  # two replicas may start at once
        connection.execute(TABLE)
    return pool


def health(context):
    with context.state.connection(timeout=0.8) as connection:
        connection.execute("SELECT 1")


def close(context):
    context.state.close()


def handle(event, context):
    with context.state.connection() as connection:
        if event.method == "POST":
            connection.execute("INSERT INTO notes (text) VALUES (%s)", [event.text])
        rows = connection.execute("SELECT text FROM notes ORDER BY id DESC LIMIT 10").fetchall()
    return {"notes": [text for (text,) in rows]}
