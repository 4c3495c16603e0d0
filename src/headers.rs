//! The headers that Meshwork's clients and servers exchange beside gRPC's own.
//!
//! A peer that knows none of them is served all the same: they only add safety and name the instance that answered.

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::{HeaderMap, HeaderName};
use tonic::{Code, Status};

/// In a request: the `instance_id` that the call is meant for; any other instance refuses it before processing, because
/// the address has been taken over. In every response: the `instance_id` that answered.
pub const INSTANCE: HeaderName = HeaderName::from_static("meshwork-instance");

/// In a response: why the call was refused before any of it was processed, a [`Refusal`] by name.
pub const REFUSED: HeaderName = HeaderName::from_static("meshwork-refused");

/// In a request: the end user for whom the caller calls. A server passes it on to its handlers only if the caller has a
/// verified identity that the service's authorization policy names; a channel never sends it on.
pub const SUBJECT: HeaderName = HeaderName::from_static("meshwork-subject");

/// In a status that a channel has made itself, never on the wire: its message is for this process, and names addresses.
pub(crate) const INNER_CALL: HeaderName = HeaderName::from_static("meshwork-inner-call");

/// gRPC A6's pushback: the milliseconds after which the call may be sent again; anything but a number means that it may not.
pub(crate) const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// How tonic reads a status's details.
const DETAILS: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Takes a status's details out of headers or trailers if they cannot be read: tonic would panic, in the task that
/// reads the status. What is left is a status without details.
pub(crate) fn drop_unreadable_details(headers: &mut HeaderMap) {
    let unreadable = |details: &[u8]| DETAILS.decode(details).is_err();
    if headers.get(Status::GRPC_STATUS_DETAILS).is_some_and(|details| unreadable(details.as_bytes())) {
        headers.remove(Status::GRPC_STATUS_DETAILS);
    }
}

/// The size of a list of headers as HTTP/2 counts it (RFC 9113, 6.5.2).
pub(crate) fn header_list_size<'a>(fields: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> usize {
    const EACH: usize = 32;
    fields.into_iter().map(|(name, value)| name.len() + value.len() + EACH).sum()
}

/// The fields of a request or response.
pub(crate) fn fields(headers: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))
}

/// Why a server did not start a call. Nothing has happened, so that it may be sent again, even if it is not idempotent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The call was meant for another instance: the client's address is out of date.
    WrongInstance,
    /// The server is leaving, and takes no new streams.
    Draining,
    /// A registry refuses the server, because its service is served from another store: no other instance would
    /// ever see what it acknowledges.
    NotAdmitted,
    /// The server does not know yet who may call it.
    RulesUnknown,
    /// The server already has as many calls as it takes.
    Overloaded,
    /// The deadline had passed when the call arrived.
    Expired,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::WrongInstance, Self::Draining, Self::NotAdmitted, Self::RulesUnknown, Self::Overloaded, Self::Expired];

    /// The header's value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::WrongInstance => "wrong-instance",
            Self::Draining => "draining",
            Self::NotAdmitted => "not-admitted",
            Self::RulesUnknown => "rules-unknown",
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
            Self::WrongInstance | Self::Draining | Self::NotAdmitted | Self::RulesUnknown | Self::Overloaded => {
                Code::Unavailable
            }
            Self::Expired => Code::DeadlineExceeded,
        }
    }

    /// The `reason` of the answer's `google.rpc.ErrorInfo`.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::WrongInstance => "WRONG_INSTANCE",
            Self::Draining => "DRAINING",
            Self::NotAdmitted => "NOT_ADMITTED",
            Self::RulesUnknown => "RULES_UNKNOWN",
            Self::Overloaded => "OVERLOADED",
            Self::Expired => "DEADLINE_EXPIRED",
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_is_left_of_a_statuss_details_is_what_tonic_can_read() {
        for (details, kept) in [
            ("", true),
            ("CAUSAA", true),
            ("CAUSAA==", true),
            ("CAUSAB==", false),
            ("C", false),
            ("not base64", false),
            ("_-", false),
        ] {
            let mut headers = HeaderMap::from_iter([
                (Status::GRPC_STATUS, HeaderValue::from_static("5")),
                (Status::GRPC_STATUS_DETAILS, HeaderValue::from_static(details)),
            ]);
            drop_unreadable_details(&mut headers);
            assert_eq!(headers.contains_key(Status::GRPC_STATUS_DETAILS), kept, "{details}");
            assert_eq!(Status::from_header_map(&headers).map(|status| status.code()), Some(Code::NotFound));
        }
    }

    #[test]
    fn every_refusal_is_known_by_its_name() {
        for refusal in Refusal::ALL {
            assert_eq!(Refusal::parse(refusal.name().as_bytes()), Some(refusal));
        }
        assert_eq!(Refusal::parse(b"because"), None);
    }
}
