//! The admin listener: metrics for Prometheus, away from the port that serves calls.
//!
//! What is counted is said where it is counted, through the `metrics` facade; names follow OpenTelemetry's semantic conventions
//! for RPC where there is one (<https://opentelemetry.io/docs/specs/semconv/rpc/rpc-metrics/>), in Prometheus's spelling.

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, sync::OnceLock, time::Duration};

use axum::{Router, http::header::CONTENT_TYPE, response::IntoResponse, routing::get};
use futures_util::{Stream, StreamExt as _};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use meshwork::log_limit::LogLimit;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::TcpListenerStream;

/// Bounds of a duration's buckets, seconds: OpenTelemetry's advice, and three below for calls within one machine.
const SECONDS: [f64; 17] =
    [0.000_25, 0.000_5, 0.001, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Bounds of a batch's buckets, inputs: up to what the writer takes.
const INPUTS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];
/// Bounds of the buckets of a call's retries and hedges: gRFC A96's advice.
const RETRIES: [f64; 5] = [1.0, 2.0, 3.0, 4.0, 5.0];
/// Bounds of the buckets of a call's transparent retries: gRFC A96's advice.
const TRANSPARENT_RETRIES: [f64; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 10.0];
/// A gauge that was not set for this long belongs to something that is gone, such as an endpoint.
const GONE_AFTER: Duration = Duration::from_secs(60);
/// Histograms keep every value until the metrics are read, or this time passes.
const UPKEEP: Duration = Duration::from_secs(5);

/// Connections that are served at once: a few that collect metrics, and people.
const MAX_CONNECTIONS: usize = 16;
/// How long a connection may take to say what it wants.
const HEADER_TIME: Duration = Duration::from_secs(5);
/// How long a connection may last: Prometheus gives up after 10 s by default.
const CONNECTION_TIME: Duration = Duration::from_secs(30);
/// After a failed accept, which is mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Where the metrics are served: a process has one recorder, and one listener for it.
static ADDRESS: OnceLock<SocketAddr> = OnceLock::new();

/// Where this process serves its metrics, as `--admin-listen` says. `None`: nowhere.
pub fn metrics_address() -> Option<SocketAddr> {
    ADDRESS.get().copied()
}

/// From now on [`metrics_address`] is this.
pub(crate) fn set_metrics_address(address: SocketAddr) {
    // Set already: `main` runs once in a process.
    let _ = ADDRESS.set(address);
}

/// This process's metrics, from when it was made.
#[derive(Clone)]
pub struct Admin(PrometheusHandle);

impl Admin {
    /// Makes what is counted from now on readable. Once in a process.
    ///
    /// # Errors
    /// This process has one already.
    pub fn install() -> Result<Self, BuildError> {
        Ok(Self(builder()?.install_recorder()?))
    }

    /// The metrics as Prometheus reads them.
    pub fn metrics(&self) -> String {
        self.0.render()
    }

    /// Serves `GET /metrics` (and `GET /healthz`, which only shows that the process is alive). It never ends.
    ///
    /// At most 16 connections are served at once, each for one request, whose headers must be there within 5 s and whose
    /// answer must be taken within 30 s; others wait until they are accepted.
    pub async fn serve(self, listener: TcpListener) {
        let upkeep = upkeep(self.0.clone());
        let metrics = move || {
            let text = self.metrics();
            async move { ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response() }
        };
        let pages = Router::new().route("/metrics", get(metrics)).route("/healthz", get(async || "ok\n"));
        tokio::select! {
            () = accept(TcpListenerStream::new(listener), pages) => tracing::error!("the admin listener has ended"),
            never = upkeep => match never {}
        }
    }
}

/// Keeps the recorded metrics small even if no client ever reads them.
async fn upkeep(handle: PrometheusHandle) -> Infallible {
    loop {
        let mut passed = Duration::ZERO;
        while passed < GONE_AFTER {
            sleep(UPKEEP).await;
            handle.run_upkeep();
            passed += UPKEEP;
        }
        // Metrics of what is gone are dropped only when all are rendered.
        drop(handle.render());
    }
}

