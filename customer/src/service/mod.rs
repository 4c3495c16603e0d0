//! The rpcs: a checked request becomes an input or a read, and what comes back becomes the contract's message.

use meshwork::rpc::{InvalidToken, Page, Violations};
use meshwork_events::{outbox::LogPoint, store_status, write_status, writer::Applied};
use meshwork_shop::{
    RequestKey, check_id, check_money, check_request_id,
    contract::shop::customer::v1::{
        CreateCustomerRequest, Customer as CustomerMessage, GetCustomerRequest, ListCustomersRequest,
        ListCustomersResponse, UpdateCreditLimitRequest, customer_service_server::CustomerService,
    },
    now_ms, timestamp,
};
use tonic::{Code, Request, Response, Status};
use uuid::Uuid;

use crate::{
    SERVICE, Store,
    domain::{Customer, Input, Refusal, Reply},
    names::DOMAIN,
    store,
};

/// Longest name, in characters.
const MAX_NAME_CHARS: usize = 200;
/// The filter of ListCustomers' page tokens: there is none.
const LIST_FILTER: &[u8] = b"customers";

/// The rpcs of one instance.
pub(crate) struct Rpcs {
    store: Store,
}

impl Rpcs {
    pub(crate) fn new(store: Store) -> Self {
        Self { store }
    }

    async fn write(&self, input: Input) -> Result<Response<CustomerMessage>, Status> {
        let applied = self.store.writer().submit(input).await;
        match applied.map_err(|error| write_status(DOMAIN, error, refused))? {
            Applied { reply: Reply::Customer(customer), point: Some(point) } => {
                Ok(Response::new(self.message(*customer, point)))
            }
            // Nothing happened, so what there is tells where.
            Applied { reply: Reply::Customer(customer), point: None } => self.read(customer.id).await,
            Applied { reply: Reply::Existing(id), .. } => self.read(id).await,
            Applied { reply: Reply::Settled, .. } => unreachable!("only consumed events are settled without an answer"),
        }
    }

    async fn read(&self, id: Uuid) -> Result<Response<CustomerMessage>, Status> {
        let found = store::get(self.store.database(), id).await.map_err(|error| store_status(DOMAIN, &error))?;
        let (customer, point) = found.ok_or_else(|| refused(&Refusal::UnknownCustomer(id)))?;
        Ok(Response::new(self.message(customer, point)))
    }

    fn message(&self, customer: Customer, point: LogPoint) -> CustomerMessage {
        CustomerMessage {
            customer_id: customer.id.to_string(),
            credit_limit: Some(customer.limit.into()),
            available_credit: Some(customer.available().into()),
            position_token: self.store.outbox().token(SERVICE, point),
            create_time: Some(timestamp(customer.create_time_ms)),
            update_time: Some(timestamp(customer.update_time_ms)),
            etag: customer.etag(),
            name: customer.name,
        }
    }
}

#[tonic::async_trait]
impl CustomerService for Rpcs {
    async fn create_customer(
        &self,
        request: Request<CreateCustomerRequest>,
    ) -> Result<Response<CustomerMessage>, Status> {
        self.write(create_input(request.into_inner())?).await
    }

    async fn get_customer(&self, request: Request<GetCustomerRequest>) -> Result<Response<CustomerMessage>, Status> {
        let mut violations = Violations::default();
        let id = check_id(&mut violations, "customer_id", &request.into_inner().customer_id);
        violations.into_result(DOMAIN)?;
        self.read(id.expect("no violations")).await
    }

    async fn list_customers(
        &self,
        request: Request<ListCustomersRequest>,
    ) -> Result<Response<ListCustomersResponse>, Status> {
        let (size, after) = page(&request.into_inner())?;
        // One more than asked for tells whether there is a next page.
        let found = store::list(self.store.database(), after, size + 1).await;
        let mut found = found.map_err(|error| store_status(DOMAIN, &error))?;
        let next_page_token = Page::cut(LIST_FILTER, size, &mut found, |(customer, _)| customer.id.as_bytes());
        let customers = found.into_iter().map(|(customer, point)| self.message(customer, point)).collect();
        Ok(Response::new(ListCustomersResponse { customers, next_page_token }))
    }

