//! The rpcs: check requests, pass them to the backend, and return its results and errors in the contract's form.

use std::{sync::Arc, time::SystemTime};

use futures_util::{
    Stream, StreamExt as _,
    stream::{self, BoxStream},
};
use meshwork::{
    authorization::{Audience, Callers, Denial, Knowledge, decide},
    contract::meshwork::registry::v1::{
        AuthorizationPolicy, DeregisterRequest, DeregisterResponse, KeepAliveRequest, Lease, LeaseState,
        ListInstancesRequest, ListInstancesResponse, ListServicesRequest, ListServicesResponse, RegisterRequest,
        Service, SetStatusRequest, WatchRequest, WatchResponse,
        authorization_service_server::SERVICE_NAME as AUTHORIZATION, registry_service_server::RegistryService,
    },
    identity::{PeerIdentity, SpiffeId, TlsMode},
    rpc::{Page, Violations, draining_status},
    service_name::check_service_name,
};
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use tonic::{Extensions, Request, Response, Status, Streaming};
use uuid::Uuid;

use crate::{
    access::{Access, NotAllowed, Reach},
    backend::{Backend, BackendError},
    lines::Lines,
    renewals::{Renewals, renewals},
    request,
    status::{DOMAIN, not_allowed, status},
    table::{Granted, LeaseId, NotAdmitted, Renewal, StoreConflict},
    wire,
};

/// The filter of [`Page`] tokens that belong to the list of services.
const SERVICES: &str = "services";

/// The responses of a watch, their instances encoded.
pub(crate) type WireUpdates = BoxStream<'static, Result<wire::WatchResponse, Status>>;

/// Whom `operator/*` stands for.
const SOME_OPERATOR: &str = "spiffe://some.domain/operator/some";

/// The rpc service; clones share the backend.
#[derive(Clone)]
pub struct Registry {
    backend: Arc<dyn Backend>,
    draining: CancellationToken,
    access: Access,
    lines: Arc<Lines>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("epoch", &self.backend.epoch()).finish_non_exhaustive()
    }
}

