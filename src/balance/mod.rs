//! Which endpoint a call goes to.
//!
//! ```text
//!   endpoints ──plan: pure──> pools: (version, own zone | other zones) -> the endpoints that may be picked
//!       the driver applies what changed ──tower::discover::Change──> one tower::balance::p2c::Balance per pool
//!   a call: turn -> pools in order of preference (split, locality share) ── draw, until one is accepted ──> endpoint
//! ```
//!
//! tower's `Balance` draws the endpoint of every call: power of two choices (P2C) over our own load. Membership of a pool
//! says what may be picked: an endpoint that is not connected, or is ejected, or is on probation with its probe under way, is
//! in none. `plan` and `endpoint` hold the rules, which are pure; `pool` is the one place that knows tower; `picker` acts.

mod picker;
mod plan;
mod pool;
mod pools;
mod subset;

#[cfg(test)]
mod tests;

pub(crate) use picker::{NoPick, Picked, Picker};
pub(crate) use subset::{DEFAULT_SUBSET, subset};
