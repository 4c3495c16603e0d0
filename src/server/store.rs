//! Which store a server serves.

/// The store that a server serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedStore {
    /// Its id.
    pub store_id: String,
    /// Where it is, which distinguishes it from a copy: another text for each database. Empty: not said.
    pub place: String,
    /// Whose it is.
    pub scope: StoreScope,
}

/// Whose a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreScope {
    /// Of the whole service: all instances serve the same, and others read its log.
    Service,
    /// Of one instance, as a private view.
    Instance,
}
