"""A Hugging Face hub on 127.0.0.1: its file protocol as far as huggingface_hub uses it, with faults on request."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


@dataclass
class FakeHub:
    """One repository at one commit, the faults of its server, and what was asked of it."""

    repo: str
    files: dict[str, bytes]
    commit: str = "c0ffee" * 6 + "abcd"
    url: str = ""
    drop_once: set[str] = field(default_factory=set)
    damaged: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)

    @classmethod
    def from_folder(cls, repo: str, folder: Path) -> FakeHub:
        """A repository with a folder's files, and some that nobody should fetch."""
        files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        unwanted = {"modeling_lsg_bart.py": b"raise SystemExit", "training_args.bin": b"\x80", "README.md": b"#"}
        return cls(repo, files | unwanted)

    def fetched(self) -> set[str]:
        """Names of the files whose content was asked for."""
        return {path.rpartition("/")[2] for method, path, _ in self.requests if method == "GET" and "resolve" in path}

    def etag(self, name: str) -> str:
        """sha256 of a large file, git's hash of a small one."""
        content = self.files[name]
        if name.endswith((".safetensors", ".bin", ".model")):
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


@contextmanager
def serve(hub: FakeHub) -> Iterator[FakeHub]:
    """Answer on a free port of the loopback interface."""
    handler = type("Handler", (HubHandler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class HubHandler(BaseHTTPRequestHandler):
    """`/api/models/...` and `/{repo}/resolve/{revision}/{file}`."""

    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        """Find out what is asked for."""
        hub, path = self.hub, self.path.partition("?")[0]
        hub.requests.append((self.command, path, self.headers.get("Range")))
        if path == f"/api/models/{hub.repo}" or (info := re.fullmatch(f"/api/models/{hub.repo}/revision/(.+)", path)):
            if path != f"/api/models/{hub.repo}" and not self.knows(info[1]):
                return self.refuse("RevisionNotFound")
            siblings = [{"rfilename": name} for name in hub.files]
            return self.send(json.dumps({"id": hub.repo, "sha": hub.commit, "siblings": siblings}).encode())
        if match := re.fullmatch(f"/{hub.repo}/resolve/([^/]+)/(.+)", path):
            if not self.knows(match[1]):
                return self.refuse("RevisionNotFound")
            if match[2] not in hub.files or match[2] in hub.missing:
                return self.refuse("EntryNotFound")
            return self.send_file(match[2])
        return self.refuse("RepoNotFound")

    def knows(self, revision: str) -> bool:
        """Whether this is our one commit."""
        return revision in ("main", self.hub.commit)

    def refuse(self, code: str) -> None:
        """404 with the hub's own word for it."""
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send(self, body: bytes, headers: dict[str, str] | None = None, status: int = 200, size: int = 0) -> None:
        """A whole answer, or one that breaks off after `size` bytes."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[: size or len(body)])
        if size:
            self.wfile.flush()
            self.connection.close()
            self.close_connection = True

    def send_file(self, name: str) -> None:
        """A file, or the rest of one, perhaps damaged on its way."""
        hub, content = self.hub, self.hub.files[name]
        if name in hub.damaged:
            content = content[:-1] + bytes([content[-1] ^ 1])
        headers = {"ETag": f'"{hub.etag(name)}"', "X-Repo-Commit": hub.commit, "Accept-Ranges": "bytes"}
        if self.command == "GET" and name in hub.drop_once:
            hub.drop_once.remove(name)
            return self.send(content, headers, size=len(content) // 2)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked and self.command == "GET":
            start = int(asked[1])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            return self.send(content[start:], headers, status=206)
        return self.send(content, headers)


def use_environment(monkeypatch: pytest.MonkeyPatch, **variables: object) -> None:
    """Set variables and have huggingface_hub imported anew, as it reads them then."""
    for name in ("HF_HUB_OFFLINE", "HF_HUB_CACHE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HF_HUB_DISABLE_TELEMETRY": 1, "HF_HUB_DISABLE_XET": 1, **variables}.items():
        monkeypatch.setenv(name, str(value))
    for name in [name for name in sys.modules if name.partition(".")[0] == "huggingface_hub"]:
        monkeypatch.delitem(sys.modules, name)
