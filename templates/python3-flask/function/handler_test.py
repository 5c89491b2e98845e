from .handler import handle


def test_the_answer_names_what_was_sent():
    body, status, headers = handle("hello")
    assert (body, status) == ("You sent: hello", 200)
