//! The admin listener: metrics for Prometheus, away from the port that serves calls.
//!
//! What is counted is said where it is counted, through the `metrics` facade; names follow OpenTelemetry's semantic conventions
//! for RPC where there is one (<https://opentelemetry.io/docs/specs/semconv/rpc/rpc-metrics/>), in Prometheus's spelling.

use std::time::Duration;

use axum::{Router, http::header::CONTENT_TYPE, response::IntoResponse, routing::get};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;
use tokio::net::TcpListener;

/// Bounds of a duration's buckets, seconds: OpenTelemetry's advice, and three below for calls within one machine.
const SECONDS: [f64; 17] =
    [0.000_25, 0.000_5, 0.001, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Bounds of a batch's buckets, inputs: up to what the writer takes.
const INPUTS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];
/// A gauge that nobody has set for so long is of something that is gone, such as an endpoint.
const GONE_AFTER: Duration = Duration::from_secs(60);
/// Histograms keep what they were told until somebody asks for it, or this passes.
const UPKEEP: Duration = Duration::from_secs(5);

/// This process's metrics, from when it was made.
#[derive(Clone)]
pub struct Admin(PrometheusHandle);

impl Admin {
    /// Makes what is counted from now on readable. Once in a process.
    ///
    /// # Errors
    /// There is one already.
    pub fn install() -> Result<Self, BuildError> {
        Ok(Self(builder()?.install_recorder()?))
    }

    /// The metrics as Prometheus reads them.
    pub fn metrics(&self) -> String {
        self.0.render()
    }

    /// Serves `GET /metrics` (and `GET /healthz`, for whoever only asks whether the process is there). It has no end.
    pub async fn serve(self, listener: TcpListener) {
        let upkeep = {
            let handle = self.0.clone();
            async move {
                loop {
                    tokio::time::sleep(UPKEEP).await;
                    handle.run_upkeep();
                }
            }
        };
        let metrics = move || {
            let text = self.metrics();
            async move { ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response() }
        };
        let pages = Router::new().route("/metrics", get(metrics)).route("/healthz", get(async || "ok\n"));
        let served = async move { axum::serve(listener, pages).await };
        tokio::select! {
            ended = served => if let Err(error) = ended {
                tracing::error!(%error, "the admin listener has ended");
            },
            () = upkeep => {}
        }
    }
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    let suffix = |name: &str| Matcher::Suffix(name.to_owned());
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(suffix("_seconds"), &SECONDS)?
        .set_buckets_for_metric(suffix("_inputs"), &INPUTS)?;
    Ok(builder.idle_timeout(MetricKindMask::GAUGE, Some(GONE_AFTER)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    use super::*;

    #[tokio::test]
    async fn prometheus_reads_what_was_counted_from_the_admin_listener() {
        let recorder = builder().expect("good buckets").build_recorder();
        let admin = Admin(recorder.handle());
        metrics::with_local_recorder(&recorder, || {
            let call = metrics::histogram!("rpc_server_call_duration_seconds", "rpc_method" => "/shop/Get");
            call.record(Duration::from_millis(3));
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let serving = tokio::spawn(admin.serve(listener));

        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        serving.abort();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let bucket = "rpc_server_call_duration_seconds_bucket{rpc_method=\"/shop/Get\",le=\"0.005\"} 1";
        assert!(answer.contains(bucket), "{answer}");
    }
}
