//! The rpcs for policies, built like those for instances.

use meshwork::{
    contract::meshwork::registry::v1::{
        GetPolicyRequest, ListPoliciesRequest, ListPoliciesResponse, Policy, SetPolicyRequest,
        policy_service_server::PolicyService,
    },
    rpc::{Page, Violations},
};
use prost::Message as _;
use tonic::{Request, Response, Status};

use crate::{
    Registry, policies, request,
    status::{DOMAIN, status},
};

/// The filter of page tokens that belong to the list of policies.
const POLICIES: &str = "policies";

#[tonic::async_trait]
impl PolicyService for Registry {
    async fn set_policy(&self, request: Request<SetPolicyRequest>) -> Result<Response<Policy>, Status> {
        self.check_operator(request.extensions(), "set policies")?;
        let policy = request::new_policy(request.into_inner())?;
        let policy = self.backend().set_policy(policy).await.map_err(status)?;
        if let Some(left_out) = self.lines().policy_set.pass() {
            // One that says nothing is none: the defaults hold again.
            let what = if policies::says_nothing(&policy) { "policy cleared" } else { "policy set" };
            tracing::info!(service = policy.service, etag = policy.etag, "{what}{left_out}");
        }
        Ok(Response::new(policy))
    }

    async fn get_policy(&self, request: Request<GetPolicyRequest>) -> Result<Response<Policy>, Status> {
        let service = request::service(request.into_inner().service)?;
        let policy = self.backend().policy(&service).await.map_err(status)?;
        Ok(Response::new(policy.map_or_else(|| policies::none(&service), |policy| policy.message().clone())))
    }

    async fn list_policies(
        &self,
        request: Request<ListPoliciesRequest>,
    ) -> Result<Response<ListPoliciesResponse>, Status> {
        let ListPoliciesRequest { page_size, page_token } = request.into_inner();
        let mut violations = Violations::default();
        let page = request::page(POLICIES, page_size, &page_token, &mut violations);
        violations.into_result(DOMAIN)?;
        let (size, after) = page.expect("no violation was noted");
        let mut policies = self.backend().policies(after.as_deref(), size + 1).await.map_err(status)?;
        let size = Page::fit(size, &policies, |policy| policy.message().encoded_len());
        let next_page_token =
            Page::cut(POLICIES.as_bytes(), size, &mut policies, |policy| policy.message().service.as_bytes());
        let policies = policies.iter().map(|policy| policy.message().clone()).collect();
        Ok(Response::new(ListPoliciesResponse { policies, next_page_token }))
    }
}
