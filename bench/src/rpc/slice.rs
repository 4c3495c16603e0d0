//! One slice: so many workers call one peer for a while.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use meshwork_harness::report::Failures;
use tokio::task::JoinSet;
use tonic::{Status, body::Body, client::GrpcService, codegen::StdError};

use crate::{
    cpu,
    echo::contract::{EchoRequest, echo_service_client::EchoServiceClient},
};

/// What is echoed.
const PAYLOAD: [u8; 64] = [0x5a; 64];
/// Latency is kept in nanoseconds to three digits.
const DIGITS: u8 = 3;

/// What a slice has found.
pub(super) struct Slice {
    took: Duration,
    cpu: Duration,
    latency_ns: Histogram<u64>,
    pub(super) failures: Failures,
}

impl Slice {
    pub(super) fn calls_per_s(&self) -> f64 {
        self.latency_ns.len() as f64 / self.took.as_secs_f64()
    }

    /// CPU time of this process for each call, microseconds.
    pub(super) fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.latency_ns.len() as f64
    }

    /// The latency that this share of the calls does not exceed, microseconds.
    pub(super) fn latency_us(&self, quantile: f64) -> f64 {
        self.latency_ns.value_at_quantile(quantile) as f64 / 1e3
    }
}

/// Keeps `in_flight` calls under way for `time`.
pub(super) async fn drive<T>(client: &EchoServiceClient<T>, in_flight: usize, time: Duration) -> Slice
where
    T: GrpcService<Body> + Clone + Send + 'static,
    T::Future: Send,
    T::Error: Into<StdError>,
    T::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<StdError> + Send,
{
    let payload: Arc<[u8]> = Arc::new(PAYLOAD);
    let (cpu, from) = (cpu::process_time(), Instant::now());
    let mut workers = JoinSet::new();
    for _ in 0..in_flight {
        workers.spawn(work(client.clone(), payload.clone(), from + time));
    }
    let mut latency_ns = Histogram::new(DIGITS).expect("0 to 5 digits");
    let mut failures = Failures::default();
    while let Some(worker) = workers.join_next().await {
        match worker {
            Ok((latencies, result)) => {
                latency_ns.add(latencies).expect("it grows as needed");
                if let Err(status) = result {
                    failures.add(format!("Echo: {status}"));
                }
            }
            Err(panic) => failures.add(format!("a worker panicked: {panic}")),
        }
    }
    Slice { took: from.elapsed(), cpu: cpu::process_time() - cpu, latency_ns, failures }
}

async fn work<T>(
    mut client: EchoServiceClient<T>,
    payload: Arc<[u8]>,
    until: Instant,
) -> (Histogram<u64>, Result<(), Status>)
where
    T: GrpcService<Body> + Send,
    T::Future: Send,
    T::Error: Into<StdError>,
    T::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<StdError> + Send,
{
    let mut latencies = Histogram::new(DIGITS).expect("0 to 5 digits");
    let mut start = Instant::now();
    while start < until {
        if let Err(status) = client.echo(EchoRequest { payload: payload.to_vec() }).await {
            return (latencies, Err(status));
        }
        let end = Instant::now();
        let ns = u64::try_from((end - start).as_nanos()).expect("a slice is shorter than 500 years");
        latencies.record(ns).expect("it grows as needed");
        start = end;
    }
    (latencies, Ok(()))
}
