from .handler import handle


def test_it_says_what_was_said():
    assert handle("Let's get started") == "You said: Let's get started"


def test_it_asks_for_a_value_when_there_is_none():
    assert handle("") == "You said: pass a value to the function"
