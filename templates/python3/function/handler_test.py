from .handler import handle


def test_the_answer_names_what_was_sent():
    assert handle("hello") == "You sent: hello"
