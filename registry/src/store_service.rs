//! The rpcs that settle which store a service serves.

use meshwork::contract::meshwork::registry::v1::{
    AdoptStoreRequest, AdoptStoreResponse, InstanceRef, ListRefusedInstancesRequest, ListRefusedInstancesResponse,
    store_service_server::StoreService,
};
use tonic::{Request, Response, Status};

use crate::{Registry, request, status::status, table::InstanceKey};

#[tonic::async_trait]
impl StoreService for Registry {
    async fn adopt_store(&self, request: Request<AdoptStoreRequest>) -> Result<Response<AdoptStoreResponse>, Status> {
        self.check_operator(request.extensions(), "adopt stores")?;
        let (service, store_id) = request::adoption(request.into_inner())?;
        let (kept, removed) = self.backend().adopt(&service, &store_id).await.map_err(status)?;
        if let Some(left_out) = self.lines().adopted.pass() {
            tracing::info!(
                service,
                store_id,
                kept = kept.len(),
                removed = removed.len(),
                "a store was adopted{left_out}"
            );
        }
        let refs = |keys: Vec<InstanceKey>| keys.into_iter().map(reference).collect();
        Ok(Response::new(AdoptStoreResponse { kept: refs(kept), removed: refs(removed) }))
    }

    async fn list_refused_instances(
        &self,
        request: Request<ListRefusedInstancesRequest>,
    ) -> Result<Response<ListRefusedInstancesResponse>, Status> {
        let service = request::service(request.into_inner().service)?;
        let instances = self.backend().refused(&service).await.map_err(status)?;
        Ok(Response::new(ListRefusedInstancesResponse { instances }))
    }
}

fn reference((service, instance_id): InstanceKey) -> InstanceRef {
    InstanceRef { service: service.to_string(), instance_id: instance_id.to_string() }
}