impl Registry {
    /// Serves `backend` to callers whose identities are as `mode` says; its streams end when `draining` is cancelled.
    pub fn new(backend: Arc<dyn Backend>, draining: CancellationToken, mode: TlsMode) -> Self {
        Self { backend, draining, access: Access(mode), lines: Arc::default() }
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    pub(crate) fn lines(&self) -> &Lines {
        &self.lines
    }

    pub(crate) fn wire_updates(&self, request: WatchRequest) -> Result<WireUpdates, Status> {
        let (interest, resume_from) = request::watch(request)?;
        let updates = self.backend.watch(interest, resume_from).map_err(status)?;
        let backend = self.backend.clone();
        let responses = updates.map(move |update| Ok(wire::WatchResponse::new(backend.epoch(), update)));
        Ok(until_drained(responses, self.draining.clone()))
    }

    /// The caller of a request, if it may change what holds for the whole mesh; `action` says what, as in "set policies".
    pub(crate) fn check_operator(&self, extensions: &Extensions, action: &'static str) -> Result<PeerIdentity, Status> {
        let caller = self.access.caller(extensions);
        self.access.operators(&caller, action).map_err(|refusal| self.refuse(&refusal))?;
        Ok(caller)
    }

    /// Whether a caller that sets these rules for the registry could still undo that; and operators, where callers have no identity yet:
    /// the rules stay when the mode changes.
    pub(crate) fn check_can_be_undone(
        &self,
        policy: &AuthorizationPolicy,
        caller: &PeerIdentity,
    ) -> Result<(), Status> {
        let mut violations = Violations::default();
        let knowledge =
            Knowledge::new(policy).or_else(|violations| violations.into_result(DOMAIN).map(|()| Knowledge::Unknown))?;
        let audience = Audience::mesh(Callers::default());
        let mode = self.access.0;
        let some_operator = PeerIdentity::verified(SOME_OPERATOR.parse().expect("an identity"));
        let later = (mode == TlsMode::Plain).then_some((TlsMode::Strict, &some_operator));
        let methods = ["GetAuthorizationPolicy", "SetAuthorizationPolicy", "DeleteAuthorizationPolicy"];
        let callers = [(mode, caller)].into_iter().chain(later);
        for ((mode, caller), method) in callers.flat_map(|caller| methods.map(|method| (caller, method))) {
            let path = format!("/{AUTHORIZATION}/{method}");
            if let Err(denial) = decide(mode, &knowledge, &audience, caller, &path) {
                let field = match denial {
                    Denial::DenyRule(index) => format!("policy.deny[{index}]"),
                    Denial::NoAllowRule | Denial::Default | Denial::RulesUnknown => "policy".to_owned(),
                };
                violations
                    .add(&field, format!("lets {} not call {method} any more: nobody could undo it", caller.name()));
                break;
            }
        }
        violations.into_result(DOMAIN)
    }

    /// Whether a caller may renew, change and end a lease. What is no lease at all may be asked about.
    pub(crate) async fn check_lease(
        &self,
        caller: &PeerIdentity,
        lease: &LeaseId,
    ) -> Result<Result<(), NotAllowed>, BackendError> {
        let Some((service, _)) = lease.instance() else { return Ok(Ok(())) };
        Ok(match self.access.instances(caller, service) {
            // A lease keeps its holder, so that nothing changes between this look and the next step.
            Ok(Reach::Anonymous) => match self.backend.held_under_identity(lease).await? {
                Some(held) => Err(held.into()),
                None => Ok(()),
            },
            Ok(Reach::All) => Ok(()),
            Err(refusal) => Err(refusal),
        })
    }

    async fn renew(&self, caller: &PeerIdentity, lease: &LeaseId) -> Result<LeaseState, Status> {
        if let Err(not_allowed) = self.check_lease(caller, lease).await.map_err(status)? {
            self.log_refusal(&not_allowed);
            return Ok(LeaseState::Unknown);
        }
        Ok(match self.backend.renew(lease).await.map_err(status)? {
            Renewal::Renewed => LeaseState::Renewed,
            Renewal::Unknown => LeaseState::Unknown,
            Renewal::Fenced => LeaseState::Fenced,
        })
    }

    /// Logs that a caller is refused.
    pub(crate) fn log_refusal(&self, refusal: &NotAllowed) {
        if let Some(left_out) = self.lines.not_allowed.pass() {
            tracing::warn!("a call was refused: {refusal}{left_out}");
        }
    }

    fn refuse(&self, refusal: &NotAllowed) -> Status {
        self.log_refusal(refusal);
        not_allowed(refusal)
    }

    fn lease(&self, granted: Granted) -> Lease {
        let ttl = prost_types::Duration::try_from(granted.lease_ttl).expect("a lease lasts minutes, not ages");
        Lease {
            lease_id: granted.lease_id.into_string(),
            lease_ttl: Some(ttl),
            epoch: self.backend.epoch().to_owned(),
            revision: granted.revision,
            instance: Some(granted.record.instance().clone()),
        }
    }
}

#[tonic::async_trait]
impl RegistryService for Registry {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<Lease>, Status> {
        let caller = self.access.caller(request.extensions());
        let mut registration = request::registration(request.into_inner(), Uuid::new_v4())?;
        let instance = &mut registration.instance;
        self.access.instances(&caller, &instance.service).map_err(|refusal| self.refuse(&refusal))?;
        instance.create_time = Some(SystemTime::now().into());
        instance.identity = caller.spiffe_id().map(SpiffeId::to_string).unwrap_or_default();
        let named = (instance.service.clone(), instance.instance_id.clone());
        let granted = self.backend.register(registration).await.map_err(|error| {
            if let BackendError::NotAdmitted(NotAdmitted::Held(held)) = error {
                return self.refuse(&held.into());
            }
            if let BackendError::NotAdmitted(NotAdmitted::OtherStore(StoreConflict { again: false, .. })) = error
                && let Some(left_out) = self.lines.refused.pass()
            {
                let (service, instance_id) = named;
                tracing::warn!(service, instance_id, %error, "an instance was refused{left_out}");
            }
            status(error)
        })?;
        if let Some(left_out) = self.lines.registered.pass() {
            tracing::info!(lease = %granted.lease_id, revision = granted.revision, "registered{left_out}");
        }
        self.bind(&caller, &granted.record).await;
        Ok(Response::new(self.lease(granted)))
    }

    type KeepAliveStream = Renewals;

    async fn keep_alive(
        &self,
        request: Request<Streaming<KeepAliveRequest>>,
    ) -> Result<Response<Self::KeepAliveStream>, Status> {
        let caller = self.access.caller(request.extensions());
        let registry = self.clone();
        let responses = renewals(request.into_inner(), move |lease| {
            let (registry, caller) = (registry.clone(), caller.clone());
            async move { registry.renew(&caller, &lease).await }
        });
        Ok(Response::new(until_drained(responses, self.draining.clone())))
    }

