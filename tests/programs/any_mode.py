"""One function for every mode of the watchdog, so that one suite can ask all of them the same.

As a handler (`handle`), as a program for one call, or, with the argument `serve`, as a server on the port in `PORT`.
`/echo` gives the body back, `/seen` what was seen of the request, `/slow` answers after `seconds`, `/pieces` prints
two lines half a second apart, `/child` starts a process that would run for long and prints its pid, `/die` ends badly
after having printed what `say` says.
"""

import json
import os
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote


def answer(method, target, headers, body):
    path, _, query = target.partition("?")
    wanted = {name: values[0] for name, values in parse_qs(query).items()}
    if path == "/seen":
        seen = {"method": method, "path": unquote(path), "query": query, "headers": headers, "size": len(body)}
        return json.dumps(seen).encode()
    if path == "/slow":
        time.sleep(float(wanted["seconds"]))
        return b"slept"
    if path == "/child":
        child = subprocess.Popen(["sleep", "1000"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        if "seconds" in wanted:
            with open(wanted["file"], "w") as file:
                file.write(f"{os.getpid()} {child.pid}\n")
            time.sleep(float(wanted["seconds"]))
        return str(child.pid).encode()
    if path == "/die":
        sys.stdout.write(wanted.get("say", ""))
        sys.stdout.flush()
        print("about to die", file=sys.stderr, flush=True)
        os._exit(3)
    return body


def handle(event, context):
    target = event.path + ("?" + event.raw_query if event.raw_query else "")
    if event.path == "/die":
        raise RuntimeError("as asked")
    return answer(event.method, target, dict(event.headers), event.body)


def pieces(write):
    for number in (1, 2):
        write(f"piece {number}\n".encode())
        time.sleep(0.5)


def main():
    variables = {name[5:].replace("_", "-"): value for name, value in os.environ.items() if name.startswith("Http_")}
    path, query = variables["Path"], variables.get("Query", "")
    if path == "/pieces":
        pieces(lambda data: (sys.stdout.buffer.write(data), sys.stdout.buffer.flush()))
        return
    body = sys.stdin.buffer.read()
    target = path + ("?" + query if query else "")
    sys.stdout.buffer.write(answer(variables["Method"], target, variables, body))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        if self.path == "/pieces":
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            pieces(lambda data: self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data)))
            self.wfile.write(b"0\r\n\r\n")
            return
        body = self.read_body()
        if self.path == "/moved":
            self.reply(b"", 302, Location="/elsewhere")
        elif self.path == "/teapot":
            self.reply(b"short and stout", 418)
        elif self.path == "/unready":
            self.reply(b"not yet", 503)
        else:
            self.reply(answer(self.command, self.path, dict(self.headers), body), 200)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST

    def read_body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def reply(self, body, status, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        print("the server begins", flush=True)
        Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
    else:
        main()
