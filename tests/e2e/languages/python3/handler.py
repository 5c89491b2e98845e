import os
import threading
import time

lock, running, most = threading.Lock(), 0, 0


def init():
    if os.environ.get("FAIL_INIT"):
        raise ValueError("no way to begin")
    print("opened")


def health():
    if os.path.exists(os.environ.get("SICK", "")):
        raise RuntimeError("broken on purpose")


def close():
    print("closed")


def pieces():
    yield "one\n"
    time.sleep(0.5)
    yield "two\n"


def fail(text):
    print("about to fail")
    raise ValueError("the cause")


def slept(text):
    time.sleep(float(text))
    return "slept"


def printed(text):
    print(text)
    return "printed"


def count(text):
    global running, most
    with lock:
        running += 1
        most = max(most, running)
    time.sleep(0.05)
    with lock:
        running -= 1
    return str(most)


ROUTES = {
    "/echo": lambda text: text,
    "/fail": fail,
    "/stream": lambda text: pieces(),
    "/sleep": slept,
    "/print": printed,
    "/most": count,
}


def handle(req):
    """The first line of the body is the route, because text is all that this shape gets."""
    route, _, text = req.partition("\n")
    return ROUTES[route](text)
