import time

DEFAULT_COUNT = 5


def handle(event, context):
    count = event.query.get("count", "")
    numbers = range(int(count) if count.isdigit() else DEFAULT_COUNT)
    return {
        "statusCode": 200,
        "headers": {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"},
        "body": ticks(numbers),
    }


def ticks(numbers, pause=1.0):
    """One server-sent event for each number, `pause` seconds apart."""
    for number in numbers:
        if number:
            time.sleep(pause)
        yield f"id: {number}\ndata: tick {number}\n\n"
