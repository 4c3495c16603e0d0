//! The transport of a generated client.

use bytes::Bytes;
use tonic::{body::Body, client::GrpcService};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What a generated client can send its calls through: a channel of the mesh, or a server itself. Only a name
/// for the bounds.
pub trait Transport:
    GrpcService<
        Body,
        Future: Send,
        Error: Into<BoxError>,
        ResponseBody: http_body::Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static,
    > + Clone
    + Send
    + Sync
    + 'static
{
}

impl<T> Transport for T where
    T: GrpcService<
            Body,
            Future: Send,
            Error: Into<BoxError>,
            ResponseBody: http_body::Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static,
        > + Clone
        + Send
        + Sync
        + 'static
{
}
