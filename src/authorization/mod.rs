//! Who may call the methods of a service: pure rules, from operators and from the service's own code.
//!
//! ```text
//!   AuthorizationPolicy ── check ──> Rules ──┐
//!   what is Knowledge of them, the mode ─────┼─ decide ──> the call may begin, or a Denial
//!   the Audience of the gRPC service ────────┘
//! ```
//!
//! The policy comes from the registry with the endpoints ([`EndpointSet::authorization`](crate::discovery::EndpointSet)), and
//! every instance of the service enforces it: see [`Config::authorization`](crate::server::Config::authorization). What a field
//! means is said in the contract (`meshwork.registry.v1.AuthorizationPolicy`).
//!
//! No rule evaporates: only a policy that says that the rules were deleted removes them. A registry that says nothing about
//! them, as one that has lost its store, changes nothing.

mod callers;
mod check;
mod decision;
mod knowledge;
pub mod limits;
mod method;
mod rules;

pub use callers::Callers;
pub use check::check;
pub use decision::{Audience, Denial, decide, keeps_subject};
pub use knowledge::Knowledge;
pub use method::OPEN_TO_EVERYONE;
pub(crate) use method::of_path;
pub use rules::{Decision, Rules};
