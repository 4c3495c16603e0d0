//! The layers that every call goes through, outermost first, one file each; and what two of them share: the budget of retries and
//! hedges, and the timer of an attempt.

pub(crate) mod retry;

pub(crate) mod hedge;

pub(crate) mod commit;

pub(crate) mod transparent;

pub(crate) mod dispatch;

pub(crate) mod budget;

pub(crate) mod timeout;
