//! Spans on their way to an OTLP collector, through OpenTelemetry's own SDK.
//!
//! A collector that is away costs spans and nothing else: they are sent in batches by a thread of the SDK, from a bounded
//! queue.

use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tracing::{Level, Subscriber};
use tracing_subscriber::{Layer, filter::Targets, registry::LookupSpan};

/// Whose spans are exported: calls and consumed events, not what libraries do inside.
const TARGET: &str = "meshwork";

/// How long a process that ends waits for a collector.
const LAST_WORD: Duration = Duration::from_secs(2);

/// The export of this process's spans. Dropped, it sends what is left.
#[derive(Debug)]
pub(super) struct Spans(SdkTracerProvider);

impl Spans {
    pub(super) fn start(collector: &str, service: &str) -> Result<Self, ExporterBuildError> {
        let exporter = SpanExporter::builder().with_tonic().with_endpoint(collector).build()?;
        let resource = Resource::builder().with_service_name(service.to_owned()).build();
        Ok(Self(SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build()))
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
