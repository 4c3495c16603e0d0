"""A customer, two orders and what becomes of them: the shop from Python, with stock gRPC and the contracts of proto/.

    example.py CUSTOMER ORDER QUERY [TLS_DIR]

The first three say where a service is found, as gRPC writes it: 127.0.0.1:7611, several instances as
ipv4:127.0.0.1:7611,127.0.0.1:7621, or a name that stands for all of them as dns:///customer:7601. TLS_DIR is the folder of a
certificate, which a mesh in strict mode asks for: `meshwork up --tls` and `meshwork ca issue` make one.
"""

import json
import pathlib
import sys
import uuid

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from shop.customer.v1 import customer_pb2, customer_pb2_grpc
from shop.order.v1 import order_pb2, order_pb2_grpc
from shop.query.v1 import query_pb2, query_pb2_grpc
from shop.type.v1 import money_pb2

# Calls go to all addresses in turn, and move on when an instance leaves. They may all be repeated: those that create
# something carry a request_id, so that a call whose answer was lost is not done twice.
SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.05s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}

# Seconds. A call without a deadline may wait for ever.
CALL, SAGA = 5, 40


class Shop:
    """The three services, and the calls of the example."""

    def __init__(self, customer, order, query, tls_dir=None):
        targets = {"customer": customer, "order": order, "query": query}
        self.channels = [channel(service, target, tls_dir) for service, target in targets.items()]
        self.customers = customer_pb2_grpc.CustomerServiceStub(self.channels[0])
        self.orders = order_pb2_grpc.OrderServiceStub(self.channels[1])
        self.queries = query_pb2_grpc.QueryServiceStub(self.channels[2])

    def close(self):
        for channel in self.channels:
            channel.close()

    def create_customer(self, name, credit_limit):
        request = customer_pb2.CreateCustomerRequest(name=name, credit_limit=credit_limit, request_id=str(uuid.uuid4()))
        return self.customers.CreateCustomer(request, timeout=CALL)

    def create_order(self, customer, total, request_id=None):
        request = order_pb2.CreateOrderRequest(
            customer_id=customer.customer_id, total=total, request_id=request_id or str(uuid.uuid4())
        )
        return self.orders.CreateOrder(request, timeout=CALL)

    def settled(self, order):
        """The order as it is in the end: the watch ends by itself once it is approved, rejected or cancelled."""
        for seen in self.orders.WatchOrder(order_pb2.WatchOrderRequest(order_id=order.order_id), timeout=SAGA):
            order = seen
        return order

    def history(self, customer, no_staler_than):
        """What the read side knows, and at least what the answer `no_staler_than` already showed."""
        request = query_pb2.GetCustomerHistoryRequest(
            customer_id=customer.customer_id, position_token=no_staler_than.position_token
        )
        return self.queries.GetCustomerHistory(request, timeout=CALL)


def channel(service, target, tls_dir):
    # gRPC would send the target itself as `:authority`, and HTTP/2 servers refuse a list of addresses there. With TLS, it is
    # also the name that the server's certificate must have.
    options = [("grpc.default_authority", service), ("grpc.service_config", json.dumps(SERVICE_CONFIG))]
    if tls_dir is None:
        return grpc.insecure_channel(target, options)
    return grpc.secure_channel(target, credentials(tls_dir), options)


def credentials(tls_dir):
    """Who we are, and whom we believe. It is read once: make a new channel before the certificate expires."""
    ca, key, certificate = (pathlib.Path(tls_dir, name).read_bytes() for name in ("ca.pem", "key.pem", "cert.pem"))
    return grpc.ssl_channel_credentials(ca, key, certificate)


def usd(units, cents=0):
    return money_pb2.Money(currency_code="USD", units=units, nanos=cents * 10_000_000)


def details(error):
    """What a refused call says for machines: a reason, and the fields that are wrong (google.rpc.Status)."""
    info, request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in rpc_status.from_call(error).details:
        detail.Unpack(info) or detail.Unpack(request)
    return info, [violation.field for violation in request.field_violations]


def main(customer, order, query, tls_dir=None):
    shop = Shop(customer, order, query, tls_dir)
    ada = shop.create_customer("Ada", credit_limit=usd(15))

    small = shop.settled(shop.create_order(ada, usd(12, 34)))
    print("12.34 USD:", order_pb2.OrderState.Name(small.state))
    large = shop.settled(shop.create_order(ada, usd(123, 40)))
    print("123.40 USD:", order_pb2.OrderState.Name(large.state), order_pb2.RejectionReason.Name(large.rejection_reason))

    for seen in shop.history(ada, no_staler_than=large).orders:
        print("the read side:", seen.order_id, order_pb2.OrderState.Name(seen.state))

    try:
        shop.create_order(ada, usd(-1))
    except grpc.RpcError as error:
        info, fields = details(error)
        print("-1 USD:", error.code().name, info.reason, *fields)
    shop.close()


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    main(*sys.argv[1:])
