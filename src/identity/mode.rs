//! Whether connections are encrypted, and their ends known to each other.

/// How a process takes and makes connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// In plain text, from and to anyone.
    #[default]
    Plain,
    /// For a migration: takes both on one port; calls in plain text come from `anonymous`. Its own connections are encrypted, but
    /// to instances that have registered without an identity.
    Permissive,
    /// Only encrypted, and between identities of its trust domain.
    Strict,
}

impl TlsMode {
    /// As flags and logs name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Permissive => "permissive",
            Self::Strict => "strict",
        }
    }
}
