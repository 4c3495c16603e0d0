//! Who a process is, and who it talks to: mutual TLS with SPIFFE identities (X509-SVID).

pub mod spiffe_id;

pub use spiffe_id::{ANONYMOUS, InvalidSpiffeId, PeerIdentity, REGISTRY, SpiffeId, check_trust_domain};
