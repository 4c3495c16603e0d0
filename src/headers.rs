//! The headers that Meshwork's clients and servers exchange beside gRPC's own.
//!
//! A peer that knows none of them is served all the same: they only add safety and say who answered.

use http::HeaderName;
use tonic::Code;

/// In a request: the `instance_id` that the call is meant for; anybody else refuses it before processing, because the
/// address has been taken over. In every response: the `instance_id` that answered.
pub const INSTANCE: HeaderName = HeaderName::from_static("meshwork-instance");

/// In a response: why the call was refused before any of it was processed, a [`Refusal`] by name.
pub const REFUSED: HeaderName = HeaderName::from_static("meshwork-refused");

/// gRPC A6's pushback: after how many milliseconds the call may be sent again; anything but a number says that it may not.
pub(crate) const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// Why a server did not start a call. Nothing has happened, so that it may be sent again, even if it is not idempotent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The call was meant for another instance: the client's address is out of date.
    WrongInstance,
    /// The server is leaving, and takes no new streams.
    Draining,
    /// The server already has as many calls as it takes.
    Overloaded,
    /// The deadline had passed when the call arrived.
    Expired,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::WrongInstance, Self::Draining, Self::Overloaded, Self::Expired];

    /// The header's value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::WrongInstance => "wrong-instance",
            Self::Draining => "draining",
            Self::Overloaded => "overloaded",
            Self::Expired => "expired",
        }
    }

    /// The refusal with that name.
    pub fn parse(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|refusal| refusal.name().as_bytes() == name)
    }

    /// The gRPC code it comes with. UNAVAILABLE, also for an overloaded server: by gRPC's practice that is what a client
    /// may repeat elsewhere, while RESOURCE_EXHAUSTED speaks of the caller's own quota, which no other instance can mend.
    pub const fn code(self) -> Code {
        match self {
            Self::WrongInstance | Self::Draining | Self::Overloaded => Code::Unavailable,
            Self::Expired => Code::DeadlineExceeded,
        }
    }

    /// The `reason` of the answer's `google.rpc.ErrorInfo`.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::WrongInstance => "WRONG_INSTANCE",
            Self::Draining => "DRAINING",
            Self::Overloaded => "OVERLOADED",
            Self::Expired => "DEADLINE_EXPIRED",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_is_known_by_its_name() {
        for refusal in Refusal::ALL {
            assert_eq!(Refusal::parse(refusal.name().as_bytes()), Some(refusal));
        }
        assert_eq!(Refusal::parse(b"because"), None);
    }
}
