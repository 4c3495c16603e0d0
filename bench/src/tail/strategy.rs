//! Ways to spread calls over endpoints.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use meshwork::{
    Mesh,
    contract::meshwork::registry::v1::{Policy, RetryPolicy, SetPolicyRequest},
};
use tokio::time::timeout;
use tonic::{Request, Status, body::Body, transport::Channel};
use tower::{
    BoxError, Service, ServiceExt as _,
    balance::p2c::Balance,
    buffer::Buffer,
    discover::ServiceList,
    load::{CompleteOnResponse, Load, PeakEwma, PendingRequests},
    util::BoxCloneSyncService,
};

use super::error::Error;
use crate::echo::{
    Echo, SERVICE,
    contract::{EchoRequest, echo_service_client::EchoServiceClient},
    endpoint,
};

/// What an endpoint's latency is taken to be before it has answered, for tower's PeakEWMA; Finagle's and tower's example value.
const DEFAULT_RTT: Duration = Duration::from_secs(1);
/// How long tower's PeakEWMA remembers a peak; Finagle's default.
const DECAY: Duration = Duration::from_secs(10);
/// Calls that wait in front of tower's balance: more than one second of any load here.
const BUFFER: usize = 20_000;

/// A way to spread calls.
#[derive(Clone, Copy, Debug)]
pub(super) enum Strategy {
    RoundRobin,
    Random,
    P2cPending,
    PeakEwma,
    /// Everything on.
    Meshwork,
    /// Balancing and ejection alone.
    MeshworkNoRetry,
}

/// A client that spreads its calls in some way.
pub(super) struct Calls {
    make: Box<dyn Fn() -> EchoServiceClient<Transport> + Send + Sync>,
    mesh: Option<Mesh>,
}

type Transport = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Status>;

impl Calls {
    fn new(make: impl Fn() -> Transport + Send + Sync + 'static) -> Self {
        Self { make: Box::new(move || EchoServiceClient::new(make())), mesh: None }
    }

    /// One call.
    pub(super) fn call(&self, limit: Duration) -> BoxFuture<'static, Result<(), String>> {
        let mut client = (self.make)();
        Box::pin(async move {
            let mut request = Request::new(EchoRequest { payload: Vec::new() });
            request.set_timeout(limit);
            match timeout(limit, client.echo(request)).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(status)) => Err(format!("{:?}", status.code())),
                Err(_) => Err("no answer in time".to_owned()),
            }
        })
    }

    /// Ends what it runs on.
    pub(super) async fn close(self) {
        if let Some(mesh) = self.mesh {
            mesh.close().await;
        }
    }
}

impl Strategy {
    /// A new client over these endpoints.
    pub(super) async fn connect(self, echo: &Echo, addresses: &[String]) -> Result<Calls, Error> {
        let channels = || addresses.iter().map(|address| endpoint(address).connect_lazy()).collect::<Vec<_>>();
        Ok(match self {
            Self::RoundRobin => {
                let (channels, next) = (channels(), AtomicUsize::new(0));
                Calls::new(move || boxed(channels[next.fetch_add(1, Ordering::Relaxed) % channels.len()].clone()))
            }
            Self::Random => {
                let channels = channels();
                Calls::new(move || boxed(channels[rand::random_range(0..channels.len())].clone()))
            }
            Self::P2cPending => {
                balanced(channels(), |channel| PendingRequests::new(channel, CompleteOnResponse::default()))
            }
            Self::PeakEwma => balanced(channels(), |channel| {
                PeakEwma::new(channel, DEFAULT_RTT, DECAY.as_nanos() as f64, CompleteOnResponse::default())
            }),
            Self::Meshwork => meshwork(echo, None).await?,
            Self::MeshworkNoRetry => {
                let once = RetryPolicy { max_attempts: Some(1), hedging: Some(false), ..RetryPolicy::default() };
                meshwork(echo, Some(once)).await?
            }
        })
    }
}

fn boxed<S>(service: S) -> Transport
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError> + 'static,
    S::Future: Send + 'static,
{
    BoxCloneSyncService::new(service.map_err(|error| Status::from_error(error.into())))
}

/// tower's balance over these channels, with a load of tower's.
fn balanced<S>(channels: Vec<Channel>, load: impl Fn(Channel) -> S) -> Calls
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Load + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    S::Metric: PartialOrd + fmt::Debug + Send,
{
    let endpoints = ServiceList::new(channels.into_iter().map(load).collect::<Vec<_>>());
    let balance = Buffer::new(Balance::new(endpoints), BUFFER);
    Calls::new(move || boxed(balance.clone()))
}

/// A new mesh under this policy, so that nothing is known from the run before.
async fn meshwork(echo: &Echo, retry: Option<RetryPolicy>) -> Result<Calls, Error> {
    let policy = Policy { service: SERVICE.to_owned(), retry, ..Policy::default() };
    let request = SetPolicyRequest { policy: Some(policy) };
    let set = echo.mesh().policies().set_policy(request).await;
    set.map_err(|status| Error::Strategy { what: "SetPolicy", source: status.into() })?;
    let mesh = Mesh::connect(echo.url());
    let mesh = mesh.map_err(|error| Error::Strategy { what: "Mesh::connect", source: error.into() })?;
    let channel = Arc::new(mesh.channel(SERVICE));
    let mut calls = Calls::new(move || boxed((*channel).clone()));
    calls.mesh = Some(mesh);
    Ok(calls)
}
