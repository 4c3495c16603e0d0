//! A promise that was broken.

use std::fmt;

use meshwork_cli::audit::Violation;

/// What kind of a promise was broken; each has a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Something acknowledged, or an event, is not there or not what it was.
    Lost,
    /// Something happened twice, or without having been asked for.
    Doubled,
    /// More was reserved or approved than the limit.
    OverLimit,
    /// An order has not come to an end.
    Stuck,
    /// A customer's credit is not what its orders leave of it.
    Credit,
    /// A view does not show what the write side has.
    View,
    /// A subscription does not move.
    Frozen,
    /// A registry does not list what runs, or lists what does not.
    Listing,
}

impl Kind {
    pub(crate) const ALL: [Self; 8] = [
        Self::Lost,
        Self::Doubled,
        Self::OverLimit,
        Self::Stuck,
        Self::Credit,
        Self::View,
        Self::Frozen,
        Self::Listing,
    ];

    /// The name of its figure.
    pub(crate) fn figure(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Doubled => "doubled",
            Self::OverLimit => "over_limit",
            Self::Stuck => "stuck",
            Self::Credit => "credit_differences",
            Self::View => "view_differences",
            Self::Frozen => "frozen",
            Self::Listing => "listing_differences",
        }
    }
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) kind: Kind,
    /// What exactly differs, with ids and states.
    pub(crate) what: String,
}

impl Finding {
    pub(super) fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.figure(), self.what)
    }
}

impl From<Violation> for Finding {
    fn from(violation: Violation) -> Self {
        let kind = match violation {
            Violation::Lost(_) | Violation::Changed { .. } | Violation::NotCancelled { .. } => Kind::Lost,
            Violation::Doubled(_) => Kind::Doubled,
            Violation::NotTerminal { .. } => Kind::Stuck,
            Violation::OverLimit { .. } => Kind::OverLimit,
            Violation::Credit { .. } => Kind::Credit,
        };
        Self::new(kind, violation.to_string())
    }
}
