//! Bodies of an answer: as the channel reads it, and as its caller does.

pub(crate) mod response;

pub(crate) mod message_rules;

pub(crate) mod observed;
