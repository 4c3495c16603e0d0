//! The rpcs for bindings.

use meshwork::{
    contract::meshwork::registry::v1::{
        Binding, DeleteBindingRequest, DeleteBindingResponse, ListBindingsRequest, ListBindingsResponse,
        SetBindingRequest, binding_service_server::BindingService,
    },
    identity::PeerIdentity,
    rpc::{Page, Violations},
};
use prost::Message as _;
use tonic::{Code, Request, Response, Status};

use crate::{
    Registry,
    backend::Bound,
    request,
    status::{DOMAIN, status},
    table::Record,
};

/// The filter of page tokens that belong to the list of bindings.
const BINDINGS: &str = "bindings";

#[tonic::async_trait]
impl BindingService for Registry {
    async fn list_bindings(
        &self,
        request: Request<ListBindingsRequest>,
    ) -> Result<Response<ListBindingsResponse>, Status> {
        let ListBindingsRequest { page_size, page_token } = request.into_inner();
        let mut violations = Violations::default();
        let page = request::page(BINDINGS, page_size, &page_token, &mut violations);
        violations.into_result(DOMAIN)?;
        let (size, after) = page.expect("no violation was noted");
        let mut bindings = self.backend().bindings(after.as_deref(), size + 1).await.map_err(status)?;
        let size = Page::fit(size, &bindings, Binding::encoded_len);
        let next_page_token =
            Page::cut(BINDINGS.as_bytes(), size, &mut bindings, |binding| binding.grpc_service.as_bytes());
        Ok(Response::new(ListBindingsResponse { bindings, next_page_token }))
    }

    async fn set_binding(&self, request: Request<SetBindingRequest>) -> Result<Response<Binding>, Status> {
        let caller = self.check_operator(request.extensions(), "set bindings")?;
        let binding = request::new_binding(request.into_inner())?;
        let binding = self.backend().set_binding(binding).await.map_err(status)?;
        if let Some(left_out) = self.lines().bound.pass() {
            let (grpc_service, service, by) = (&binding.grpc_service, &binding.service, caller.name());
            tracing::info!(grpc_service, service, by, "a gRPC service was bound{left_out}");
        }
        Ok(Response::new(binding))
    }

    async fn delete_binding(
        &self,
        request: Request<DeleteBindingRequest>,
    ) -> Result<Response<DeleteBindingResponse>, Status> {
        let caller = self.check_operator(request.extensions(), "delete bindings")?;
        let grpc_service = request::bound(request.into_inner())?;
        if !self.backend().delete_binding(&grpc_service).await.map_err(status)? {
            let message = format!("{grpc_service} is not bound: see ListBindings");
            return Err(DOMAIN.error(Code::NotFound, "NOT_BOUND", message));
        }
        if let Some(left_out) = self.lines().bound.pass() {
            tracing::info!(grpc_service, by = caller.name(), "a gRPC service was unbound{left_out}");
        }
        Ok(Response::new(DeleteBindingResponse {}))
    }
}

impl Registry {
    /// Binds what an instance announces, if it has registered under the identity of its service. If that fails, it is registered
    /// all the same, and the next registration tries again.
    pub(crate) async fn bind(&self, caller: &PeerIdentity, record: &Record) {
        let instance = record.instance();
        if !caller.is_service(&instance.service) {
            return;
        }
        let Bound { new, of_others } = match self.backend().bind(&instance.service, &instance.grpc_services).await {
            Ok(bound) => bound,
            Err(error) => {
                if let Some(left_out) = self.lines().not_bound.pass() {
                    let service = &instance.service;
                    tracing::error!(service, %error, "the gRPC services of an instance cannot be bound{left_out}");
                }
                return;
            }
        };
        for binding in new {
            if let Some(left_out) = self.lines().bound.pass() {
                let (grpc_service, service) = (&binding.grpc_service, &binding.service);
                tracing::info!(grpc_service, service, "a gRPC service was bound by its first registration{left_out}");
            }
        }
        for binding in of_others {
            let (grpc_service, owner, announced_by) = (&binding.grpc_service, &binding.service, &instance.service);
            if let Some(left_out) = self.lines().of_others.pass_once((grpc_service, announced_by)) {
                tracing::warn!(
                    grpc_service,
                    owner,
                    announced_by,
                    "an instance announces a gRPC service that is bound to another service, which gets the calls by that name{left_out}"
                );
            }
        }
    }
}
