"""A server of one repository, as the hub's library asks one: files by revision, and their list."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REVISION = "c" * 40


@contextmanager
def served(repository: str, files: dict[str, bytes]) -> Iterator[tuple[str, list[str]]]:
    """Serve a repository on a port of this machine.

    Args:
        repository: ``owner/name``.
        files: by name.

    Yields:
        The address, and a list that every request is added to, such as ``GET file``.
    """
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            path = self.path.partition("?")[0].strip("/")
            name = path.rpartition("/")[2]
            asked.append(f"{self.command} {path}")
            content, status = b"", 404
            if path.startswith(f"{repository}/resolve/") and name in files:
                content, status = files[name], 200
            elif path == f"api/models/{repository}/revision/main":
                siblings = [{"rfilename": n, "size": len(c)} for n, c in files.items()]
                told = {"_id": "1", "id": repository, "sha": REVISION, "siblings": siblings}
                content, status = json.dumps(told).encode(), 200
            elif path.startswith(f"api/models/{repository}/tree/"):
                tree = [
                    {"type": "file", "path": n, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
                    for n, c in files.items()
                ]
                content, status = json.dumps(tree).encode(), 200
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("X-Repo-Commit", REVISION)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            if status == 404:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.end_headers()
            if body:
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
