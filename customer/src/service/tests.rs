//! Callers get resources, pages, and the exact error of every bad request.

use meshwork_events::{outbox::PositionToken, writer::Decider as _};
use meshwork_shop::{
    Amount, Currency,
    contract::shop::{
        customer::v1::{CreateCustomerRequest, GetCustomerRequest, ListCustomersRequest, UpdateCreditLimitRequest},
        r#type::v1::Money,
    },
};
use tempfile::TempDir;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::*;

struct Service {
    rpcs: Rpcs,
    folder: TempDir,
}

impl Service {
    async fn start() -> Self {
        let folder = TempDir::new().expect("a folder");
        let rpcs = Self::open(&folder).await;
        Self { rpcs, folder }
    }

    /// The same data, after a restart.
    async fn restart(self) -> Self {
        let Self { rpcs, folder } = self;
        rpcs.store.close().await;
        drop(rpcs);
        Self { rpcs: Self::open(&folder).await, folder }
    }

    async fn open(folder: &TempDir) -> Rpcs {
        let url = format!("sqlite://{}", folder.path().join("customer.db").display());
        Rpcs::new(crate::open(&url).await.expect("a store"))
    }

    async fn create(&self, request: CreateCustomerRequest) -> Result<CustomerMessage, Status> {
        self.rpcs.create_customer(Request::new(request)).await.map(Response::into_inner)
    }

    async fn get(&self, customer_id: &str) -> Result<CustomerMessage, Status> {
        let request = GetCustomerRequest { customer_id: customer_id.into() };
        self.rpcs.get_customer(Request::new(request)).await.map(Response::into_inner)
    }

    async fn update(&self, customer_id: &str, limit: Money, etag: &str) -> Result<CustomerMessage, Status> {
        let request =
            UpdateCreditLimitRequest { customer_id: customer_id.into(), credit_limit: Some(limit), etag: etag.into() };
        self.rpcs.update_credit_limit(Request::new(request)).await.map(Response::into_inner)
    }

    async fn list(&self, page_size: i32, page_token: &str) -> Result<ListCustomersResponse, Status> {
        let request = ListCustomersRequest { page_size, page_token: page_token.into() };
        self.rpcs.list_customers(Request::new(request)).await.map(Response::into_inner)
    }

    /// An order of this customer was consumed.
    async fn order_created(&self, customer_id: &str, order_id: Uuid, cents: i64) {
        let usd = Currency::from_code("USD").expect("known");
        let input = Input::OrderCreated {
            order_id,
            customer_id: customer_id.parse().expect("an id"),
            total: Amount::new(cents, usd).expect("not negative"),
            now_ms: now_ms(),
        };
        self.rpcs.store.writer().submit(input).await.expect("settled");
    }
}

fn usd(units: i64) -> Money {
    money("USD", units, 0)
}

fn money(currency_code: &str, units: i64, nanos: i32) -> Money {
    Money { currency_code: currency_code.into(), units, nanos }
}

fn alice(request_id: &str) -> CreateCustomerRequest {
    CreateCustomerRequest { name: "Alice".into(), credit_limit: Some(usd(15)), request_id: request_id.into() }
}

/// Code, reason, and the fields that are wrong.
fn seen(status: &Status) -> (Code, String, Vec<String>) {
    let details = status.get_error_details();
    let info = details.error_info().expect("always given");
    assert_eq!(info.domain, "customer.shop");
    let fields = details.bad_request().map_or(Vec::new(), |bad| bad.field_violations.clone());
    (status.code(), info.reason.clone(), fields.into_iter().map(|violation| violation.field).collect())
}

fn invalid(fields: &[&str]) -> (Code, String, Vec<String>) {
    (Code::InvalidArgument, "INVALID_FIELD".into(), fields.iter().map(ToString::to_string).collect())
}

fn failed(code: Code, reason: &str) -> (Code, String, Vec<String>) {
    (code, reason.into(), Vec::new())
}

#[tokio::test]
async fn a_customer_is_as_it_was_created_also_after_a_restart() {
    let service = Service::start().await;
    let created = service.create(alice("")).await.expect("created");
    assert_eq!((created.name.as_str(), &created.credit_limit), ("Alice", &Some(usd(15))));
    assert_eq!(created.available_credit, Some(usd(15)));
    let token = PositionToken::parse(&created.position_token).expect("a token");
    assert_eq!((token.source.as_str(), token.position), ("customer", 1));

    let service = service.restart().await;
    assert_eq!(service.get(&created.customer_id).await.expect("found"), created);
    assert_eq!(service.get(&created.customer_id.to_uppercase()).await.expect("any case"), created);
}

#[tokio::test]
async fn credit_follows_consumed_orders() {
    let service = Service::start().await;
    let id = service.create(alice("")).await.expect("created").customer_id;
    let order_id = Uuid::now_v7();
    service.order_created(&id, order_id, 1234).await;
    service.order_created(&id, order_id, 1234).await;
    service.order_created(&id, Uuid::now_v7(), 12340).await;
    let customer = service.get(&id).await.expect("found");
    assert_eq!(customer.available_credit, Some(money("USD", 2, 660_000_000)));
    assert!(PositionToken::parse(&customer.position_token).expect("a token").position >= 2);

    let ended = Input::OrderEnded { order_id, customer_id: id.parse().expect("an id"), now_ms: now_ms() };
    service.rpcs.store.writer().submit(ended).await.expect("released");
    assert_eq!(service.get(&id).await.expect("found").available_credit, Some(usd(15)));
}

