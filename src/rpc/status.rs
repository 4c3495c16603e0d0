//! Errors as callers see them: a code, `google.rpc.ErrorInfo`, and the problem of each field (AIP-193).

use std::{
    fmt::{self, Display},
    time::Duration,
};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

/// The origin of an error: the `domain` of its `google.rpc.ErrorInfo`.
#[derive(Clone, Copy, Debug)]
pub struct Domain(&'static str);

impl Domain {
    /// A domain such as `"order.shop"`.
    pub const fn new(domain: &'static str) -> Self {
        Self(domain)
    }

    /// As it stands in an `ErrorInfo`.
    pub const fn name(self) -> &'static str {
        self.0
    }

    /// An error with a `reason` in UPPER_SNAKE_CASE, for machines, and a message for people.
    pub fn error(self, code: Code, reason: &str, message: impl Into<String>) -> Status {
        Status::with_error_details(code, message, self.details(reason))
    }

    /// As [`error`](Self::error), with more for machines: the `metadata` of its `ErrorInfo`.
    pub(crate) fn error_about<const N: usize>(
        self,
        code: Code,
        reason: &str,
        message: impl Into<String>,
        metadata: [(&str, &str); N],
    ) -> Status {
        let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned()));
        Status::with_error_details(code, message, ErrorDetails::with_error_info(reason, self.0, metadata))
    }

    /// INVALID_ARGUMENT/`reason` about one field.
    pub fn invalid_field(self, reason: &str, field: &str, description: &str) -> Status {
        let mut details = self.details(reason);
        details.add_bad_request_violation(field, description);
        Status::with_error_details(Code::InvalidArgument, format!("{field}: {description}"), details)
    }

    /// UNAVAILABLE/`reason`, with `google.rpc.RetryInfo`.
    pub fn retry_later(self, reason: &str, message: impl Into<String>, delay: Duration) -> Status {
        let mut details = self.details(reason);
        details.set_retry_info(Some(delay));
        Status::with_error_details(Code::Unavailable, message, details)
    }

    fn details(self, reason: &str) -> ErrorDetails {
        ErrorDetails::with_error_info(reason, self.0, [] as [(String, String); 0])
    }
}

/// What is wrong with a request's fields, gathered so that a caller learns all of it at once.
#[derive(Debug, Default)]
pub struct Violations(Vec<FieldViolation>);

impl Violations {
    /// Notes that `field` is wrong.
    pub fn add(&mut self, field: &str, description: impl Display) {
        self.0.push(FieldViolation::new(field, description.to_string()));
    }

    /// The value, or a note that `field` is wrong.
    pub fn check<T, E: Display>(&mut self, field: &str, value: Result<T, E>) -> Option<T> {
        value.map_err(|error| self.add(field, error)).ok()
    }

    /// The fields that are wrong, each with what is wrong with it.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|FieldViolation { field, description, .. }| (field.as_str(), description.as_str()))
    }

    /// Whether there are no violations.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Fails with INVALID_ARGUMENT/INVALID_FIELD and a `google.rpc.BadRequest` if anything was noted.
    pub fn into_result(self, domain: Domain) -> Result<(), Status> {
        if self.is_empty() {
            return Ok(());
        }
        let message = self.to_string();
        let mut details = domain.details("INVALID_FIELD");
        details.set_bad_request(self.0);
        Err(Status::with_error_details(Code::InvalidArgument, message, details))
    }
}

/// On one line.
impl Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (field, description)) in self.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{field}: {description}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_violation_and_the_error_info_reach_the_caller() {
        let mut violations = Violations::default();
        assert_eq!(violations.check("a", Ok::<_, String>(1)), Some(1));
        assert_eq!(violations.check("b", Err::<u8, _>("is bad")), None);
        violations.add("c", "is worse");

        let status = violations.into_result(Domain::new("test.shop")).expect_err("two fields are wrong");

        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        assert_eq!(
            details.error_info().map(|i| (i.reason.as_str(), i.domain.as_str())),
            Some(("INVALID_FIELD", "test.shop"))
        );
        let fields: Vec<_> = details.bad_request().expect("given").field_violations.iter().map(|v| &v.field).collect();
        assert_eq!(fields, ["b", "c"]);
    }
}
