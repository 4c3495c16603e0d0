//! The durations of a method's calls, by their final code.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use metrics::{Histogram, Label, histogram};
use tokio::time::Instant;
use tonic::Code;

use super::code_name;

/// gRPC has the codes 0 to 16.
const CODES: usize = 17;

/// The histograms of one method. Each is looked up once: a recorder that is installed after the first call that ends with a code
/// never sees calls that end with it.
#[derive(Debug)]
pub(crate) struct CallDuration {
    name: &'static str,
    labels: Vec<Label>,
    by_code: [OnceLock<Histogram>; CODES],
}

impl CallDuration {
    /// The metric `name` with these labels, and with `rpc_system_name` and `rpc_response_status_code`.
    pub(crate) fn new(name: &'static str, mut labels: Vec<Label>) -> Self {
        labels.insert(0, Label::from_static_parts("rpc_system_name", "grpc"));
        Self { name, labels, by_code: [const { OnceLock::new() }; CODES] }
    }

    fn record(&self, code: Code, took: Duration) {
        let index = usize::try_from(i32::from(code)).expect("codes are not negative");
        let histogram = self.by_code[index].get_or_init(|| {
            let code = Label::from_static_parts("rpc_response_status_code", code_name(code));
            let labels: Vec<_> = self.labels.iter().cloned().chain([code]).collect();
            histogram!(self.name, labels)
        });
        histogram.record(took);
    }
}

/// A call that is recorded when it is dropped; as CANCELLED if it had not ended by then.
#[derive(Debug)]
pub(crate) struct Timed {
    duration: Arc<CallDuration>,
    begun: Instant,
    /// How long its answer took to begin.
    took: Option<Duration>,
    code: Code,
}

impl Timed {
    /// A call that begins now.
    pub(crate) fn begin(duration: Arc<CallDuration>) -> Self {
        Self { duration, begun: Instant::now(), took: None, code: Code::Cancelled }
    }

    /// The answer has begun, or it is known that none will come.
    pub(crate) fn answered(&mut self) {
        self.took = Some(self.begun.elapsed());
    }

    /// The code that it ends with, as far as that is known.
    pub(crate) fn code(&self) -> Code {
        self.code
    }

    /// The call has ended with this code.
    pub(crate) fn ended(&mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        self.duration.record(self.code, self.took.unwrap_or_else(|| self.begun.elapsed()));
    }
}