#[tokio::test]
async fn the_same_request_returns_its_customer_and_another_body_is_refused() {
    let request_id = "0198C0DE-0000-4000-8000-000000000001";
    let service = Service::start().await;
    let first = service.create(alice(request_id)).await.expect("created");
    assert_eq!(service.create(alice(&request_id.to_lowercase())).await.expect("the same"), first);

    let service = service.restart().await;
    assert_eq!(service.create(alice(request_id)).await.expect("the same"), first);
    let other = CreateCustomerRequest { name: "Bob".into(), ..alice(request_id) };
    let refused = service.create(other).await.expect_err("another body");
    assert_eq!(seen(&refused), (Code::InvalidArgument, "REQUEST_ID_REUSED".into(), vec!["request_id".into()]));
}

#[tokio::test]
async fn concurrent_creations_with_one_request_id_make_one_customer() {
    let service = Service::start().await;
    let request_id = Uuid::now_v7().to_string();
    let (a, b, c) = tokio::join!(
        service.create(alice(&request_id)),
        service.create(alice(&request_id)),
        service.create(alice(&request_id)),
    );
    let ids = [a, b, c].map(|customer| customer.expect("created").customer_id);
    assert_eq!(ids[0], ids[1]);
    assert_eq!(ids[0], ids[2]);
    assert_eq!(service.list(0, "").await.expect("a page").customers.len(), 1);
}

#[tokio::test]
async fn pages_hold_every_customer_once_oldest_first() {
    let service = Service::start().await;
    let mut created = Vec::new();
    for _ in 0..5 {
        created.push(service.create(alice("")).await.expect("created").customer_id);
    }
    let mut listed = Vec::new();
    let mut token = String::new();
    loop {
        let page = service.list(2, &token).await.expect("a page");
        listed.extend(page.customers.into_iter().map(|customer| customer.customer_id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(listed, created);
}

#[tokio::test]
async fn a_limit_is_set_only_where_it_may_be() {
    let service = Service::start().await;
    let customer = service.create(alice("")).await.expect("created");
    let id = customer.customer_id.as_str();
    service.order_created(id, Uuid::now_v7(), 1000).await;

    for (limit, etag, code, reason) in [
        (usd(9), "", Code::FailedPrecondition, "CREDIT_IN_USE"),
        (money("EUR", 20, 0), "", Code::FailedPrecondition, "CURRENCY_MISMATCH"),
        (usd(20), customer.etag.as_str(), Code::Aborted, "ETAG_MISMATCH"),
    ] {
        assert_eq!(seen(&service.update(id, limit, etag).await.expect_err(reason)), failed(code, reason));
    }
    let unknown = service.update(&Uuid::now_v7().to_string(), usd(1), "").await.expect_err("unknown");
    assert_eq!(seen(&unknown), failed(Code::NotFound, "UNKNOWN_CUSTOMER"));

    let updated = service.update(id, usd(10), "").await.expect("just enough");
    assert_eq!(updated.available_credit, Some(usd(0)));
    let again = service.update(id, usd(10), &updated.etag).await.expect("the same again");
    assert_eq!((again.etag, again.position_token), (updated.etag, updated.position_token));
}

#[tokio::test]
async fn every_malformed_request_is_told_what_is_wrong() {
    let service = Service::start().await;
    let named = |name: &str| CreateCustomerRequest { name: name.into(), ..alice("") };
    let limited = |limit| CreateCustomerRequest { credit_limit: Some(limit), ..alice("") };
    for (request, fields) in [
        (CreateCustomerRequest::default(), vec!["name", "credit_limit"]),
        (named(" "), vec!["name"]),
        (named(&"ä".repeat(201)), vec!["name"]),
        (named("a\0b"), vec!["name"]),
        (limited(usd(-1)), vec!["credit_limit.units"]),
        (limited(money("", 1, 0)), vec!["credit_limit.currency_code"]),
        (limited(money("XYZ", 1, 0)), vec!["credit_limit.currency_code"]),
        (limited(money("USD", 1, 1)), vec!["credit_limit.nanos"]),
        (alice("1"), vec!["request_id"]),
    ] {
        assert_eq!(seen(&service.create(request).await.expect_err("malformed")), invalid(&fields));
    }
    service.create(named(&"ä".repeat(200))).await.expect("200 characters");

    assert_eq!(seen(&service.get("").await.expect_err("empty")), invalid(&["customer_id"]));
    assert_eq!(seen(&service.get("x").await.expect_err("no id")), invalid(&["customer_id"]));
    let unknown = service.get(&Uuid::now_v7().to_string()).await.expect_err("unknown");
    assert_eq!(seen(&unknown), failed(Code::NotFound, "UNKNOWN_CUSTOMER"));

    assert_eq!(seen(&service.list(-1, "x").await.expect_err("both")), invalid(&["page_size", "page_token"]));
    let short_key = Page::token_after(LIST_FILTER, b"short");
    assert_eq!(seen(&service.list(1, &short_key).await.expect_err("forged")), invalid(&["page_token"]));
}

#[tokio::test]
async fn reserved_credit_never_passes_the_limit_in_the_database_itself() {
    let service = Service::start().await;
    let id = service.create(alice("")).await.expect("created").customer_id;
    let database = service.rpcs.store.database();
    let (customer, _) = store::get(database, id.parse().expect("an id")).await.expect("read").expect("found");
    let over = Customer { reserved: customer.limit.checked_add(customer.limit).expect("small"), ..customer };
    let mut tx = database.begin().await.expect("begun");
    let rows = [(crate::domain::Key::Customer(over.id), crate::domain::Row::Customer(over))];
    crate::Customers.save(tx.as_mut(), &rows).await.expect_err("the table's check");
}
