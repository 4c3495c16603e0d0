"""What stock clients are promised in strict mode: Python's gRPC, grpcurl and openssl get in with a certificate of the mesh,
find the server that they asked for, and get nowhere otherwise."""

import os
import pathlib
import shutil
import subprocess
import sys
import unittest
import uuid

import grpc
from example import credentials, details
from google.protobuf import duration_pb2
from mesh import MESHWORK, Mesh
from meshwork.registry.v1 import policy_pb2, policy_pb2_grpc
from shop.order.v1 import order_pb2, order_pb2_grpc

HERE = pathlib.Path(__file__).parent
# Beside this Python, or wherever else it is installed.
GRPCURL = shutil.which("grpcurl", path=os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]))

# Seconds.
CALL, STUCK = 10, 60


class StrictTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # It warns of each connection that it refuses.
        cls.mesh = Mesh("--tls", log_level="error")
        cls.order = cls.mesh.address("order")
        cls.operator = pathlib.Path(cls.mesh.operator)
        cls.ca = cls.operator / "ca.pem"
        # Of another CA, with the same names.
        cls.stranger = pathlib.Path(cls.mesh.folder.name, "stranger")
        for command in (["init", "--trust-domain=meshwork.local"], ["issue", "operator/admin", f"--out={cls.stranger}"]):
            subprocess.run([MESHWORK, "ca", *command, f"--ca-dir={cls.stranger}-ca"], check=True, stdout=subprocess.DEVNULL)

    @classmethod
    def tearDownClass(cls):
        assert cls.mesh.stop() == 0, "a mesh that is asked to stop ends in order"

    def test_the_example_reaches_each_service_by_its_name(self):
        command = [sys.executable, HERE / "example.py", *self.mesh.targets(), self.operator]
        lines = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout.splitlines()
        self.assertEqual((len(lines), lines[0]), (5, "12.34 USD: ORDER_STATE_APPROVED"))

    def test_a_server_is_known_by_its_address_by_localhost_and_by_its_services_name(self):
        port = self.order.rpartition(":")[2]
        by_name = [("grpc.ssl_target_name_override", "order")]
        for target, options in ((self.order, []), (f"localhost:{port}", []), (f"ipv4:{self.order}", by_name)):
            with self.subTest(target):
                self.assert_answered(target, credentials(self.operator), options)

    def test_another_services_server_is_refused_by_its_name(self):
        for option in ("grpc.ssl_target_name_override", "grpc.default_authority"):
            with self.subTest(option):
                error = self.refusal(self.order, credentials(self.operator), [(option, "customer")])
                self.assertIn("Hostname Verification Check failed", error.details())

    def test_a_server_of_another_ca_is_refused(self):
        key, certificate = ((self.operator / name).read_bytes() for name in ("key.pem", "cert.pem"))
        error = self.refusal(
            self.order, grpc.ssl_channel_credentials((self.stranger / "ca.pem").read_bytes(), key, certificate)
        )
        self.assertIn("CERTIFICATE_VERIFY_FAILED", error.details())

    def test_nobody_gets_in_without_a_certificate_of_the_mesh(self):
        ca = self.ca.read_bytes()
        key, certificate = ((self.stranger / name).read_bytes() for name in ("key.pem", "cert.pem"))
        strangers = {
            "no certificate": grpc.ssl_channel_credentials(ca),
            "another CA's": grpc.ssl_channel_credentials(ca, key, certificate),
        }
        for what, stranger in strangers.items():
            with self.subTest(what):
                self.refusal(self.order, stranger)
        with self.subTest("plain text"):
            self.assertEqual(self.failure(grpc.insecure_channel(self.order)).code(), grpc.StatusCode.UNAVAILABLE)
        # With a certificate of the mesh, the same call is answered.
        self.assert_answered(self.order, credentials(self.operator))

    def test_a_service_may_not_do_what_only_operators_may(self):
        def set_policy(folder, seconds):
            policy = policy_pb2.Policy(service="order", timeout=duration_pb2.Duration(seconds=seconds))
            with grpc.secure_channel(self.mesh.address("registry"), credentials(folder)) as channel:
                policies = policy_pb2_grpc.PolicyServiceStub(channel)
                return policies.SetPolicy(policy_pb2.SetPolicyRequest(policy=policy), timeout=CALL)

        self.assertEqual(set_policy(self.operator, 20).timeout.seconds, 20)
        with self.assertRaises(grpc.RpcError) as refused:
            set_policy(self.operator.parent / "order", 30)
        info, _ = details(refused.exception)
        self.assertEqual(refused.exception.code(), grpc.StatusCode.PERMISSION_DENIED)
        self.assertEqual((info.reason, info.domain), ("NOT_ALLOWED", "registry.meshwork"))
        self.assertIn("service/order may not set policies", refused.exception.details())

    def test_grpcurl_lists_and_calls_with_a_certificate(self):
        listed = self.grpcurl(*self.files(self.operator), self.order, "list")
        self.assertIn("shop.order.v1.OrderService", listed.stdout.splitlines())
        # -authority says which name the server's certificate must have.
        called = self.grpcurl(*self.files(self.operator), "-authority=order", self.order, "grpc.health.v1.Health/Check")
        self.assertIn('"status": "SERVING"', called.stdout)

    def test_grpcurl_fails_without_a_certificate_in_plain_text_and_under_another_name(self):
        for flags in ([f"-cacert={self.ca}"], ["-plaintext"], [*self.files(self.operator), "-authority=customer"]):
            with self.subTest(flags):
                # It tries to connect until that time.
                failed = self.grpcurl("-connect-timeout=2", *flags, self.order, "list")
                self.assertEqual((failed.returncode, failed.stdout), (1, ""))
                self.assertRegex(failed.stderr, "^Failed to (dial|list)")

    def test_openssl_negotiates_http_2_and_tls_1_3_and_verifies_the_server_by_its_name(self):
        session = self.openssl("-alpn", "h2", certificate=self.operator)
        self.assertEqual(session.returncode, 0, session.stderr)
        for line in ("ALPN protocol: h2", "New, TLSv1.3", "Verification: OK", "Verified peername: order"):
            self.assertIn(line, session.stdout)

    def test_openssl_sees_the_reason_of_each_refusal(self):
        refusals = {
            "certificate required": (["-alpn", "h2"], None),
            "unknown ca": (["-alpn", "h2"], self.stranger),
            "no application protocol": (["-alpn", "http/1.1"], self.operator),
            "protocol version": (["-alpn", "h2", "-tls1_2"], self.operator),
        }
        for alert, (flags, certificate) in refusals.items():
            with self.subTest(alert):
                # In TLS 1.3 a client is refused after its handshake has ended: it waits for the server's last word.
                session = self.openssl("-ign_eof", *flags, certificate=certificate)
                self.assertRegex(session.stderr, f"alert {alert}")

    def failure(self, channel):
        """What a call ends with that no server can answer: there is no such order."""
        with channel, self.assertRaises(grpc.RpcError) as failed:
            request = order_pb2.GetOrderRequest(order_id=str(uuid.uuid4()))
            order_pb2_grpc.OrderServiceStub(channel).GetOrder(request, timeout=CALL)
        return failed.exception

    def assert_answered(self, *secure):
        error = self.failure(grpc.secure_channel(*secure))
        self.assertEqual(error.code(), grpc.StatusCode.NOT_FOUND, error.details())

    def refusal(self, *secure):
        error = self.failure(grpc.secure_channel(*secure))
        self.assertEqual(error.code(), grpc.StatusCode.UNAVAILABLE, error.details())
        return error

    def files(self, folder):
        return [f"-cacert={self.ca}", f"-cert={folder}/cert.pem", f"-key={folder}/key.pem"]

    def grpcurl(self, *arguments):
        return subprocess.run([GRPCURL, *arguments], capture_output=True, text=True, timeout=STUCK)

    def openssl(self, *flags, certificate):
        """A handshake with order, as order."""
        server = ["-connect", self.order, "-servername", "order"]
        verify = ["-CAfile", self.ca, "-verify_hostname", "order", "-verify_return_error"]
        ours = ["-cert", certificate / "cert.pem", "-key", certificate / "key.pem"] if certificate else []
        command = ["openssl", "s_client", *server, *verify, *ours, *flags]
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=STUCK)


if __name__ == "__main__":
    unittest.main()