    async fn update_credit_limit(
        &self,
        request: Request<UpdateCreditLimitRequest>,
    ) -> Result<Response<CustomerMessage>, Status> {
        self.write(update_input(request.into_inner())?).await
    }
}

fn create_input(request: CreateCustomerRequest) -> Result<Input, Status> {
    let mut violations = Violations::default();
    check_name(&mut violations, &request.name);
    let limit = check_money(&mut violations, "credit_limit", request.credit_limit.as_ref());
    let request_id = check_request_id(&mut violations, &request.request_id);
    violations.into_result(DOMAIN)?;
    let (limit, request_id) = (limit.expect("no violations"), request_id.expect("no violations"));
    let canonical = CreateCustomerRequest { credit_limit: Some(limit.into()), request_id: String::new(), ..request };
    let request = request_id.map(|id| RequestKey::new(id, &canonical));
    Ok(Input::CreateCustomer { id: meshwork::id::new_id(), name: canonical.name, limit, request, now_ms: now_ms() })
}

fn update_input(request: UpdateCreditLimitRequest) -> Result<Input, Status> {
    let mut violations = Violations::default();
    let id = check_id(&mut violations, "customer_id", &request.customer_id);
    let limit = check_money(&mut violations, "credit_limit", request.credit_limit.as_ref());
    violations.into_result(DOMAIN)?;
    let (id, limit) = (id.expect("no violations"), limit.expect("no violations"));
    Ok(Input::UpdateCreditLimit { id, limit, etag: request.etag, now_ms: now_ms() })
}

fn check_name(violations: &mut Violations, name: &str) {
    if name.trim().is_empty() || name.chars().count() > MAX_NAME_CHARS {
        violations.add("name", format!("must have 1-{MAX_NAME_CHARS} characters, not only spaces"));
    }
    // PostgreSQL cannot store NUL, and the others break terminals.
    if name.chars().any(char::is_control) {
        violations.add("name", "must not contain control characters");
    }
}

/// The page's size, and the customer after which it begins.
fn page(request: &ListCustomersRequest) -> Result<(usize, Option<Uuid>), Status> {
    let mut violations = Violations::default();
    let page = Page::parse(LIST_FILTER, request.page_size, &request.page_token, &mut violations);
    let after = page.as_ref().and_then(|page| page.after.as_deref()).map(Uuid::from_slice).transpose();
    let after = violations.check("page_token", after.map_err(|_| InvalidToken));
    violations.into_result(DOMAIN)?;
    Ok((page.expect("no violations").size, after.expect("no violations")))
}

/// The one mapping from this service's refusals to what callers see.
fn refused(refusal: &Refusal) -> Status {
    let message = refusal.to_string();
    match refusal {
        Refusal::UnknownCustomer(_) => DOMAIN.error(Code::NotFound, "UNKNOWN_CUSTOMER", message),
        Refusal::RequestIdReused(_) => DOMAIN.invalid_field("REQUEST_ID_REUSED", "request_id", &message),
        Refusal::CreditInUse => DOMAIN.error(Code::FailedPrecondition, "CREDIT_IN_USE", message),
        Refusal::CurrencyMismatch(_) => DOMAIN.error(Code::FailedPrecondition, "CURRENCY_MISMATCH", message),
        Refusal::EtagMismatch(_) => DOMAIN.error(Code::Aborted, "ETAG_MISMATCH", message),
        Refusal::Inconsistent(_) => DOMAIN.error(Code::Internal, "INTERNAL", "internal error"),
    }
}

#[cfg(test)]
mod tests;
