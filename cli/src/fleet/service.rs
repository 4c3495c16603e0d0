//! The services of the shop.

/// A service of the shop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// Customers and their credit.
    Customer,
    /// Orders.
    Order,
    /// The read side.
    Query,
}

impl Service {
    /// All of them, in the order in which they are started.
    pub const ALL: [Self; 3] = [Self::Customer, Self::Order, Self::Query];

    /// Its name in the mesh.
    pub fn name(self) -> &'static str {
        match self {
            Self::Customer => meshwork_customer::SERVICE,
            Self::Order => meshwork_order::SERVICE,
            Self::Query => meshwork_query::SERVICE,
        }
    }
}
