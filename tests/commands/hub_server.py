"""A loopback server that speaks the part of the Hugging Face hub's protocol that downloads need.

`GET /api/models/REPO?blobs=true` lists a repository; `GET /REPO/resolve/COMMIT/PATH` answers with a small
file or, for a large one (LFS), with a redirect to `/cdn/`, which understands ranges.
Attributes of `HubServer` make it misbehave.
"""
from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LFS_THRESHOLD = 1000
BLOCK = 1 << 16


@dataclass
class Answer:
    """What the server did for one request; `sent` counts the body's bytes."""

    path: str
    byte_range: str | None
    authorization: str | None
    sent: int = 0


class HubServer:
    """Serves `repos` ({repo: {path: content}}) on 127.0.0.1 while used as a context manager.

    `licences` is per repository; `status` makes a repository ("owner/name") or a file ("owner/name/path")
    answer that HTTP status; `corrupt` holds endings of paths whose bytes are wrong; every large file breaks
    off at byte `cut_at`, and waits at byte `pause_at` until this server ends; `listing` replaces the answer
    of the listing by other text, and `ignore_ranges` sends whole files whatever was asked.
    """

    def __init__(self, repos: dict[str, dict[str, bytes]]):
        self.repos = repos
        self.licences: dict[str, str] = {}
        self.status: dict[str, int] = {}
        self.corrupt: set[str] = set()
        self.cut_at: int | None = None
        self.pause_at: int | None = None
        self.ended = Event()
        self.listing: str | None = None
        self.ignore_ranges = False
        self.answers: list[Answer] = []
        self._http = _Server(("127.0.0.1", 0), _Handler)
        self._http.hub = self

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def transfers(self) -> list[Answer]:
        """The answers that carried file contents."""
        return [answer for answer in self.answers if not answer.path.startswith("/api/") and answer.sent]

    def __enter__(self) -> HubServer:
        Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.ended.set()
        self._http.shutdown()
        self._http.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: HubServer

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients of these tests hang up on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> HubServer:
        return self.server.hub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.answer = Answer(path, self.headers["Range"], self.headers["Authorization"])
        self.hub.answers.append(self.answer)
        if path.startswith("/api/models/"):
            self._list(path.removeprefix("/api/models/"))
        elif path.startswith("/cdn/"):
            self._send_content(path, self._content(path.removeprefix("/cdn/")))
        else:
            repo, _, file = path.removeprefix("/").partition(f"/resolve/{COMMIT}/")
            self._resolve(repo, file)

    def _list(self, repo: str) -> None:
        if self._refused(repo, "RepoNotFound"):
            return
        files = [_sibling(path, content) for path, content in self.hub.repos[repo].items()]
        licence = {"license": self.hub.licences[repo]} if repo in self.hub.licences else {}
        listing = {"id": repo, "sha": COMMIT, "tags": [], "cardData": licence, "siblings": files}
        text = self.hub.listing or json.dumps(listing)
        self._send(200, text.encode(), {"Content-Type": "application/json"})

    def _resolve(self, repo: str, file: str) -> None:
        if self._refused(f"{repo}/{file}", "EntryNotFound"):
            return
        content = self.hub.repos[repo][file]
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{_digest(content)}"'}
        if len(content) < LFS_THRESHOLD:
            self._send_content(file, content, headers)
            return
        headers |= {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{_digest(content)}"'}
        self._send(302, b"", headers | {"Location": f"{self.hub.endpoint}/cdn/{repo}/{file}"})

    def _content(self, place: str) -> bytes:
        owner, name, file = place.split("/", 2)
        return self.hub.repos[f"{owner}/{name}"][file]

    def _refused(self, place: str, code: str) -> bool:
        status = self.hub.status.get(place)
        if status:
            gated = {"X-Error-Code": "GatedRepo" if status in (401, 403) else code}
            self._send(status, b"{}", gated | {"Content-Type": "application/json"})
        return bool(status)

    def _send_content(self, path: str, content: bytes, headers: dict[str, str] | None = None) -> None:
        if any(path.endswith(name) for name in self.hub.corrupt):
            content = content[:-1] + bytes([content[-1] ^ 1])
        start = 0
        headers = {"Accept-Ranges": "bytes", **(headers or {})}
        if self.answer.byte_range and not self.hub.ignore_ranges:
            first, _, last = self.answer.byte_range.removeprefix("bytes=").partition("-")
            start, whole = int(first), len(content)
            content = content[:int(last) + 1] if last else content
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{whole}"
        self._send(206 if "Content-Range" in headers else 200, content, headers, start)

    def _send(self, status: int, body: bytes, headers: dict[str, str], start: int = 0) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body) - start)}).items():
            self.send_header(name, value)
        self.end_headers()
        large = self.answer.path.startswith("/cdn/")
        end = min(len(body), self.hub.cut_at or len(body)) if large else len(body)
        for offset in range(start, end, BLOCK):
            if large and offset == self.hub.pause_at:
                self.hub.ended.wait()
            self.wfile.write(body[offset:min(end, offset + BLOCK)])
            self.answer.sent += min(end, offset + BLOCK) - offset
        self.close_connection = end < len(body)


def _digest(content: bytes) -> str:
    if len(content) >= LFS_THRESHOLD:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _sibling(path: str, content: bytes) -> dict[str, object]:
    entry: dict[str, object] = {"rfilename": path, "size": len(content), "blobId": _digest(content)}
    if len(content) >= LFS_THRESHOLD:
        entry["blobId"] = hashlib.sha1(b"pointer" + content).hexdigest()
        entry["lfs"] = {"size": len(content), "sha256": _digest(content), "pointerSize": 134}
    return entry
