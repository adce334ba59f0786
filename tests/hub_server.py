"""A model hub on this machine: what `huggingface_hub` asks of the real one to make, fill and read a repository."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

COMMIT = "1" * 40


class Hub(ThreadingHTTPServer):
    """Repositories of models by "owner/name", each with its files; large ones go through Git LFS's protocol.

    Attributes:
        files: Files of each repository.
        asked: Methods and paths of all requests, in order.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, dict[str, bytes]] = {}
        self.stored: dict[str, bytes] = {}
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """The endpoints, as the Hub's API and Git LFS describe them."""

    server: Hub

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""

    def do_POST(self) -> None:
        """Makes a repository, says how files are sent, takes a commit."""
        body, parts = self._begin()
        if parts[:3] == ["api", "repos", "create"]:
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            status = 409 if name in self.server.files else 200
            self.server.files.setdefault(name, {})
            self._answer({"url": f"{self.server.url}/{name}", "name": name}, status)
        elif parts[-4:] == ["info", "lfs", "objects", "batch"]:
            self._answer({"transfer": "basic", "objects": [self._upload(one) for one in json.loads(body)["objects"]]})
        elif parts[4:5] == ["preupload"]:
            named = [file["path"] for file in json.loads(body)["files"]]
            files = [{"path": path, "uploadMode": self._mode(path), "shouldIgnore": False} for path in named]
            self._answer({"files": files})
        elif parts[4:5] == ["commit"]:
            self._commit("/".join(parts[2:4]), [json.loads(line) for line in body.splitlines()])
        elif parts == ["api", "validate-yaml"]:
            self._answer({"errors": [], "warnings": []})
        else:
            self._answer({"error": "no such endpoint"}, 404)

    def do_PUT(self) -> None:
        """Takes a large file."""
        body, parts = self._begin()
        assert hashlib.sha256(body).hexdigest() == parts[-1]
        self.server.stored[parts[-1]] = body
        self._answer({})

    def do_HEAD(self) -> None:
        """A file's size and version."""
        self.do_GET()

    def do_GET(self) -> None:
        """A file, or what a repository holds."""
        _, parts = self._begin()
        if parts[:2] == ["api", "models"]:
            name = "/".join(parts[2:4])
            files = self.server.files.get(name)
            listed = [{"rfilename": path} for path in files or ()]
            found = {"id": name, "modelId": name, "sha": COMMIT, "siblings": listed, "private": False, "tags": []}
            self._answer(found if files is not None else {"error": "Repository not found"}, 200 if files else 404)
            return
        content = self.server.files.get("/".join(parts[:2]), {}).get("/".join(parts[4:]))
        headers = {"X-Repo-Commit": COMMIT}
        if content is None:
            self._send(b"", 404, {**headers, "X-Error-Code": "EntryNotFound"})
        else:
            self._send(content, 200, {**headers, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'})

    def _begin(self) -> tuple[bytes, list[str]]:
        """The request's body, and its path's parts."""
        self.server.asked.append(f"{self.command} {urlsplit(self.path).path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return body, urlsplit(self.path).path.strip("/").split("/")

    def _mode(self, path: str) -> str:
        return "lfs" if path.endswith(".safetensors") else "regular"

    def _upload(self, one: dict[str, Any]) -> dict[str, Any]:
        return {**one, "actions": {"upload": {"href": f"{self.server.url}/lfs/{one['oid']}"}}}

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        files = self.server.files[name]
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.stored[value["oid"]]
        address = f"{self.server.url}/{name}/commit/{COMMIT}"
        self._answer({"success": True, "commitOid": COMMIT, "commitUrl": address, "hookOutput": ""})

    def _answer(self, value: dict[str, Any], status: int = 200) -> None:
        self._send(json.dumps(value).encode(), status, {"Content-Type": "application/json"})

    def _send(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub without repositories, for as long as it is needed."""
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