/// Serves the connections of `incoming`, within the bounds above.
async fn accept<IO>(incoming: impl Stream<Item = io::Result<IO>>, pages: Router)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut incoming = pin!(incoming);
    let mut connections = JoinSet::new();
    let limit = LogLimit::new(1);
    loop {
        // Cancel-safe: what is not taken now is there the next time.
        tokio::select! {
            accepted = incoming.next(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Some(Ok(io)) => { connections.spawn(serve_connection(io, pages.clone())); }
                Some(Err(error)) => {
                    if let Some(left_out) = limit.pass() {
                        tracing::warn!(%error, "the admin listener cannot accept a connection{left_out}");
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
                None => return,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve_connection<IO>(io: IO, pages: Router)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut http1 = http1::Builder::new();
    http1.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME).keep_alive(false);
    let connection = http1.serve_connection(TokioIo::new(io), TowerToHyperService::new(pages));
    // How the connection ends is the peer's business.
    let _ = timeout(CONNECTION_TIME, connection).await;
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    let suffix = |name: &str| Matcher::Suffix(name.to_owned());
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(suffix("_seconds"), &SECONDS)?
        .set_buckets_for_metric(suffix("_inputs"), &INPUTS)?
        .set_buckets_for_metric(suffix("_call_retries"), &RETRIES)?
        .set_buckets_for_metric(suffix("_call_hedges"), &RETRIES)?
        .set_buckets_for_metric(suffix("_call_transparent_retries"), &TRANSPARENT_RETRIES)?;
    Ok(builder.idle_timeout(MetricKindMask::GAUGE, Some(GONE_AFTER)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
        net::TcpStream,
        sync::mpsc,
        time::Instant,
    };
    use tokio_stream::wrappers::UnboundedReceiverStream;

    use super::*;

    #[tokio::test]
    async fn prometheus_reads_what_was_counted_from_the_admin_listener() {
        let recorder = builder().expect("good buckets").build_recorder();
        let admin = Admin(recorder.handle());
        metrics::with_local_recorder(&recorder, || {
            let call = metrics::histogram!("rpc_server_call_duration_seconds", "rpc_method" => "shop/Get");
            call.record(Duration::from_millis(3));
            metrics::histogram!("grpc_client_call_retries").record(2);
            metrics::histogram!("grpc_client_call_hedges").record(2);
            metrics::histogram!("grpc_client_call_transparent_retries").record(2);
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
        let bucket = "rpc_server_call_duration_seconds_bucket{rpc_method=\"shop/Get\",le=\"0.005\"} 1";
        assert!(answer.contains(bucket), "{answer}");
        for name in ["retries", "hedges", "transparent_retries"] {
            let bucket = format!("grpc_client_call_{name}_bucket{{le=\"2\"}} 1");
            assert!(answer.contains(&bucket), "{answer}");
        }
    }

    /// Connections to a listener that answers on `/`.
    fn listening() -> impl Fn() -> DuplexStream {
        let (connections, incoming) = mpsc::unbounded_channel();
        let incoming = UnboundedReceiverStream::new(incoming).map(Ok);
        tokio::spawn(accept(incoming, Router::new().route("/", get(async || "here"))));
        move || {
            let (near, far) = tokio::io::duplex(1024);
            connections.send(far).expect("it listens");
            near
        }
    }

    async fn answer(mut connection: DuplexStream) -> String {
        connection.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.expect("answered");
        answer
    }

    #[tokio::test(start_paused = true)]
    async fn connections_that_say_nothing_are_cut_and_until_then_others_beyond_the_bound_wait() {
        let (connect, begin) = (listening(), Instant::now());
        let silent: Vec<_> = (1..MAX_CONNECTIONS).map(|_| connect()).collect();
        assert!(answer(connect()).await.ends_with("here"), "within the bound");
        assert_eq!(begin.elapsed(), Duration::ZERO);

        let _last = connect();
        assert!(answer(connect()).await.ends_with("here"), "when the silent ones were cut");
        assert!((HEADER_TIME..CONNECTION_TIME).contains(&begin.elapsed()), "{:?}", begin.elapsed());
        drop(silent);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_does_not_take_its_answer_is_cut() {
        let (mut near, far) = tokio::io::duplex(64);
        let page = Router::new().route("/", get(async || "x".repeat(64 * 1024)));
        near.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
        timeout(2 * CONNECTION_TIME, serve_connection(far, page)).await.expect("cut");
    }
}
