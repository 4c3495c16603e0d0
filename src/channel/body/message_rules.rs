//! What the messages of an answer must keep to: their size, and their number if the method has one response.
//!
//! A message that is too large is RESOURCE_EXHAUSTED (gRPC's statuscodes.md); tonic's decoder would say OUT_OF_RANGE. It is refused at
//! its length, before any of it is kept. Of two messages where one is due tonic would drop the second without a word: INTERNAL.

use tonic::Status;

use crate::rpc::{Framing, Prefix};

/// Bytes of one message of an answer, by default: as everywhere in gRPC.
pub(crate) const MAX_MESSAGE_SIZE: usize = 4 * 1024 * 1024;

/// How many messages an answer may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Responses {
    /// One at most: the endpoints declare the method as unary.
    One,
    /// Any number: the method streams, or it is not known whether it does.
    Any,
}

/// The rules, and where in the answer they stand.
#[derive(Debug)]
pub(crate) struct MessageRules {
    max_size: usize,
    responses: Responses,
    framing: Framing,
    begun: bool,
}

impl MessageRules {
    pub(crate) fn new(max_size: usize, responses: Responses) -> Self {
        Self { max_size, responses, framing: Framing::default(), begun: false }
    }

    /// Reads on; fails at the first message that breaks a rule.
    pub(crate) fn check(&mut self, data: &[u8]) -> Result<(), Status> {
        let Self { max_size, responses, framing, begun } = self;
        framing.read(data, |Prefix { length, .. }| {
            if length > *max_size {
                return Err(Status::resource_exhausted(format!(
                    "a message of the answer has {length} bytes, which is more than the limit of {max_size} bytes"
                )));
            }
            if *responses == Responses::One && *begun {
                return Err(Status::internal("the answer has several messages, and the method has exactly one"));
            }
            *begun = true;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(chunk: usize, max_size: usize, responses: Responses, bytes: &[u8]) -> Option<tonic::Code> {
        let mut rules = MessageRules::new(max_size, responses);
        bytes.chunks(chunk).find_map(|chunk| rules.check(chunk).err()).map(|status| status.code())
    }

    #[test]
    fn however_an_answer_is_cut_a_message_too_large_or_too_many_is_found() {
        use tonic::Code::{Internal, ResourceExhausted};
        let two = [0, 0, 0, 0, 1, 7, 1, 0, 0, 0, 2, 7, 7];
        for chunk in 1..=two.len() {
            assert_eq!(code(chunk, 2, Responses::Any, &two), None);
            assert_eq!(code(chunk, 1, Responses::Any, &two), Some(ResourceExhausted));
            assert_eq!(code(chunk, 2, Responses::One, &two), Some(Internal));
            assert_eq!(code(chunk, 2, Responses::One, &two[..6]), None);
            assert_eq!(
                code(chunk, 2, Responses::One, &[0, 255, 255, 255, 255]),
                Some(ResourceExhausted),
                "at its length"
            );
        }
    }
}
