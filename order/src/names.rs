//! The service's names.

use meshwork::rpc::Domain;

/// The service's name in the mesh.
pub const SERVICE: &str = "order";

/// The domain of this service's errors.
pub(crate) const DOMAIN: Domain = Domain::new("order.shop");
