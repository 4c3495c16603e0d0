//! How an endpoint answers. Pure: the randomness and the number of the call are passed in.

use std::time::Duration;

use super::contract::{BehaveRequest, Behaviour as Kind};

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is answered after this time.
    Answered(Duration),
    /// It is UNAVAILABLE at once.
    Refused,
    /// Nothing is ever heard of it.
    Lost,
}

/// How an endpoint answers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Behaviour {
    kind: Kind,
    latency: Duration,
    deviation: Duration,
}

impl Behaviour {
    /// The fate of the `number`th call. `normal` is drawn from the standard normal distribution.
    pub(super) fn fate(&self, number: u64, normal: f64) -> Fate {
        match self.kind {
            Kind::Unspecified => Fate::Answered(Duration::ZERO),
            Kind::Refusing => Fate::Refused,
            Kind::Flaky if number % 2 == 1 => Fate::Refused,
            Kind::Silent => Fate::Lost,
            Kind::Spread | Kind::Flaky => {
                let seconds = self.latency.as_secs_f64() + normal * self.deviation.as_secs_f64();
                Fate::Answered(Duration::from_secs_f64(seconds.max(0.0)))
            }
        }
    }
}

impl From<BehaveRequest> for Behaviour {
    fn from(request: BehaveRequest) -> Self {
        let time = |time: Option<prost_types::Duration>| {
            time.and_then(|time| Duration::try_from(time).ok()).unwrap_or_default()
        };
        Self { kind: request.behaviour(), latency: time(request.latency), deviation: time(request.deviation) }
    }
}

/// A number of the standard normal distribution out of twelve of the uniform one (Irwin-Hall).
pub(super) fn normal(mut uniform: impl FnMut() -> f64) -> f64 {
    (0..12).map(|_| uniform()).sum::<f64>() - 6.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn behaviour(kind: Kind) -> Behaviour {
        Behaviour { kind, latency: Duration::from_millis(167), deviation: Duration::from_millis(5) }
    }

    #[test]
    fn a_flaky_endpoint_refuses_every_second_call() {
        let fates = (0..4).map(|number| behaviour(Kind::Flaky).fate(number, 0.0));
        let answered = Fate::Answered(Duration::from_millis(167));
        assert_eq!(fates.collect::<Vec<_>>(), [answered, Fate::Refused, answered, Fate::Refused]);
    }

    #[test]
    fn latency_spreads_around_its_mean_and_is_never_negative() {
        let fate = |normal| behaviour(Kind::Spread).fate(0, normal);
        assert_eq!(fate(2.0), Fate::Answered(Duration::from_millis(177)));
        assert_eq!(fate(-100.0), Fate::Answered(Duration::ZERO));
        assert!((normal(|| 0.5)).abs() < f64::EPSILON);
    }
}
