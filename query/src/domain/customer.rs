//! A customer's row, folded from the events of `customer`.

use meshwork_shop::Amount;
use uuid::Uuid;

/// A customer as far as its events are known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CustomerRow {
    /// From `CustomerCreated`. `None`: not seen yet, and no read shows the customer.
    pub created: Option<CustomerCreated>,
    /// The credit limit. `None`: no event with it was seen yet.
    pub limit: Option<Amount>,
    /// The position that set `limit`. 0: none.
    pub limit_position: u64,
    /// What is left of the limit. `None`: as for `limit`.
    pub available: Option<Amount>,
    /// The position that set `available`. 0: none.
    pub position: u64,
}

/// What is settled when a customer is created.
#[derive(Clone, Debug, PartialEq)]
pub struct CustomerCreated {
    /// The name.
    pub name: String,
    /// When, in milliseconds since the Unix epoch.
    pub create_time_ms: i64,
}

/// An event of the customer service.
#[derive(Clone, Debug, PartialEq)]
pub struct CustomerEvent {
    /// The customer.
    pub customer_id: Uuid,
    /// Its position in the customer's partition, from 1.
    pub position: u64,
    /// What happened.
    pub change: CustomerChange,
}

/// What happened to a customer.
#[derive(Clone, Debug, PartialEq)]
pub enum CustomerChange {
    /// It came to be, with all of this limit left.
    Created(CustomerCreated, Amount),
    /// The limit was set.
    LimitUpdated {
        /// The new limit.
        limit: Amount,
        /// What is left of it.
        available: Amount,
    },
    /// Credit was reserved or released.
    AvailableChanged {
        /// What is left.
        available: Amount,
    },
}

impl CustomerRow {
    /// The row after an event; `None` if it changes nothing.
    pub(super) fn fold(&self, event: &CustomerEvent) -> Option<Self> {
        let (created, limit, available) = match &event.change {
            CustomerChange::Created(created, limit) => (Some(created), Some(*limit), *limit),
            CustomerChange::LimitUpdated { limit, available } => (None, Some(*limit), *available),
            CustomerChange::AvailableChanged { available } => (None, None, *available),
        };
        let created = created.filter(|_| self.created.is_none());
        let limit = limit.filter(|_| event.position > self.limit_position);
        let available = Some(available).filter(|_| event.position > self.position);
        if created.is_none() && limit.is_none() && available.is_none() {
            return None;
        }
        Some(Self {
            created: created.or(self.created.as_ref()).cloned(),
            limit: limit.or(self.limit),
            limit_position: if limit.is_some() { event.position } else { self.limit_position },
            available: available.or(self.available),
            position: self.position.max(event.position),
        })
    }
}
