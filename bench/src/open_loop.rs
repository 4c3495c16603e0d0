//! The open loop: calls that begin in their time, whatever becomes of those before them, and whose latency counts from there.
//!
//! A closed loop asks less of a mesh the slower it is, and so leaves out most of what its users would have waited.

use std::{future::Future, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

/// A call, or an order, that has ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    /// When it was to begin, from the start of the load.
    pub(crate) due: Duration,
    /// From then to its end.
    pub(crate) took: Duration,
    /// Why it failed, if it has.
    pub(crate) failure: Option<String>,
}

/// Begins `per_s` calls a second, evenly, for `time`, and waits for all of them: every call must have a deadline.
pub(crate) async fn offer<C, F>(per_s: u32, time: Duration, call: C) -> Vec<Ended>
where
    C: FnMut() -> F,
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    offer_while(per_s, |due| due < time, call).await
}

/// The same for as long as `more` says so of a call that is due next.
pub(crate) async fn offer_while<C, F>(per_s: u32, more: impl Fn(Duration) -> bool, mut call: C) -> Vec<Ended>
where
    C: FnMut() -> F,
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    let begin = Instant::now();
    let (mut ended, mut under_way) = (Vec::new(), JoinSet::new());
    for number in 0.. {
        let due = Duration::from_secs(1) * number / per_s;
        if !more(due) {
            break;
        }
        sleep_until(begin + due).await;
        let call = call();
        under_way.spawn(async move {
            let failure = call.await.err();
            Ended { due, took: begin.elapsed().saturating_sub(due), failure }
        });
        while let Some(call) = under_way.try_join_next() {
            ended.push(call.expect("a call does not panic"));
        }
    }
    ended.extend(under_way.join_all().await);
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn calls_begin_in_their_time_although_one_fails_and_another_is_slow() {
        let mut number = 0;
        let ended = offer(10, Duration::from_secs(1), || {
            number += 1;
            let number = number;
            async move {
                tokio::time::sleep(Duration::from_millis(if number == 1 { 5000 } else { 10 })).await;
                if number == 2 { Err("refused".to_owned()) } else { Ok(()) }
            }
        })
        .await;
        assert_eq!(ended.len(), 10);
        assert_eq!(ended.iter().filter(|ended| ended.failure.is_some()).count(), 1);
        assert_eq!(ended.iter().map(|ended| ended.due).max(), Some(Duration::from_millis(900)));
        assert!(ended.iter().filter(|ended| ended.took > Duration::from_millis(20)).count() <= 1, "{ended:?}");
    }
}
