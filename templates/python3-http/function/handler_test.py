from types import SimpleNamespace

from .handler import handle


def test_the_answer_names_method_path_and_body():
    event = SimpleNamespace(method="POST", path="/hello", text="world")
    answer = handle(event, context=None)
    assert answer["statusCode"] == 200
    assert answer["body"] == "POST /hello: world"
