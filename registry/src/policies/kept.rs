//! What the registry keeps beside its leases, and the words for it.

use std::time::SystemTime;

use meshwork::rpc::Violations;
use prost::{Message, Name};

use crate::limits::{MAX_AUTHORIZATIONS, MAX_BINDINGS, MAX_POLICIES};

/// A kind of what is kept, each in a file of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// How clients treat the instances of a service.
    Policy,
    /// Who may call the methods of a service.
    Authorization,
    /// Which service a gRPC service belongs to.
    Binding,
}

impl Kind {
    /// What one is called.
    pub const fn one(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Authorization => "authorization policy",
            Self::Binding => "binding",
        }
    }

    /// What several are called.
    pub const fn many(self) -> &'static str {
        match self {
            Self::Policy => "policies",
            Self::Authorization => "authorization policies",
            Self::Binding => "bindings",
        }
    }

    /// How many there may be.
    pub const fn limit(self) -> usize {
        match self {
            Self::Policy => MAX_POLICIES,
            Self::Authorization => MAX_AUTHORIZATIONS,
            Self::Binding => MAX_BINDINGS,
        }
    }

    /// What whoever has read it before it changed should do.
    pub(super) const fn read_again(self) -> &'static str {
        match self {
            Self::Policy => "run \"meshwork policy get SERVICE --json\" again",
            Self::Authorization => "run \"meshwork authz get SERVICE\" again",
            Self::Binding => "list the bindings again",
        }
    }

    /// What to do with a file that has something else in it.
    pub(super) const fn repair(self) -> &'static str {
        match self {
            Self::Policy => "restore it, or remove it to go back to the defaults",
            Self::Authorization => "restore it; without it, the registry knows no rules until they are set again",
            Self::Binding => "restore it, or remove it to bind them anew",
        }
    }
}

/// A message that is kept, by a name that is unique within its kind.
pub(crate) trait Kept: Message + Name + Clone + Default + Send + Sync + 'static {
    /// Which kind it is.
    const KIND: Kind;
    /// The form of its file: a list as the rpc that lists them answers.
    type List: Message + Name + Default;

    /// Its name.
    fn name(&self) -> &str;

    /// Whether it was ever set, or deleted where that is kept.
    fn is_set(&self) -> bool;

    /// One from the file, which people may have written: checked like one of a request, and completed.
    fn read_back(self, now: SystemTime) -> Result<Self, Violations>;

    /// All of them as a list.
    fn list(all: Vec<Self>) -> Self::List;

    /// The entries of a list.
    fn entries(list: Self::List) -> Vec<Self>;
}
