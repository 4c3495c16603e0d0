//! The plan of the story: who may spend how much, and who orders what. Pure; randomness is passed in.

use rand::{Rng, RngExt as _};

/// One order in this many asks for more than its customer may spend at all.
const TOO_LARGE_EVERY: usize = 10;
/// One order in this many is cancelled.
const CANCELLED_EVERY: usize = 10;
/// What an order costs that is not too large: 1.00 to 99.99.
const CENTS: std::ops::Range<i64> = 100..10_000;
/// How much of its orders a customer can pay for, in percent: the last ones compete for what is left.
const AFFORDABLE: i64 = 70;

/// The whole story.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// The credit limit of each customer, in cents.
    pub(super) limits: Vec<i64>,
    /// The orders, in the order in which they are placed.
    pub(super) orders: Vec<PlannedOrder>,
}

/// An order that is going to be placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PlannedOrder {
    /// Whose it is: an index into [`Plan::limits`].
    pub(super) customer: usize,
    /// What it costs, in cents.
    pub(super) cents: i64,
    /// Whether it is cancelled as soon as it is placed.
    pub(super) cancel: bool,
}

impl Plan {
    /// A story of this many orders and customers, at least one of each.
    pub(super) fn new(orders: u32, customers: u32, rng: &mut impl Rng) -> Self {
        let customers = customers as usize;
        let mut orders: Vec<_> = (0..orders as usize)
            .map(|index| PlannedOrder {
                customer: index % customers,
                cents: rng.random_range(CENTS),
                cancel: (index / customers) % CANCELLED_EVERY == CANCELLED_EVERY - 1,
            })
            .collect();
        let mut limits = vec![0; customers];
        for order in &orders {
            limits[order.customer] += order.cents;
        }
        for limit in &mut limits {
            *limit = (*limit * AFFORDABLE / 100).max(CENTS.start);
        }
        for (index, order) in orders.iter_mut().enumerate() {
            if (index / customers) % TOO_LARGE_EVERY == TOO_LARGE_EVERY / 2 {
                order.cents += limits[order.customer];
            }
        }
        Self { limits, orders }
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    #[test]
    fn every_story_has_orders_of_each_kind() {
        let plan = Plan::new(1000, 10, &mut StdRng::seed_from_u64(1));
        let too_large = |order: &&PlannedOrder| order.cents > plan.limits[order.customer];
        assert_eq!(plan.orders.iter().filter(too_large).count(), 100);
        assert_eq!(plan.orders.iter().filter(|order| order.cancel).count(), 100);
        for customer in 0..10 {
            let wanted: i64 =
                plan.orders.iter().filter(|o| o.customer == customer && !too_large(o)).map(|o| o.cents).sum();
            assert!(plan.limits[customer] > 0 && wanted > 0);
        }
    }

    #[test]
    fn the_smallest_story_can_be_told() {
        let plan = Plan::new(1, 3, &mut StdRng::seed_from_u64(1));
        assert_eq!((plan.orders.len(), plan.limits.len()), (1, 3));
        assert!(plan.limits.iter().all(|limit| *limit > 0));
    }
}
