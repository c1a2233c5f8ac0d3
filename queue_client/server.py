"""One ComfyUI server, by its own web API."""

from __future__ import annotations

import http.client
import json
import urllib.parse
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from . import Problem

TIMEOUT = 20.0  # seconds; ComfyUI answers while a prompt runs, but slowly while it loads a model
JSON = "application/json"
NO_COMFYUI = "it answers, but not as a ComfyUI"


class Lost(Exception):
    """The server does not answer. `ended`: nobody listens any more, so that its queue is gone, too."""

    def __init__(self, why: str, ended: bool = False):
        super().__init__(why)
        self.ended = ended


class Refused(Exception):
    """The server answers, and does not do what was asked."""


class Server:
    """The ComfyUI at `HOST:PORT`. Raises Problem for another form of address.

    All that talks to it raises Lost if it does not answer, and Refused if it does not do what was asked.
    """

    def __init__(self, address: str):
        try:
            parts = urllib.parse.urlsplit(f"//{address}")
            self.host, self.port = parts.hostname, parts.port
        except ValueError:
            self.host = self.port = None
        if not self.host or not self.port or parts.path or parts.query or parts.username:
            raise Problem(f"Expected a server as HOST:PORT, such as 127.0.0.1:8188, got {address!r}.")
        self.name = address

    def request(self, path: str, body: bytes | None = None, kind: str = JSON) -> bytes:
        """The answer to GET, or to POST where there is a body."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT)
        try:
            connection.request("GET" if body is None else "POST", path, body, {"Content-Type": kind})
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            ended = isinstance(error, ConnectionRefusedError)
            raise Lost(str(error) or type(error).__name__, ended) from error
        finally:
            connection.close()
        if answer.status >= 500:
            raise Lost(f"it answers with status {answer.status}")
        if answer.status != 200:
            raise Refused(complaints(content) or f"{path} answers with status {answer.status}")
        return content

    def get(self, path: str) -> dict[str, Any]:
        """The answer to GET: an object in JSON."""
        try:
            found = json.loads(self.request(path))
        except (ValueError, Refused) as error:
            raise Lost(NO_COMFYUI) from error
        if not isinstance(found, dict):
            raise Lost(NO_COMFYUI)
        return found

    def post(self, path: str, message: dict[str, Any]) -> bytes:
        """The answer to a message as JSON."""
        return self.request(path, json.dumps(message).encode())

    def check(self) -> None:
        """Whether a ComfyUI answers."""
        if "system" not in self.get("/system_stats"):
            raise Lost(NO_COMFYUI)

    def queue(self, graph: dict[str, Any], prompt_id: str) -> None:
        """Put a graph into the queue, under an id of our own, so that it is found again after a break."""
        answer = self.post("/prompt", {"prompt": graph, "prompt_id": prompt_id})
        wrong = complaints(answer)
        if wrong:
            # ComfyUI runs the outputs that do not depend on what is wrong; half a result is none.
            self.cancel([prompt_id])
            raise Refused(wrong)

    def result(self, prompt_id: str) -> dict[str, Any] | None:
        """What has become of a prompt; None if it has not ended."""
        return self.get(f"/history/{prompt_id}").get(prompt_id)

    def waiting(self) -> set[str]:
        """The ids of all prompts that run or wait."""
        found = self.get("/queue")
        return {each[1] for key in ("queue_running", "queue_pending") for each in found[key]}

    def cancel(self, prompt_ids: Iterable[str]) -> None:
        """Take prompts out of the queue, and interrupt the one of them that runs."""
        ids = list(prompt_ids)
        if not ids:
            return
        self.post("/queue", {"delete": ids})
        for each in self.waiting() & set(ids):
            self.post("/interrupt", {"prompt_id": each})

    def upload(self, files: Mapping[str, bytes], folder: str) -> None:
        """Put pictures into a folder of ComfyUI's input."""
        for name, content in files.items():
            boundary = uuid.uuid4().hex
            safe = "".join("_" if each in '"\\' or not each.isprintable() else each for each in name)
            head = (
                _field(boundary, "overwrite", "true") + _field(boundary, "subfolder", folder)
                + f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{safe}"\r\n'
                "Content-Type: application/octet-stream\r\n\r\n"
            )
            body = head.encode("utf-8", "replace") + content + f"\r\n--{boundary}--\r\n".encode()
            self.request("/upload/image", body, f"multipart/form-data; boundary={boundary}")

    def file(self, where: Mapping[str, str]) -> bytes:
        """The content of a file that a prompt has made."""
        return self.request("/view?" + urllib.parse.urlencode(where))


def _field(boundary: str, name: str, value: str) -> str:
    return f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'


def complaints(answer: bytes) -> str:
    """What ComfyUI's answer to a graph complains of, "" if it does not."""
    try:
        found = json.loads(answer)
    except ValueError:
        return ""
    if not isinstance(found, dict):
        return ""
    lines = [
        f"node {key} ({node['class_type']}): {problem['message']}: {problem['details']}"
        for key, node in (found.get("node_errors") or {}).items() for problem in node["errors"]
    ]
    error = found.get("error")
    if error and not lines:
        lines = [f"{error['message']} {error['details']}".strip() if isinstance(error, dict) else str(error)]
    return "; ".join(lines)


def why_failed(result: dict[str, Any]) -> str | None:
    """Why a prompt that has ended has failed; None if it has not."""
    status = result.get("status") or {}
    if status.get("status_str") == "success":
        return None
    for kind, data in reversed(status.get("messages") or []):
        if kind == "execution_error":
            text = f"{data['exception_message']}".strip() or data["exception_type"]
            return f"node {data['node_id']} ({data['node_type']}): {text.splitlines()[0]}"
        if kind == "execution_interrupted":
            return "somebody interrupted it"
    return "it ended without a result"


def files_of(result: dict[str, Any]) -> list[tuple[str, dict[str, str]]]:
    """The files that a prompt has saved, each with its node; previews do not count."""
    return [
        (node, {key: str(each.get(key, "")) for key in ("filename", "subfolder", "type")})
        for node, shown in result["outputs"].items() for entries in shown.values()
        for each in (entries if isinstance(entries, list) else ())
        if isinstance(each, dict) and each.get("type") == "output" and each.get("filename")
    ]
