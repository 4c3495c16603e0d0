//! The connection of an endpoint: made again and again, and driven by one task.

pub(crate) mod connector;

pub(crate) mod connect;

pub(crate) mod drive;

pub(crate) mod write_buffer;

pub(crate) mod coalesce_wakes;

pub(crate) mod deferred_drop;
