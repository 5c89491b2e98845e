from .handler import handle


def test_a_number_of_bytes_becomes_readable():
    assert handle("123456789\n") == "123.5 MB"


def test_anything_else_is_answered_with_what_to_send():
    assert handle("many") == "Send a number of bytes."
