//! A mesh at rest: what still moves, which instances are listed, and what is said of lost events.

use super::finding::{Finding, Kind};
use crate::evidence::{Evidence, Listing, LostToken, Subscription};

pub(super) fn check(evidence: &Evidence) -> Vec<Finding> {
    let lost = evidence.lost_tokens.iter().filter(|token| token.answer != "POSITION_LOST").map(
        |LostToken { view, order_id, answer }| {
            Finding::new(Kind::View, format!("{view}: asked for lost order {order_id} by its token: {answer}"))
        },
    );
    let frozen = evidence.subscriptions.iter().filter(|subscription| !subscription.problem.is_empty()).map(
        |Subscription { instance, source, problem }| {
            Finding::new(Kind::Frozen, format!("{instance} does not read {source}: {problem}"))
        },
    );
    let listings = evidence.listings.iter().flat_map(|Listing { registry, listed, running }| {
        let missing = running.difference(listed).map(move |address| format!("{registry} does not list {address}"));
        let gone = listed.difference(running).map(move |address| format!("{registry} lists {address}, which is gone"));
        missing.chain(gone).map(|what| Finding::new(Kind::Listing, what))
    });
    lost.chain(frozen).chain(listings).collect()
}
