import os
import threading
import time

lock, running, most = threading.Lock(), 0, 0


def init():
    if os.environ.get("FAIL_INIT"):
        raise ValueError("no way to begin")
    print("opened")
    return "opened"


def health():
    if os.path.exists(os.environ.get("SICK", "")):
        raise RuntimeError("broken on purpose")


def close():
    print("closed")


def pieces():
    yield "one\n"
    time.sleep(0.5)
    yield b"two\n"


def fail(event, context):
    print("about to fail")
    raise ValueError("the cause")


def slept(event, context):
    time.sleep(float(event.text))
    return "slept"


def printed(event, context):
    print(event.text)
    return "printed"


def count(event, context):
    global running, most
    with lock:
        running += 1
        most = max(most, running)
    time.sleep(0.05)
    with lock:
        running -= 1
    return str(most)


ROUTES = {
    "/echo": lambda event, context: event.body,
    "/answer": lambda event, context: {
        "statusCode": 201,
        "headers": {"X-One": "1", "Content-Type": "text/x-test"},
        "body": "made",
    },
    "/fail": fail,
    "/stream": lambda event, context: pieces(),
    "/sleep": slept,
    "/print": printed,
    "/request": lambda event, context: [event.method, event.path, event.raw_query, event.headers.get("X-Test")],
    "/context": lambda event, context: {
        "function": context.function,
        "namespace": context.namespace,
        "call": context.call_id,
        "state": context.state,
    },
    "/secret": lambda event, context: context.secret("api-key"),
    "/most": count,
}


def handle(event, context):
    return ROUTES[event.path](event, context)
