//! When a connection is pinged: a pure rule, one for each endpoint (gRFC A8).
//!
//! | the server | a PING after this long without a sign of life | also while no call is under way |
//! |---|---|---|
//! | takes PINGs at any time, as Meshwork's do | 10 s | yes: a half-open connection is found before a call needs it |
//! | any other | 5 min, what gRPC servers allow | no |
//! | has complained (`too_many_pings`) | twice as long as before, from 5 min up to 2 h | no |
//!
//! Servers of Go, Java and C++ end a connection on the third PING that is too early for them, with GOAWAY, ENHANCE_YOUR_CALM and
//! the debug data `too_many_pings`. All calls on it end with it, so that it must not happen again and again.

use std::{error::Error, time::Duration};

use h2::Reason;

/// To a server that takes PINGs at any time.
const FAST: Keepalive = Keepalive { interval: Duration::from_secs(10), while_idle: true };
/// To any other. gRPC servers take a PING each 5 min while a call is under way; on its way one may catch up with the one before.
const PATIENT: Keepalive = Keepalive { interval: Duration::from_secs(5 * 60 + 10), while_idle: false };
/// What gRPC servers accept even without a call under way: none requires a longer interval.
const LONGEST: Duration = Duration::from_secs(2 * 60 * 60);

/// The debug data of gRFC A8, as h2 prints it. h2 gives it in no other way.
const TOO_MANY_PINGS: &str = "(b\"too_many_pings\")";

/// How a connection is pinged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Keepalive {
    /// A PING is sent after this long without a sign of life.
    pub(crate) interval: Duration,
    /// Also while no call is under way.
    pub(crate) while_idle: bool,
}

/// What an endpoint has shown of the PINGs that it takes. It outlives connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PingRecord {
    /// The interval that it was driven to by complaints.
    slowed: Option<Duration>,
}

impl PingRecord {
    /// How the next connection is pinged, if the server `takes_pings` at any time as far as is known.
    pub(crate) fn keepalive(self, takes_pings: bool) -> Keepalive {
        match self.slowed {
            Some(interval) => Keepalive { interval, while_idle: false },
            None if takes_pings => FAST,
            None => PATIENT,
        }
    }

    /// The server has complained about a connection that was pinged like that.
    pub(crate) fn complained(&mut self, about: Keepalive) -> Keepalive {
        let slowed = (about.interval * 2).clamp(PATIENT.interval, LONGEST);
        // An older connection may be complained about after a newer one.
        self.slowed = self.slowed.max(Some(slowed));
        self.keepalive(false)
    }
}

/// Whether a connection has ended because its server found its PINGs too many.
pub(crate) fn is_too_many_pings(error: &hyper::Error) -> bool {
    ended_with(error, Reason::ENHANCE_YOUR_CALM).is_some_and(|cause| cause.to_string().ends_with(TOO_MANY_PINGS))
}

/// The GOAWAY with this reason by which the server has ended a connection.
pub(super) fn ended_with(error: &hyper::Error, reason: Reason) -> Option<&h2::Error> {
    let cause = error.source()?.downcast_ref::<h2::Error>()?;
    (cause.is_go_away() && cause.is_remote() && cause.reason() == Some(reason)).then_some(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_pinged_as_often_as_it_is_known_to_allow() {
        assert_eq!(PingRecord::default().keepalive(true), FAST);
        assert_eq!(PingRecord::default().keepalive(false), PATIENT);
    }

    #[test]
    fn each_complaint_doubles_the_interval_and_ends_idle_pings() {
        let minutes = |interval: Duration| interval.as_secs() / 60;
        for (takes_pings, expected) in [(true, [5, 10, 20, 41, 82, 120, 120]), (false, [10, 20, 41, 82, 120, 120, 120])]
        {
            let mut record = PingRecord::default();
            for expected in expected {
                let told = record.complained(record.keepalive(takes_pings));
                assert_eq!((minutes(told.interval), told.while_idle), (expected, false));
                assert_eq!(record.keepalive(takes_pings), told, "for good");
            }
        }
    }

    #[test]
    fn a_late_complaint_about_an_older_connection_makes_nothing_faster() {
        let mut record = PingRecord::default();
        record.complained(PATIENT);
        let slow = record.keepalive(true);
        assert_eq!(record.complained(FAST), slow);
    }
}
