def handle(event, context):
    tick = event.headers.get("X-Stoker-Tick", "")
    if event.path == "/report":
        print(report(tick, event.body.decode(), event.headers.get("X-Stoker-Missed", "0")))
    elif tick:
        print(f"tick of {tick}")
    return {"statusCode": 200, "body": "called by the clock" if tick else "called by hand"}


def report(tick, kind, missed):
    """What is printed at nine; after an outage this stands for the mornings that were missed, too."""
    late = f", and for {missed} that were missed" if missed != "0" else ""
    return f"{kind} report for {tick}{late}"
