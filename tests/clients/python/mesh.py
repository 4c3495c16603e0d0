"""A mesh for a test, on free ports and in its own folder."""

import json
import os
import pathlib
import signal
import subprocess
import tempfile

MESHWORK = os.environ.get("MESHWORK", pathlib.Path(__file__).parents[3] / "target/debug/meshwork")


class Mesh:
    """`meshwork up`, with more flags."""

    def __init__(self, *flags, log_level="warn"):
        self.folder = tempfile.TemporaryDirectory()
        places = ["--registry-addr=127.0.0.1:0", f"--data-dir={self.folder.name}"]
        command = [MESHWORK, "up", *places, f"--log-level={log_level}", "--json", *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        # One line, once it is ready.
        ready = json.loads(self.process.stdout.readline())
        self.instances, self.operator = ready["instances"], ready["tlsDir"]

    def address(self, service):
        """One of the service's instances."""
        return next(each["address"] for each in self.instances if each["service"] == service)

    def target(self, service):
        return "ipv4:" + ",".join(each["address"] for each in self.instances if each["service"] == service)

    def targets(self):
        return [self.target(service) for service in ("customer", "order", "query")]

    def stop(self):
        """Drains it; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=60)
        finally:
            self.process.kill()
            self.process.stdout.close()
            self.folder.cleanup()
