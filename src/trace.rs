//! Trace context: the trace that a call belongs to, passed on to every call and event that it causes.
//!
//! On the wire it is W3C's `traceparent` and `tracestate` (<https://www.w3.org/TR/trace-context/>); inside of a process it is
//! what [`current`] returns in a task that works for a call. It is passed on whether or not this process exports spans. If it
//! does ([`install`]), the context is that of the current span, and a call without one begins a trace.

use std::{fmt, future::Future, str::FromStr, sync::OnceLock};

use http::{HeaderMap, HeaderName, HeaderValue};
use tonic::Code;
use tracing::Span;

use crate::rpc::code_name;

/// Trace, parent span and flags.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What tracing systems add for themselves.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Characters of a `traceparent` of version 00.
const LENGTH: usize = 55;
/// What W3C wants to be passed on at least; a longer one is left out, which it allows.
const MAX_STATE: usize = 512;

tokio::task_local! {
    static CURRENT: Option<TraceContext>;
}

/// A place in a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: u128,
    span_id: u64,
    flags: u8,
    state: Option<HeaderValue>,
}

/// The text is no `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a W3C traceparent, such as 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")]
pub struct InvalidTraceParent;

impl FromStr for TraceContext {
    type Err = InvalidTraceParent;

    /// Reads a `traceparent`: of a version later than 00 what version 00 knows.
    fn from_str(text: &str) -> Result<Self, InvalidTraceParent> {
        let (known, rest) = text.split_at_checked(LENGTH).ok_or(InvalidTraceParent)?;
        let mut parts = known.split('-');
        let mut hex = |digits: usize| {
            let part = parts.next().filter(|part| part.len() == digits).ok_or(InvalidTraceParent)?;
            let lower_hex = part.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c));
            let number = lower_hex.then(|| u128::from_str_radix(part, 16).ok()).flatten();
            number.ok_or(InvalidTraceParent)
        };
        let (version, trace_id, span_id, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
        let ends_well = rest.is_empty() || (version > 0 && rest.starts_with('-'));
        if version == 0xff || !ends_well || trace_id == 0 || span_id == 0 {
            return Err(InvalidTraceParent);
        }
        let small = "its digits were counted";
        let (span_id, flags) = (u64::try_from(span_id).expect(small), u8::try_from(flags).expect(small));
        Ok(Self { trace_id, span_id, flags, state: None })
    }
}

impl fmt::Display for TraceContext {
    /// A `traceparent` of version 00.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Of the flags only what version 00 knows: sampled, and (level 2) a random trace id.
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags & 0b11)
    }
}

impl TraceContext {
    /// Reads a call's headers. What cannot be read is as if it were not there, as W3C has it.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut context: Self = headers.get(TRACEPARENT)?.to_str().ok()?.parse().ok()?;
        context.state = headers.get(TRACESTATE).filter(|state| state.len() <= MAX_STATE).cloned();
        Some(context)
    }

    /// Writes a call's headers, unless its caller has written them.
    pub fn write_headers(&self, headers: &mut HeaderMap) {
        if headers.contains_key(TRACEPARENT) {
            return;
        }
        let parent = HeaderValue::from_str(&self.to_string()).expect("digits and dashes");
        headers.insert(TRACEPARENT, parent);
        if let Some(state) = &self.state {
            headers.insert(TRACESTATE, state.clone());
        }
    }

    /// Makes `span` part of the trace, if spans are exported.
    pub fn adopt(&self, span: &Span) {
        if let Some(exporter) = EXPORTER.get() {
            exporter.adopt(span, self);
        }
    }

    /// Where a span is, if spans are exported.
    pub fn of(span: &Span) -> Option<Self> {
        EXPORTER.get()?.context(span)
    }
}

/// Knows which place of a trace a span of `tracing` has: the exporter of spans.
pub trait Exporter: Send + Sync {
    /// Makes `span` part of the trace, below `parent`.
    fn adopt(&self, span: &Span, parent: &TraceContext);

    /// Where `span` is; `None` if it is not exported.
    fn context(&self, span: &Span) -> Option<TraceContext>;
}

/// Of the whole process, as the subscriber of `tracing` is; and set by the same `main`.
static EXPORTER: OnceLock<Box<dyn Exporter>> = OnceLock::new();

/// Passes on the places of exported spans from now on, instead of what came in. The first call of a process counts.
pub fn install(exporter: impl Exporter + 'static) {
    // A second one would only do the same.
    let _ = EXPORTER.set(Box::new(exporter));
}

/// Notes in a call's span that it has failed. The span has the fields `otel.status_code` and `rpc.response.status_code`.
pub(crate) fn failed(span: &Span, code: Code) {
    span.record("otel.status_code", "ERROR");
    span.record("rpc.response.status_code", code_name(code));
}

/// The trace of the call that this task works for.
pub fn current() -> Option<TraceContext> {
    TraceContext::of(&Span::current()).or_else(|| CURRENT.try_get().ok().flatten())
}

/// Runs `work` as part of a trace, or of none: for a task that a handler spawns, with what was [`current`] there.
pub fn scope<F: Future>(context: Option<TraceContext>, work: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(context, work)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_passed_on_as_it_is() {
        assert_eq!(PARENT.parse::<TraceContext>().expect("W3C's example").to_string(), PARENT);
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known_and_what_is_none_is_not_read() {
        let later = format!("cc{}-what-the-future-will-be", &PARENT[2..]);
        assert_eq!(later.parse::<TraceContext>().expect("a later version").to_string(), PARENT);
        for bad in [
            String::new(),
            PARENT[..54].to_owned(),
            format!("{PARENT}-more"),
            format!("{PARENT}0"),
            format!("ff{}", &PARENT[2..]),
            PARENT.to_uppercase(),
            PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            PARENT.replace("00f067aa0ba902b7", &"0".repeat(16)),
            PARENT.replace('-', "_"),
            PARENT.replace("4bf9", "+bf9"),
            "ä".repeat(30),
        ] {
            assert_eq!(bad.parse::<TraceContext>(), Err(InvalidTraceParent), "{bad}");
        }
    }

    #[test]
    fn headers_carry_the_trace_and_its_callers_own_word_stays() {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_static(PARENT));
        headers.insert(TRACESTATE, HeaderValue::from_static("rojo=00f067aa0ba902b7"));
        let context = TraceContext::from_headers(&headers).expect("a trace");
        let mut onward = HeaderMap::new();
        context.write_headers(&mut onward);
        assert_eq!(onward, headers);

        let own = HeaderValue::from_static("00-11111111111111111111111111111111-2222222222222222-00");
        let mut set = HeaderMap::from_iter([(TRACEPARENT, own.clone())]);
        context.write_headers(&mut set);
        assert_eq!(set, HeaderMap::from_iter([(TRACEPARENT, own)]));
    }

    #[tokio::test]
    async fn a_task_knows_the_trace_that_it_works_for() {
        let context: TraceContext = PARENT.parse().expect("a trace");
        assert_eq!(current(), None);
        assert_eq!(scope(Some(context.clone()), async { current() }).await, Some(context));
    }
}
