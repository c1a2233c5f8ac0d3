"""As much of ComfyUI's web API as the client uses, in this process, with every fault on request."""

from __future__ import annotations

import json
import re
import threading
import urllib.parse
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Graph = dict[str, dict]


class FakeComfy:
    """A server that ends one prompt each time that it is asked for a result.

    Attributes:
        paused: nothing ends.
        silent: connections are closed without an answer.
        fails: the error in which a graph ends, or None.
        refuses: why a graph is refused, or None.
        got: the graphs that were put into the queue, by their ids.
        filename: what a result is called.
    """

    def __init__(self):
        self.paused = self.silent = False
        self.fails: Callable[[Graph], str | None] = lambda graph: None
        self.refuses: Callable[[Graph], str | None] = lambda graph: None
        self.filename = "concept_00001_.png"
        self.on_prompt: Callable[[], None] = lambda: None
        self.got: dict[str, Graph] = {}
        self.queued: list[str] = []
        self.history: dict[str, dict] = {}
        self.uploads: dict[str, bytes] = {}
        self.interrupted: list[str] = []
        self.lock = threading.RLock()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler_for(self))
        self.http.daemon_threads = True
        self.name = f"127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self) -> FakeComfy:
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def stop(self) -> None:
        """As if it were killed: nobody listens any more."""
        self.http.shutdown()
        self.http.server_close()

    def end_one(self) -> None:
        """The first prompt in the queue ends."""
        if self.paused or not self.queued:
            return
        prompt_id = self.queued.pop(0)
        error = self.fails(self.got[prompt_id])
        if error is None:
            where = {"filename": self.filename, "subfolder": prompt_id, "type": "output"}
            outputs = {"9": {"images": [where, where | {"type": "temp"}], "text": ["done"]}}
            self.history[prompt_id] = {"outputs": outputs, "status": {"status_str": "success"}}
            return
        data = {"node_id": "3", "node_type": "KSampler", "exception_message": f"{error}\nmore"}
        messages = [["execution_start", {}], ["execution_error", data]]
        self.history[prompt_id] = {"outputs": {}, "status": {"status_str": "error", "messages": messages}}

    def answer(self, path: str, body: bytes | None) -> tuple[int, object]:
        """Status and content; the content as JSON unless it is bytes."""
        place, _, query = path.partition("?")
        if place == "/system_stats":
            return 200, {"system": {}}
        if place.startswith("/history/"):
            self.end_one()
            key = place.rpartition("/")[2]
            return 200, {key: self.history[key]} if key in self.history else {}
        if place == "/queue" and body is None:
            entries = [[number, key, self.got[key]] for number, key in enumerate(self.queued)]
            return 200, {"queue_running": entries[:1], "queue_pending": entries[1:]}
        if place == "/view":
            key = dict(urllib.parse.parse_qsl(query))["subfolder"]
            return 200, json.dumps(self.got[key]).encode()
        if place == "/upload/image":
            return self.upload(body)
        return self.change(place, json.loads(body))

    def change(self, place: str, message: dict) -> tuple[int, object]:
        if place == "/prompt":
            why = self.refuses(message["prompt"])
            if why:
                return 400, {"error": {"message": why, "details": ""}, "node_errors": {}}
            self.got[message["prompt_id"]] = message["prompt"]
            self.queued.append(message["prompt_id"])
            self.on_prompt()
            return 200, {"prompt_id": message["prompt_id"], "node_errors": {}}
        if place == "/queue":
            running = self.queued[:1]
            self.queued = [key for key in self.queued if key in running or key not in message["delete"]]
            return 200, b""
        assert place == "/interrupt", place
        self.interrupted.append(message["prompt_id"])
        self.queued.remove(message["prompt_id"])
        return 200, b""

    def upload(self, body: bytes) -> tuple[int, object]:
        folder = re.search(rb'name="subfolder"\r\n\r\n(.*?)\r\n', body)[1].decode()
        name = re.search(rb'filename="(.*?)"\r\n', body)[1].decode()
        content = body.split(b"application/octet-stream\r\n\r\n")[1].rpartition(b"\r\n--")[0]
        self.uploads[f"{folder}/{name}"] = content
        return 200, {"name": name}


def handler_for(fake: FakeComfy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply(None)

        def do_POST(self) -> None:
            self.reply(self.rfile.read(int(self.headers["Content-Length"])))

        def reply(self, body: bytes | None) -> None:
            if fake.silent:
                self.close_connection = True
                return
            with fake.lock:
                status, content = fake.answer(self.path, body)
            encoded = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        def log_message(self, *_) -> None:
            pass

    return Handler
