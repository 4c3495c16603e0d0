//! The rpcs for authorization policies, built like those for policies.

use meshwork::{
    contract::meshwork::registry::v1::{
        AuthorizationPolicy, DeleteAuthorizationPolicyRequest, GetAuthorizationPolicyRequest,
        ListAuthorizationPoliciesRequest, ListAuthorizationPoliciesResponse, SetAuthorizationPolicyRequest,
        authorization_service_server::AuthorizationService,
    },
    identity::REGISTRY,
    rpc::{Page, Violations},
};
use prost::Message as _;
use tonic::{Request, Response, Status};

use crate::{
    Registry,
    backend::BackendError,
    policies::{Served, no_rules},
    request,
    status::{DOMAIN, status},
    table::Record,
};

/// The filter of page tokens that belong to the list of authorization policies.
const AUTHORIZATIONS: &str = "authorizations";

#[tonic::async_trait]
impl AuthorizationService for Registry {
    async fn set_authorization_policy(
        &self,
        request: Request<SetAuthorizationPolicyRequest>,
    ) -> Result<Response<AuthorizationPolicy>, Status> {
        let caller = self.check_operator(request.extensions(), "set authorization policies")?;
        let policy = request::new_authorization(request.into_inner())?;
        self.check_is_served(&policy).await?;
        if policy.service == REGISTRY {
            self.check_can_be_undone(&policy, &caller)?;
        }
        let policy = self.backend().put_authorization(policy).await.map_err(status)?;
        if let Some(left_out) = self.lines().authorization_set.pass() {
            let (service, etag, by) = (&policy.service, &policy.etag, caller.name());
            tracing::info!(service, etag, by, "authorization policy set{left_out}");
        }
        Ok(Response::new(policy))
    }

    async fn delete_authorization_policy(
        &self,
        request: Request<DeleteAuthorizationPolicyRequest>,
    ) -> Result<Response<AuthorizationPolicy>, Status> {
        let caller = self.check_operator(request.extensions(), "delete authorization policies")?;
        let deletion = request::authorization_deletion(request.into_inner())?;
        let policy = self.backend().put_authorization(deletion).await.map_err(status)?;
        if let Some(left_out) = self.lines().authorization_set.pass() {
            tracing::warn!(service = policy.service, by = caller.name(), "authorization policy deleted{left_out}");
        }
        Ok(Response::new(policy))
    }

    async fn get_authorization_policy(
        &self,
        request: Request<GetAuthorizationPolicyRequest>,
    ) -> Result<Response<AuthorizationPolicy>, Status> {
        let service = request::service(request.into_inner().service)?;
        let policy = self.backend().authorization(&service).await.map_err(status)?;
        Ok(Response::new(policy.map_or_else(|| no_rules(&service), |policy| policy.message().clone())))
    }

    async fn list_authorization_policies(
        &self,
        request: Request<ListAuthorizationPoliciesRequest>,
    ) -> Result<Response<ListAuthorizationPoliciesResponse>, Status> {
        let ListAuthorizationPoliciesRequest { page_size, page_token } = request.into_inner();
        let mut violations = Violations::default();
        let page = request::page(AUTHORIZATIONS, page_size, &page_token, &mut violations);
        violations.into_result(DOMAIN)?;
        let (size, after) = page.expect("no violation was noted");
        let mut policies = self.backend().authorizations(after.as_deref(), size + 1).await.map_err(status)?;
        let size = Page::fit(size, &policies, |policy| policy.message().encoded_len());
        let next_page_token =
            Page::cut(AUTHORIZATIONS.as_bytes(), size, &mut policies, |policy| policy.message().service.as_bytes());
        let policies = policies.iter().map(|policy| policy.message().clone()).collect();
        Ok(Response::new(ListAuthorizationPoliciesResponse { policies, next_page_token }))
    }
}

impl Registry {
    /// Checks that instances of the service serve what its rules name, as far as they have told.
    async fn check_is_served(&self, policy: &AuthorizationPolicy) -> Result<(), Status> {
        if policy.service == REGISTRY {
            return Served::by_the_registry().check(policy).or_else(|violations| violations.into_result(DOMAIN));
        }
        let instances = match self.backend().instances(&policy.service, None, usize::MAX).await {
            Err(BackendError::UnknownService) => Vec::new(),
            instances => instances.map_err(status)?,
        };
        let announced = instances.iter().map(Record::instance).flat_map(|instance| &instance.grpc_services);
        let methods = self.backend().methods(&policy.service).await.map_err(status)?;
        let served = Served::new(announced, methods.iter().flat_map(|list| &**list));
        served.check(policy).or_else(|violations| violations.into_result(DOMAIN))
    }
}
