//! What every rpc handler needs besides its rules: errors with details, pages, durations, and opaque tokens.

mod call_duration;
mod code;
mod duration;
mod framing;
mod page;
mod status;
mod stream_end;
mod token;
mod transport;

pub use code::{code_name, may_pass};
pub use duration::duration;
pub use page::Page;
pub use status::{Domain, Violations};
pub(crate) use stream_end::connection_ends_status;
pub use stream_end::{draining_status, not_serving_status};
pub use token::{InvalidToken, decode_token, encode_token};
pub use transport::Transport;

pub(crate) use call_duration::{CallDuration, Timed};
pub(crate) use code::{code_in, code_of, has_grpc_type};
pub(crate) use framing::{Framing, PREFIX, Prefix};
pub(crate) use stream_end::SERVER;
