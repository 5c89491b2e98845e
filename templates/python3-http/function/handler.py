def handle(event, context):
    """Answer a call: `event` is the request, `context` knows the function and the call."""
    return {
        "statusCode": 200,
        "headers": {"Content-Type": "text/plain; charset=utf-8"},
        "body": f"{event.method} {event.path}: {event.text}",
    }
