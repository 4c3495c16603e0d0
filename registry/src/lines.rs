//! What clients can make a registry log, each kind of line a bounded number of times a minute.

use meshwork::log_limit::LogLimit;

use crate::limits::MAX_LINES;

/// The bounds, one for each kind of line.
pub(crate) struct Lines {
    pub(crate) refused: LogLimit,
    pub(crate) not_allowed: LogLimit,
    pub(crate) registered: LogLimit,
    pub(crate) deregistered: LogLimit,
    pub(crate) status_set: LogLimit,
    pub(crate) policy_set: LogLimit,
    pub(crate) adopted: LogLimit,
    pub(crate) authorization_set: LogLimit,
    pub(crate) bound: LogLimit,
    pub(crate) not_bound: LogLimit,
    pub(crate) of_others: LogLimit,
}

impl Default for Lines {
    fn default() -> Self {
        let limit = || LogLimit::new(MAX_LINES);
        Self {
            refused: limit(),
            not_allowed: limit(),
            registered: limit(),
            deregistered: limit(),
            status_set: limit(),
            policy_set: limit(),
            adopted: limit(),
            authorization_set: limit(),
            bound: limit(),
            not_bound: LogLimit::new(1),
            of_others: limit(),
        }
    }
}
