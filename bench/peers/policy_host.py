"""An HTTPS server for MTA-STS policies (RFC 8461 3.3): one address, one certificate, a policy for each host.

Python's own HTTP server in a thread; policy hosts listen on port 443 and nowhere else, which takes root on
most machines. Honest only: what hostile hosts do is tested against the client itself. A request for a host
without a policy gets 404.
"""

import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from bench.peers.certificate import Certificate

HTTPS_PORT = 443
WELL_KNOWN = "/.well-known/mta-sts.txt"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    policies: Mapping[str, str]


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, _Server)
        policy = self.server.policies.get(self.headers.get("Host", "").lower())
        if not policy or self.path != WELL_KNOWN:
            self.send_error(404)
            return
        body = policy.replace("\n", "\r\n").encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a test's output is about the test."""


@contextmanager
def serving(folder: Path, policies: Mapping[str, str], certificate: Certificate, host: str) -> Iterator[None]:
    """Serve `policies` (policy host -> text, empty for none) at `host` until the block ends.

    Raises OSError where port 443 cannot be had.
    """
    folder.mkdir(parents=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate.write(folder))
    with _Server((host, HTTPS_PORT), _Answer) as server:
        server.policies = policies
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
