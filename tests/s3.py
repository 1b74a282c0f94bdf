"""An S3 of this machine, spoken to over HTTP as the real one is, for the long suites."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import Request, urlopen

import fsspec
import pytest

BUCKET = "bucket"


@contextmanager
def s3_served(patch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serve an empty bucket on a free port, with the ways in set for this process and those that it starts; the bucket's URL."""
    server_of = pytest.importorskip("moto.server", reason="needs the dependency group soak")
    s3fs = pytest.importorskip("s3fs", reason="needs the dependency group soak")
    server = server_of.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        # Processes that are started read the environment; this one has read it when it imported fsspec.
        patch.setenv("FSSPEC_S3_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setitem(fsspec.config.conf, "s3", {"endpoint_url": f"http://{host}:{port}"})
        for name, value in (("AWS_ACCESS_KEY_ID", "none"), ("AWS_SECRET_ACCESS_KEY", "none"), ("AWS_DEFAULT_REGION", "us-east-1")):
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        urlopen(Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()  # what it holds outlives a server
        fsspec.filesystem("s3").mkdir(BUCKET)
        yield f"s3://{BUCKET}"
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        server.stop()
