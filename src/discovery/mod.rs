//! Who is there: the instances of every service, and this one among them.

pub(crate) mod announce;