    async fn deregister(&self, request: Request<DeregisterRequest>) -> Result<Response<DeregisterResponse>, Status> {
        let caller = self.access.caller(request.extensions());
        let mut violations = Violations::default();
        let lease = request::lease_id(request.into_inner().lease_id, &mut violations);
        violations.into_result(DOMAIN)?;
        self.check_lease(&caller, &lease).await.map_err(status)?.map_err(|refusal| self.refuse(&refusal))?;
        // Otherwise the id is any text of a client, and nothing has happened.
        if self.backend.deregister(&lease).await.map_err(status)?
            && let Some(left_out) = self.lines.deregistered.pass()
        {
            tracing::info!(%lease, "deregistered{left_out}");
        }
        Ok(Response::new(DeregisterResponse {}))
    }

    async fn set_status(&self, request: Request<SetStatusRequest>) -> Result<Response<Lease>, Status> {
        let caller = self.access.caller(request.extensions());
        let request = request.into_inner();
        let mut violations = Violations::default();
        let lease = request::lease_id(request.lease_id, &mut violations);
        let new_status = request::status(request.status, &mut violations);
        violations.into_result(DOMAIN)?;
        let new_status = new_status.expect("no violation was noted");
        self.check_lease(&caller, &lease).await.map_err(status)?.map_err(|refusal| self.refuse(&refusal))?;
        let granted = self.backend.set_status(&lease, new_status).await.map_err(status)?;
        if let Some(left_out) = self.lines.status_set.pass() {
            let (status, revision) = (new_status.as_str_name(), granted.revision);
            tracing::info!(%lease, status, revision, "status set{left_out}");
        }
        Ok(Response::new(self.lease(granted)))
    }

    async fn list_services(
        &self,
        request: Request<ListServicesRequest>,
    ) -> Result<Response<ListServicesResponse>, Status> {
        let request = request.into_inner();
        let mut violations = Violations::default();
        let page = request::page(SERVICES, request.page_size, &request.page_token, &mut violations);
        violations.into_result(DOMAIN)?;
        let (size, after) = page.expect("no violation was noted");
        let mut services = self.backend.services(after.as_deref(), size + 1).await.map_err(status)?;
        let next_page_token = Page::cut(SERVICES.as_bytes(), size, &mut services, |(name, _)| name.as_bytes());
        let services = services.into_iter().map(|(name, count)| Service {
            name: name.to_string(),
            instance_count: u32::try_from(count).expect("the number of instances is bounded"),
        });
        Ok(Response::new(ListServicesResponse { services: services.collect(), next_page_token }))
    }

    async fn list_instances(
        &self,
        request: Request<ListInstancesRequest>,
    ) -> Result<Response<ListInstancesResponse>, Status> {
        let ListInstancesRequest { service, page_size, page_token } = request.into_inner();
        let mut violations = Violations::default();
        violations.check("service", check_service_name(&service));
        let page = request::page(&service, page_size, &page_token, &mut violations);
        violations.into_result(DOMAIN)?;
        let (size, after) = page.expect("no violation was noted");
        let mut records = self.backend.instances(&service, after.as_deref(), size + 1).await.map_err(status)?;
        let size = Page::fit(size, &records, |record| record.instance().encoded_len());
        let next_page_token =
            Page::cut(service.as_bytes(), size, &mut records, |record| record.instance().instance_id.as_bytes());
        let instances = records.iter().map(|record| record.instance().clone()).collect();
        Ok(Response::new(ListInstancesResponse { instances, next_page_token }))
    }

    type WatchStream = BoxStream<'static, Result<WatchResponse, Status>>;

    /// The contract's types, for callers in this process; the network gets what [`RegistryServer`](crate::RegistryServer)
    /// encodes from the same stream.
    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let updates = self.wire_updates(request.into_inner())?;
        let responses = updates.map(|response| {
            let bytes = response?.encode_to_vec();
            Ok(WatchResponse::decode(bytes.as_slice()).expect("it mirrors the contract"))
        });
        Ok(Response::new(responses.boxed()))
    }
}

/// Passes items on until the server drains; then ends with a status that sends the client elsewhere.
fn until_drained<T: Send + 'static>(
    items: impl Stream<Item = Result<T, Status>> + Send + 'static,
    draining: CancellationToken,
) -> BoxStream<'static, Result<T, Status>> {
    stream::unfold(Some((items.boxed(), draining)), |state| async {
        let (mut items, draining) = state?;
        // An item that is not taken stays in its stream.
        tokio::select! {
            biased;
            () = draining.cancelled() => Some((Err(draining_status()), None)),
            item = items.next() => Some((item?, Some((items, draining)))),
        }
    })
    .boxed()
}
