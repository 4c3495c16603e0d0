"""What a stock Python client loses when the servers that it calls are replaced, one after the other: nothing."""

import json
import os
import pathlib
import queue
import signal
import subprocess
import threading
import time
import unittest

import grpc
from greeter.v1 import greeter_pb2, greeter_pb2_grpc

HERE = pathlib.Path(__file__).parent
PROGRAMS = pathlib.Path(os.environ.get("MESHWORK", HERE.parents[2] / "target/debug/meshwork")).parent

# Seconds.
CALL, STUCK = 10, 60

# Calls go to all addresses in turn, and move on when a server leaves.
SERVICE_CONFIG = {"loadBalancingConfig": [{"round_robin": {}}]}


class Server:
    """A process that serves at an address, once it says that it is ready."""

    def __init__(self, program, *flags, address="127.0.0.1:0"):
        command = [PROGRAMS / program, "--log-level=warn", f"--listen={address}", *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        # "NAME is ready on ADDRESS"
        self.address = self.process.stdout.readline().split()[-1]

    def stop(self):
        """Lets it leave; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=STUCK)
        finally:
            self.process.kill()
            self.process.stdout.close()


class Callers:
    """Threads that call in a loop, and report each answer's instance or error."""

    def __init__(self, addresses):
        options = [("grpc.default_authority", "greeter"), ("grpc.service_config", json.dumps(SERVICE_CONFIG))]
        self.channel = grpc.insecure_channel("ipv4:" + ",".join(addresses), options)
        self.stub = greeter_pb2_grpc.GreeterServiceStub(self.channel)
        self.reports, self.stopped, self.failures = queue.Queue(), threading.Event(), []
        self.threads = [threading.Thread(target=self.call_in_a_loop) for _ in range(8)]
        for thread in self.threads:
            thread.start()

    def call_in_a_loop(self):
        while not self.stopped.is_set():
            try:
                _, call = self.stub.Greet.with_call(greeter_pb2.GreetRequest(name="Ada"), timeout=CALL)
                self.reports.put(dict(call.initial_metadata())["meshwork-instance"])
            except grpc.RpcError as error:
                self.failures.append(error)

    def wait_for(self, instance):
        limit = time.monotonic() + STUCK
        while self.reports.get(timeout=STUCK) != instance:
            assert time.monotonic() < limit, f"{instance} never answered; failed: {self.failures[:1]}"

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join()
        self.channel.close()


class GracefulStopTest(unittest.TestCase):
    def start(self, program, *flags, address="127.0.0.1:0"):
        server = Server(program, *flags, address=address)
        self.addCleanup(server.process.stdout.close)
        self.addCleanup(server.process.wait)
        self.addCleanup(server.process.kill)
        return server

    def test_two_servers_that_are_replaced_under_load_cost_no_call(self):
        registry = self.start("meshwork-registry")

        def greeter(instance, address="127.0.0.1:0"):
            flags = [f"--registry={registry.address}", "--cache-dir=", f"--instance-id={instance}"]
            return self.start("greeter-server", *flags, address=address)

        servers = [greeter("a1"), greeter("b1")]
        callers = Callers([server.address for server in servers])
        try:
            for first in ("a1", "b1"):
                callers.wait_for(first)
            for server, successor in zip(servers, ("a2", "b2")):
                self.assertEqual(server.stop(), 0, "a server that is asked to leave ends in order")
                greeter(successor, server.address)
                callers.wait_for(successor)
        finally:
            callers.stop()
        self.assertEqual(callers.failures, [])


if __name__ == "__main__":
    unittest.main()
