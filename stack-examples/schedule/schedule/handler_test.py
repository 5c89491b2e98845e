from types import SimpleNamespace

from .handler import handle, report


def called(path="/", **headers):
    return handle(SimpleNamespace(path=path, headers=headers, body=b""), context=None)["body"]


def test_the_answer_tells_who_called():
    assert called() == "called by hand"
    assert called(**{"X-Stoker-Tick": "2026-01-05T08:00:00Z"}) == "called by the clock"


def test_a_report_names_the_mornings_that_were_missed():
    assert report("2026-01-05T08:00:00Z", "weekday", "0") == "weekday report for 2026-01-05T08:00:00Z"
    assert report("2026-01-05T08:00:00Z", "weekday", "2").endswith(", and for 2 that were missed")
