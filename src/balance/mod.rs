//! Which endpoint a call goes to.
//!
//! ```text
//!   a call ─> picker ── plan: version ─> zone ─> tier: less loaded of two ─> gate ─> its connection
//!               │         ^                        ^                          │
//!               │         └──── health <───────────┴─ load <──── account <────┘ what its calls tell
//!               └─ the queue of those who find nobody ready, served by the driver
//! ```
//!
//! Power of two choices (P2C) over our own load, as tower's `Balance` has it; but not that one: a set that is split into
//! versions and zones, and endpoints that are passed over for a while and in a panic are not, would be many of them, each
//! with a view of readiness of its own. The rules are pure (`health`, `load`, `plan`, `tier`), and `picker` is the one place
//! that acts. Nothing is remembered from one pick to the next that a removal could make stale (tower #856).

mod gate;
mod picker;
mod plan;
mod subset;
mod tier;

#[cfg(test)]
mod tests;

pub(crate) use crate::endpoint::{Outcome, PendingCall, Statement, outlier_detection::Health};
pub(crate) use gate::{Gate, Link, Pick};
pub(crate) use picker::{Key, NoPick, Picked, Picker};
pub(crate) use plan::Traits;
pub(crate) use subset::{DEFAULT_SUBSET, subset};
