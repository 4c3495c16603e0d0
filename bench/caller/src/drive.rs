//! One slice: a number of workers call one client for a while.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use meshwork_caller::{
    Load, Slice,
    contract::{EchoRequest, echo_service_client::EchoServiceClient},
};
use rustix::time::{ClockId, clock_gettime};
use tokio::task::JoinSet;
use tonic::{Status, body::Body, client::GrpcService, codegen::StdError};

/// What is echoed.
const PAYLOAD: [u8; 64] = [0x5a; 64];
/// Latency is kept in nanoseconds to three digits.
const DIGITS: u8 = 3;

/// Keeps the load's calls under way for its time.
pub(crate) async fn drive<T>(client: &EchoServiceClient<T>, load: Load) -> Slice
where
    T: GrpcService<Body> + Clone + Send + 'static,
    T::Future: Send,
    T::Error: Into<StdError>,
    T::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<StdError> + Send,
{
    let payload: Arc<[u8]> = Arc::new(PAYLOAD);
    let (cpu, from) = (process_time(), Instant::now());
    let mut workers = JoinSet::new();
    for _ in 0..load.in_flight {
        workers.spawn(work(client.clone(), payload.clone(), from + load.time));
    }
    let mut latency_ns = histogram();
    let mut failures = BTreeMap::new();
    while let Some(worker) = workers.join_next().await {
        let failed = match worker {
            Ok((latencies, result)) => {
                latency_ns.add(latencies).expect("it grows as needed");
                result.err().map(|status| format!("Echo: {status}"))
            }
            Err(panic) => Some(format!("a worker panicked: {panic}")),
        };
        if let Some(failure) = failed {
            *failures.entry(failure).or_default() += 1;
        }
    }
    let quantile = |quantile| Duration::from_nanos(latency_ns.value_at_quantile(quantile));
    Slice {
        calls: latency_ns.len(),
        took: from.elapsed(),
        cpu: process_time() - cpu,
        p50: quantile(0.5),
        p99: quantile(0.99),
        failures,
    }
}

/// Calls until the time has come, or a call fails.
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
    let mut latencies = histogram();
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

fn histogram() -> Histogram<u64> {
    Histogram::new(DIGITS).expect("0 to 5 digits")
}

/// CPU time that this process has used since its start: user and system, over all its threads, to the nanosecond.
fn process_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).expect("a process has not used negative time")
}
