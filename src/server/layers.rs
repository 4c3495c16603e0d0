//! The user's tower layers, around the user's services.
//!
//! They run where tonic's `Server::builder().layer(..)` runs them: outside of the routes, and inside of everything that the
//! server does itself. Health, reflection and the mesh's own services are routed past them: their callers have no
//! credentials of the user's callers.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use tonic::{body::Body, codegen::StdError};
use tower::{
    Layer, Service, ServiceExt as _,
    util::{BoxCloneService, MapErr},
};

use super::{compression::Inflating, fault};

/// What a layer wraps: the user's services, or those in further layers. Its error is that of a layer further in.
pub type Routed = BoxCloneService<Request<Body>, Response<Body>, StdError>;

type Wrap = Box<dyn FnOnce(Routed) -> Routed + Send>;

/// Layers, the outermost first.
#[derive(Default)]
pub(super) struct Layers(Vec<Wrap>);

impl Layers {
    /// Adds one inside of those before.
    pub(super) fn add<L, B>(&mut self, layer: L)
    where
        L: Layer<Routed> + Send + 'static,
        L::Service: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
        <L::Service as Service<Request<Body>>>::Error: Into<StdError>,
        <L::Service as Service<Request<Body>>>::Future: Send,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<StdError>,
    {
        self.0.push(Box::new(move |routed| {
            let service = layer.layer(routed).map_err(Into::into);
            Routed::new(service.map_response(|response: Response<B>| response.map(Body::new)))
        }));
    }

    pub(super) fn around(self, routes: Inflating) -> Handler {
        if self.0.is_empty() {
            return Handler::Routes(routes);
        }
        let innermost = Routed::new(MapErr::new(routes, |never: Infallible| match never {}));
        Handler::Layered(self.0.into_iter().rev().fold(innermost, |routed, wrap| wrap(routed)))
    }
}

/// What answers calls.
#[derive(Clone)]
pub(super) enum Handler {
    /// Without layers a call pays for none.
    Routes(Inflating),
    /// In layers, of which the outermost may let a call wait.
    Layered(Routed),
}

impl Handler {
    pub(super) async fn call(self, request: Request<Body>) -> Response<Body> {
        match self {
            Self::Routes(mut routes) => match routes.call(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            },
            Self::Layered(routed) => {
                routed.oneshot(request).await.unwrap_or_else(|error| fault::of_layer(error).into_http())
            }
        }
    }
}
