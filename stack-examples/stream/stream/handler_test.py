from types import SimpleNamespace

from .handler import handle, ticks


def test_each_number_becomes_one_event():
    assert list(ticks(range(2), pause=0)) == ["id: 0\ndata: tick 0\n\n", "id: 1\ndata: tick 1\n\n"]


def test_the_answer_is_an_event_stream_of_the_length_asked_for():
    answer = handle(SimpleNamespace(query={"count": "1"}), context=None)
    assert answer["headers"]["Content-Type"] == "text/event-stream"
    assert list(answer["body"]) == ["id: 0\ndata: tick 0\n\n"]
