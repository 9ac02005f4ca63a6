"""A server of files that gives ranges of bytes, and can be made to fail."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Server:
    """Files of a folder at ``url``.

    Attributes:
        has_ranges: whether a range is answered by a range.
        failures: how many of the next requests are cut off.
        asked: the first and last byte of every range that was given.
        delay: seconds before an answer.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.has_ranges, self.failures, self.delay = True, 0, 0.0
        self.asked: list[tuple[str, int, int]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                server.answer(self, with_content=False)

            def do_GET(self) -> None:
                server.answer(self, with_content=True)

            def log_message(self, *_) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, handler: BaseHTTPRequestHandler, *, with_content: bool) -> None:
        time.sleep(self.delay)
        if self.failures > 0:
            self.failures -= 1
            handler.close_connection = True
            handler.connection.close()
            return
        path = self.folder / handler.path.lstrip("/")
        if not path.is_file():
            handler.send_error(404)
            return
        size, asked = path.stat().st_size, handler.headers.get("Range")
        start, stop, code = 0, size, 200
        if asked and self.has_ranges and with_content:
            first, last = re.fullmatch(r"bytes=(\d+)-(\d+)", asked).groups()
            start, stop, code = int(first), min(size, int(last) + 1), 206
            self.asked.append((path.name, start, stop))
        if code == 206 and start >= stop:
            handler.send_error(416)
            return
        handler.send_response(code)
        handler.send_header("Content-Length", str(stop - start))
        handler.send_header("ETag", f'"{size}-{path.stat().st_mtime_ns}"')
        if code == 206:
            handler.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        handler.end_headers()
        if with_content:
            with path.open("rb") as file:
                file.seek(start)
                handler.wfile.write(file.read(stop - start))

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    server = Server(folder)
    try:
        yield server
    finally:
        server.close()
