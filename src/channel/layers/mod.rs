//! What every call goes through, one file for each layer, outermost first.

pub(crate) mod timeout;

pub(crate) mod retry;

pub(crate) mod budget;

pub(crate) mod hedge;

pub(crate) mod commit;

pub(crate) mod transparent;

pub(crate) mod dispatch;
