//! Bodies: of a request that may be sent again, of an answer, and of an answer as its caller reads it.

pub(crate) mod request;

pub(crate) mod response;

pub(crate) mod observed;

pub(crate) mod upload;

mod recording;
