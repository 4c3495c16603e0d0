"""What a stock Python client is promised, tried on a mesh that is started for it and drained at the end."""

import pathlib
import socket
import subprocess
import sys
import unittest
import uuid

import grpc
from example import Shop, details, usd
from mesh import Mesh
from shop.order.v1 import order_pb2
from shop.query.v1 import query_pb2

HERE = pathlib.Path(__file__).parent


class ShopTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.mesh = Mesh()
        cls.shop = Shop(*cls.mesh.targets())

    @classmethod
    def tearDownClass(cls):
        cls.shop.close()
        assert cls.mesh.stop() == 0, "a mesh that is asked to stop ends in order"

    def refusal(self, call, *args):
        with self.assertRaises(grpc.RpcError) as refused:
            call(*args)
        return refused.exception

    def test_the_example_shows_one_order_approved_and_one_rejected_on_both_sides(self):
        command = [sys.executable, HERE / "example.py", *self.mesh.targets()]
        lines = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout.splitlines()
        self.assertEqual(lines[0], "12.34 USD: ORDER_STATE_APPROVED")
        self.assertEqual(lines[1], "123.40 USD: ORDER_STATE_REJECTED REJECTION_REASON_INSUFFICIENT_CREDIT")
        # Newest first.
        self.assertRegex(lines[2], "^the read side: .* ORDER_STATE_REJECTED$")
        self.assertRegex(lines[3], "^the read side: .* ORDER_STATE_APPROVED$")
        self.assertEqual(lines[4:], ["-1 USD: INVALID_ARGUMENT INVALID_FIELD total.units"])

    def test_a_query_with_a_position_token_sees_what_was_written_before(self):
        customer = self.shop.create_customer("Grace", usd(1000))
        for cents in range(10):
            order = self.shop.settled(self.shop.create_order(customer, usd(1, cents)))
            newest = self.shop.history(customer, no_staler_than=order).orders[0]
            self.assertEqual((newest.order_id, newest.state), (order.order_id, order_pb2.ORDER_STATE_APPROVED))

    def test_the_same_request_id_makes_one_order_and_another_body_under_it_is_refused(self):
        customer, request_id = self.shop.create_customer("Barbara", usd(10)), str(uuid.uuid4())
        first, again = (self.shop.create_order(customer, usd(1), request_id) for _ in range(2))
        self.assertEqual(first.order_id, again.order_id)
        error = self.refusal(self.shop.create_order, customer, usd(2), request_id)
        self.assertEqual(error.code(), grpc.StatusCode.INVALID_ARGUMENT)
        self.assertEqual(details(error)[0].reason, "REQUEST_ID_REUSED")

    def test_an_error_has_a_reason_a_domain_and_the_fields_that_are_wrong(self):
        error = self.refusal(self.shop.create_customer, "", usd(-5))
        info, fields = details(error)
        self.assertEqual((error.code(), info.domain), (grpc.StatusCode.INVALID_ARGUMENT, "customer.shop"))
        self.assertEqual((info.reason, fields), ("INVALID_FIELD", ["name", "credit_limit.units"]))

        unknown = order_pb2.GetOrderRequest(order_id=str(uuid.uuid4()))
        error = self.refusal(self.shop.orders.GetOrder, unknown)
        self.assertEqual((error.code(), details(error)[0].reason), (grpc.StatusCode.NOT_FOUND, "UNKNOWN_ORDER"))

    def test_a_deadline_ends_a_stream_that_has_no_end(self):
        stream = self.shop.queries.WatchOrders(query_pb2.WatchOrdersRequest(), timeout=0.2)
        self.assertEqual(self.refusal(list, stream).code(), grpc.StatusCode.DEADLINE_EXCEEDED)

    def test_an_address_without_a_listener_costs_no_call(self):
        with socket.socket() as taken:
            # Bound and not listening: it refuses connections, and no other process can take it.
            taken.bind(("127.0.0.1", 0))
            dead = f"ipv4:127.0.0.1:{taken.getsockname()[1]},"
            shop = Shop(*(target.replace("ipv4:", dead) for target in self.mesh.targets()))
            for _ in range(10):
                customer = shop.create_customer("Edsger", usd(1))
                shop.history(customer, no_staler_than=customer)
            shop.close()


if __name__ == "__main__":
    unittest.main()
