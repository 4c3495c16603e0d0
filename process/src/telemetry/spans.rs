//! Spans on their way to an OTLP collector, through OpenTelemetry's own SDK.
//!
//! An unreachable collector costs spans and nothing else: they are sent in batches by a thread of the SDK, from a
//! bounded queue.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use meshwork::{
    address::{InvalidAddress, parse_address},
    log_limit::LogLimit,
    trace::{self, TraceContext},
};
use opentelemetry::{
    Key, KeyValue,
    propagation::{Extractor, Injector, TextMapPropagator as _},
    trace::TracerProvider as _,
};
use opentelemetry_otlp::{self as otlp, ExporterBuildError, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    propagation::TraceContextPropagator,
    trace::{SdkTracerProvider, SpanData, SpanExporter},
};
use tracing::{Level, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{Layer, filter::Targets, registry::LookupSpan};

/// Whose spans are exported: calls and consumed events, not what libraries do inside.
const TARGET: &str = "meshwork";

const SERVICE_NAME: Key = Key::from_static_str("service.name");
/// How the SDK's own name for a service begins, if the environment says none.
const NAMELESS: &str = "unknown_service";

/// How long a process that ends waits for a collector.
const LAST_WORD: Duration = Duration::from_secs(2);

/// The collector's address is invalid.
#[derive(Debug, thiserror::Error)]
pub enum CollectorError {
    /// It is none.
    #[error("must be http://HOST:PORT, such as http://127.0.0.1:4317")]
    Url(#[from] ExporterBuildError),
    /// It is of another protocol.
    #[error("must be http://HOST:PORT, such as http://127.0.0.1:4317; {0} is not supported")]
    Scheme(String),
    /// OTLP over gRPC has no path, and a password would be seen in logs.
    #[error("must be http://HOST:PORT, such as http://127.0.0.1:4317, without a user, path or query")]
    Extra,
    /// Its host or port is none.
    #[error(transparent)]
    Address(#[from] InvalidAddress),
}

/// The export of this process's spans. Dropped, it sends what is left.
#[derive(Debug)]
pub struct Spans(SdkTracerProvider);

impl Spans {
    /// Spans to `collector`, the URL of an OTLP collector that takes gRPC, as those of `service` unless the environment names
    /// the process otherwise; within a Tokio runtime. The standard variables (`OTEL_TRACES_SAMPLER`, `OTEL_RESOURCE_ATTRIBUTES`,
    /// `OTEL_SERVICE_NAME`, ...) are obeyed. From now on calls and events carry the places of these spans.
    ///
    /// # Errors
    /// [`CollectorError`].
    pub fn start(collector: &str, service: &str) -> Result<Self, CollectorError> {
        check_collector(collector)?;
        let exporter = otlp::SpanExporter::builder().with_tonic().with_endpoint(collector).build()?;
        Ok(Self::through(Watched { exporter, collector: collector.to_owned(), limit: LogLimit::new(1) }, service))
    }

    fn through(exporter: impl SpanExporter + 'static, service: &str) -> Self {
        let resource = resource(Resource::builder().build(), service);
        trace::install(Places);
        Self(SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build())
    }

    /// What tells the exporter of the spans.
    pub(super) fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        let layer = tracing_opentelemetry::layer().with_tracer(self.0.tracer(TARGET)).with_location(false);
        layer.with_threads(false).with_filter(Targets::new().with_target(TARGET, Level::DEBUG))
    }
}

impl Drop for Spans {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown_with_timeout(LAST_WORD) {
            tracing::warn!(%error, "the last spans could not be sent");
        }
    }
}

/// Refuses what the exporter takes and does not use: it would call the host by gRPC all the same. `unix:` is a socket's; an address
/// without a scheme is as `OTEL_EXPORTER_OTLP_INSECURE` says.
fn check_collector(collector: &str) -> Result<(), CollectorError> {
    if collector.starts_with("unix:") {
        return Ok(());
    }
    let (scheme, rest) = collector.split_once("://").unwrap_or(("http", collector));
    if !scheme.eq_ignore_ascii_case("http") {
        return Err(CollectorError::Scheme(scheme.to_owned()));
    }
    match parse_address(rest.strip_suffix('/').unwrap_or(rest)) {
        Ok(_) | Err(InvalidAddress::NoPort) => Ok(()),
        Err(InvalidAddress::Extra) => Err(CollectorError::Extra),
        Err(problem) => Err(problem.into()),
    }
}

/// An exporter of which one failure a minute is logged: the SDK's own log lines are compiled out, and would be one for each batch.
#[derive(Debug)]
struct Watched<E> {
    exporter: E,
    collector: String,
    limit: LogLimit,
}

impl<E: SpanExporter> SpanExporter for Watched<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let exported = self.exporter.export(batch).await;
        if let Err(error) = &exported
            && let Some(left_out) = self.limit.pass()
        {
            tracing::warn!(%error, spans, collector = %self.collector, "spans could not be exported and are lost{left_out}");
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// The places of spans in their traces, as [`tracing_opentelemetry`] knows them.
struct Places;

impl trace::Exporter for Places {
    fn adopt(&self, span: &Span, parent: &TraceContext) {
        let mut headers = Headers::default();
        parent.write_headers(&mut headers.0);
        // Fails only for a span that is not exported.
        let _ = span.set_parent(TraceContextPropagator::new().extract(&headers));
    }

    fn context(&self, span: &Span) -> Option<TraceContext> {
        let mut headers = Headers::default();
        TraceContextPropagator::new().inject_context(&span.context(), &mut headers);
        TraceContext::from_headers(&headers.0)
    }
}

/// W3C's headers, as OpenTelemetry's propagator writes and reads them.
#[derive(Default)]
struct Headers(HeaderMap);

impl Injector for Headers {
    fn set(&mut self, name: &str, value: String) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value))
            && !value.is_empty()
        {
            self.0.insert(name, value);
        }
    }
}

