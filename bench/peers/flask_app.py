"""The trivial handler as a Flask application, for waitress."""

from flask import Flask, Response

app = Flask(__name__)


@app.route("/")
def hello() -> Response:
    return Response("hello\n", content_type="text/plain; charset=utf-8")
