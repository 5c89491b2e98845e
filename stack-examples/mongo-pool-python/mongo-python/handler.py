"""Notes in MongoDB, over one client per replica. The first call makes it, later calls use it."""

from pymongo import DESCENDING, MongoClient

MAX_IDLE = 60_000  # milliseconds after which a connection that nobody uses is closed
ANSWER_TIMEOUT = 3_000  # milliseconds until a server that does not answer is given up


def connect(context):
    """The client; it keeps a pool of connections, and opens each when a call needs it."""
    return MongoClient(
        context.secret("mongo-uri"),
        maxPoolSize=context.connections or 10,
        minPoolSize=0,
        maxIdleTimeMS=MAX_IDLE,
        serverSelectionTimeoutMS=ANSWER_TIMEOUT,
        connectTimeoutMS=ANSWER_TIMEOUT,
        waitQueueTimeoutMS=5_000,
    )


def health(context):
    client = context.made(connect)
    if client is not None:  # no call yet, so nothing is wrong yet
        client.admin.command("ping")


def close(context):
    client = context.made(connect)
    if client is not None:
        client.close()


def handle(event, context):
    notes = context.once(connect).get_database("notes").notes
    if event.method == "POST":
        notes.insert_one({"text": event.text})
    return {"notes": [note["text"] for note in notes.find().sort("_id", DESCENDING).limit(10)]}