impl Extractor for Headers {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

/// What the environment says of this process, and that it is `service` if the environment does not say what it is.
fn resource(detected: Resource, service: &str) -> Resource {
    let named = detected.get_ref(&SERVICE_NAME).is_some_and(|name| !name.as_str().starts_with(NAMELESS));
    if named {
        return detected;
    }
    let attributes = detected.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    Resource::builder_empty().with_attributes(attributes).with_service_name(service.to_owned()).build()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use opentelemetry::trace::Status;
    use opentelemetry_sdk::error::OTelSdkError;
    use parking_lot::Mutex;
    use tokio::time::sleep;
    use tracing_subscriber::{layer::SubscriberExt as _, registry};

    use super::*;
    use crate::tests::Lines;

    fn detected(attributes: &[(&'static str, &'static str)]) -> Resource {
        let attributes = attributes.iter().map(|(key, value)| KeyValue::new(*key, *value));
        Resource::builder_empty().with_attributes(attributes).build()
    }

    #[test]
    fn a_name_that_the_environment_gives_the_service_stays_and_its_other_attributes_too() {
        let name = |resource: Resource| resource.get(&SERVICE_NAME).expect("named").to_string();
        assert_eq!(name(resource(detected(&[("service.name", "told")]), "order")), "told");
        let nameless = detected(&[("service.name", "unknown_service:order"), ("zone", "z1")]);
        let ours = resource(nameless, "order");
        assert_eq!(ours.get(&Key::from_static_str("zone")).expect("kept").to_string(), "z1");
        assert_eq!(name(ours), "order");
        assert_eq!(name(resource(detected(&[]), "order")), "order");
    }

    /// An exporter that keeps what it is given.
    #[derive(Clone, Debug, Default)]
    struct Kept(Arc<Mutex<Vec<SpanData>>>);

    impl SpanExporter for Kept {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.0.lock().extend(batch);
            Ok(())
        }
    }

    #[test]
    fn the_exporter_gets_the_spans_of_calls_by_name_and_how_they_failed_and_none_of_libraries() {
        let kept = Kept::default();
        let spans = Spans::through(kept.clone(), "order");
        tracing::subscriber::with_default(registry().with(spans.layer()), || {
            let call = tracing::debug_span!(
                target: "meshwork::channel",
                "outgoing",
                otel.name = "shop.Order/Get",
                otel.status_code = tracing::field::Empty,
                rpc.response.status_code = tracing::field::Empty
            );
            // As a call does that passes its trace on: the span has begun for the SDK by then.
            assert!(TraceContext::of(&call).is_some());
            call.record("otel.status_code", "ERROR").record("rpc.response.status_code", "ABORTED");
            drop(tracing::info_span!(target: "h2", "library"));
        });
        drop(spans);

        let kept = kept.0.lock();
        let [span] = &kept[..] else { panic!("one span, and not {kept:?}") };
        assert_eq!(span.name, "shop.Order/Get");
        assert!(matches!(span.status, Status::Error { .. }), "{:?}", span.status);
        let code = span.attributes.iter().find(|attribute| attribute.key.as_str() == "rpc.response.status_code");
        assert_eq!(code.expect("said").value.as_str(), "ABORTED");
    }

    #[test]
    fn a_collector_that_the_exporter_would_not_reach_as_it_is_given_is_refused() {
        for good in [
            "http://127.0.0.1:4317",
            "HTTP://collector:4317/",
            "collector:4317",
            "http://collector",
            "unix:///run/otlp.sock",
        ] {
            assert!(check_collector(good).is_ok(), "{good}");
        }
        for (bad, says) in [
            ("https://collector:4317", "https is not supported"),
            ("ftp://collector:4317", "ftp is not supported"),
            ("http://collector:4318/v1/traces", "path or query"),
            ("http://collector:4317?key=x", "path or query"),
            ("http://me:secret@collector:4317", "without a user"),
            ("http://collector:99999", "a port of 1-65535"),
            ("http://collector:0", "a port of 1-65535"),
            ("", "empty"),
        ] {
            let error = check_collector(bad).expect_err(bad).to_string();
            assert!(error.contains(says) && !error.contains("secret"), "{error}");
        }
    }

    /// An exporter without a collector.
    #[derive(Debug)]
    struct Nowhere;

    impl SpanExporter for Nowhere {
        async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
            Err(OTelSdkError::InternalFailure("no route to host".into()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn spans_that_cannot_be_exported_are_one_warning_a_minute_that_names_the_collector() {
        let lines = Lines::default();
        let written = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || written.clone()).finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        let exporter = Watched { exporter: Nowhere, collector: "http://a:4317".into(), limit: LogLimit::new(1) };
        for pause in [0, 1, 30, 60] {
            sleep(Duration::from_secs(pause)).await;
            assert!(exporter.export(Vec::new()).await.is_err());
        }
        let told = lines.text();
        assert_eq!(told.matches(" WARN ").count(), 2, "{told}");
        assert_eq!(told.matches("collector=http://a:4317").count(), 2, "{told}");
        assert!(told.contains("no route to host") && told.contains("2 more"), "{told}");
    }
}
