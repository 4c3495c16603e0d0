//! The calls of a deployment, and which instances have answered them.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use meshwork::{channel::Channel, headers};
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tonic::Request;

use crate::echo::{
    Echo, SERVICE,
    contract::{EchoRequest, echo_service_client::EchoServiceClient},
};

/// A client, and the instances that it has heard.
pub(super) struct Traffic {
    client: EchoServiceClient<Channel>,
    heard: Arc<Heard>,
}

/// What has come of waiting for a new instance's first answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reached {
    /// It serves.
    Serving,
    /// There will be no more calls.
    TooLate,
}

struct Heard {
    instances: Mutex<BTreeSet<String>>,
    news: watch::Sender<()>,
}

impl Heard {
    fn has(&self, instance_id: &str) -> bool {
        self.instances.lock().contains(instance_id)
    }

    fn note(&self, instance_id: &str) {
        if !self.has(instance_id) {
            self.instances.lock().insert(instance_id.to_owned());
            self.news.send_replace(());
        }
    }
}

impl Traffic {
    pub(super) fn new(echo: &Echo) -> Self {
        let heard = Heard { instances: Mutex::default(), news: watch::Sender::new(()) };
        Self { client: EchoServiceClient::new(echo.mesh().channel(SERVICE)), heard: Arc::new(heard) }
    }

    /// One call.
    pub(super) fn call(&self, limit: Duration) -> BoxFuture<'static, Result<(), String>> {
        let (mut client, heard) = (self.client.clone(), self.heard.clone());
        Box::pin(async move {
            let mut request = Request::new(EchoRequest { payload: vec![0x5a; 64] });
            request.set_timeout(limit);
            let response = client.echo(request).await.map_err(|status| status.to_string())?;
            let instance = response.metadata().get(headers::INSTANCE.as_str()).and_then(|id| id.to_str().ok());
            instance.into_iter().for_each(|instance_id| heard.note(instance_id));
            Ok(())
        })
    }

    /// Waits until an instance has answered a call, or the calls end. `None`: it takes too long.
    pub(super) async fn reached(&self, instance_id: &str, limit: Duration, end: Instant) -> Option<Reached> {
        let mut news = self.heard.news.subscribe();
        let reached = news.wait_for(|()| self.heard.has(instance_id));
        tokio::select! {
            reached = timeout(limit, reached) => reached.ok().map(|_| Reached::Serving),
            () = sleep_until(end) => Some(Reached::TooLate),
        }
    }
}
