//! Sends back the metadata that the case `custom_metadata` sends: a tower layer, since tonic gives handlers no trailers.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Status, body::Body};
use tower::Service;

use crate::{ECHO_INITIAL, ECHO_TRAILING};

/// Sends [`ECHO_INITIAL`] back with the headers, and [`ECHO_TRAILING`] with the trailers.
#[derive(Clone, Copy, Debug)]
pub struct Echo;

impl<S> tower::Layer<S> for Echo {
    type Service = EchoService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        EchoService(inner)
    }
}

/// The service that [`Echo`] makes.
#[derive(Clone, Debug)]
pub struct EchoService<S>(S);

impl<S> Service<Request<Body>> for EchoService<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let sent = |name| request.headers().get(name).cloned();
        let (initial, trailing) = (sent(ECHO_INITIAL), sent(ECHO_TRAILING));
        let response = self.0.call(request);
        Box::pin(async move {
            let mut response = response.await?;
            if let Some(value) = initial {
                response.headers_mut().insert(HeaderName::from_static(ECHO_INITIAL), value);
            }
            Ok(match trailing {
                Some(value) => response.map(|inner| Body::new(WithTrailer { inner, value })),
                None => response,
            })
        })
    }
}

/// A body whose trailers have one entry more.
struct WithTrailer {
    inner: Body,
    value: HeaderValue,
}

impl HttpBody for WithTrailer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
        {
            trailers.insert(HeaderName::from_static(ECHO_TRAILING), self.value.clone());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
