"""ComfyUI's own web API: queue a graph and follow it, upload, view, interrupt, free."""

from __future__ import annotations

import http.client
import json
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import websocket

from dev import Failure

JSON = "application/json"
ENDINGS = {
    "execution_success": "success",
    "execution_error": "error",
    "execution_interrupted": "interrupted",
}


@dataclass
class Result:
    """How one queued graph ended.

    status: "success", "error", "interrupted", or "refused" when ComfyUI did not accept the graph.
    error: what ComfyUI complained of; empty where there was nothing.
    outputs: by node id, as in ComfyUI's history, for example {"9": {"images": [...]}}.
    events: every websocket message about this graph, in order: {"type": ..., "data": {...}}.
    """

    status: str
    error: str = ""
    prompt_id: str | None = None
    outputs: dict[str, dict] = field(default_factory=dict)
    events: list[dict] = field(default_factory=list)


class ComfyClient:
    """Talks to the ComfyUI at 127.0.0.1:port. `log`, where known, is named in every Failure."""

    def __init__(self, port: int, log: Path | None = None):
        self.port = port
        self.log = log

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def request(self, path: str, body: bytes | None = None, kind: str = JSON) -> tuple[int, bytes]:
        """GET, or POST when there is a body; the status and the body of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET" if body is None else "POST", path, body, {"Content-Type": kind})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise Failure(f"ComfyUI at {self.address} does not answer: {error}.", self.log) from error
        finally:
            connection.close()

    def fetch(self, path: str, body: bytes | None = None, kind: str = JSON) -> bytes:
        """The same, for requests that must succeed."""
        status, answer = self.request(path, body, kind)
        if status != 200:
            raise Failure(f"ComfyUI answered {path} with status {status}.", self.log)
        return answer

    def get(self, path: str):
        return json.loads(self.fetch(path))

    def post(self, path: str, message: dict) -> bytes:
        return self.fetch(path, json.dumps(message).encode())

    def object_info(self) -> dict[str, dict]:
        """The definition of every node that ComfyUI knows, by node id."""
        return self.get("/object_info")

    def upload(self, name: str, picture: bytes) -> str:
        """Put a picture file into ComfyUI's input folder; returns the name for LoadImage."""
        boundary = uuid.uuid4().hex
        body = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="overwrite"\r\n\r\ntrue\r\n'
            f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
            f"Content-Type: application/octet-stream\r\n\r\n"
        ).encode() + picture + f"\r\n--{boundary}--\r\n".encode()
        answer = self.fetch("/upload/image", body, f"multipart/form-data; boundary={boundary}")
        return json.loads(answer)["name"]

    def view(self, image: dict[str, str]) -> bytes:
        """The file behind one entry of an output's "images"."""
        return self.fetch("/view?" + urllib.parse.urlencode(image))

    def interrupt(self) -> None:
        """Cancel what is running."""
        self.post("/interrupt", {})

    def free(self) -> None:
        """Unload all models and empty the execution cache, before the next graph at the latest."""
        self.post("/free", {"unload_models": True, "free_memory": True})

    def queue(
        self, graph: dict, on_event: Callable[[dict], None] | None = None, timeout: float = 600.0
    ) -> Result:
        """Queue a graph in API format and wait until it has ended, whichever way.

        on_event gets every websocket message about the graph as it comes, and may use this client.
        Raises Failure when ComfyUI goes away or needs more than timeout seconds.
        """
        client_id = uuid.uuid4().hex
        socket = self._listen(client_id)
        try:
            body = json.dumps({"prompt": graph, "client_id": client_id}).encode()
            status, answer = self.request("/prompt", body)
            answer = json.loads(answer)
            if status != 200:
                return Result("refused", complaints(answer))
            result = Result("unfinished", complaints(answer), answer["prompt_id"])
            for event in self._events(socket, result.prompt_id, timeout):
                result.events.append(event)
                if event["type"] in ENDINGS:
                    result.status = ENDINGS[event["type"]]
                if event["type"] == "execution_error":
                    result.error = node_error(event["data"])
                if on_event is not None:
                    on_event(event)
        finally:
            socket.close()
        result.outputs = self.get(f"/history/{result.prompt_id}")[result.prompt_id]["outputs"]
        return result

    def _listen(self, client_id: str) -> websocket.WebSocket:
        try:
            return websocket.create_connection(
                f"ws://127.0.0.1:{self.port}/ws?clientId={client_id}", timeout=30, http_no_proxy=["127.0.0.1"]
            )
        except (OSError, websocket.WebSocketException) as error:
            raise Failure(f"ComfyUI at {self.address} does not answer: {error}.", self.log) from error

    def _events(self, socket: websocket.WebSocket, prompt_id: str, timeout: float) -> Iterator[dict]:
        """The messages about one prompt, up to the one that follows its entry in the history."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                socket.settimeout(max(deadline - time.monotonic(), 0.001))
                message = socket.recv()
            except websocket.WebSocketTimeoutException as error:
                self.interrupt()
                raise Failure(f"ComfyUI did not finish the graph within {timeout:g} s.", self.log) from error
            except (OSError, websocket.WebSocketException) as error:
                raise Failure("ComfyUI went away while it worked on the graph.", self.log) from error
            if isinstance(message, bytes):
                continue  # a preview picture
            event = json.loads(message)
            if event["data"].get("prompt_id") == prompt_id:
                yield event
                if event["type"] == "executing" and event["data"]["node"] is None:
                    return


def node_error(data: dict) -> str:
    """The first line of an execution_error message, with the node it happened in."""
    lines = data["exception_message"].strip().splitlines() or [data["exception_type"]]
    return f"node {data['node_id']} ({data['node_type']}): {lines[0]}"


def complaints(answer: dict) -> str:
    """What ComfyUI's answer to a queued graph complains of."""
    lines = [
        f"node {node_id} ({node['class_type']}): {problem['message']}: {problem['details']}"
        for node_id, node in answer.get("node_errors", {}).items()
        for problem in node["errors"]
    ]
    error = answer.get("error")
    if error and not lines:
        lines = [f"{error['message']} {error['details']}".strip() if isinstance(error, dict) else str(error)]
    return "; ".join(lines)
