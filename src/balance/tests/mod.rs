//! The picker with gates that are opened and closed by hand, under a paused clock.

mod ejection;
mod picks;
mod queue;
mod shares;
mod tail;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rand::{SeedableRng as _, rngs::SmallRng};
use tokio::time::{Instant, advance};

use super::*;
use crate::policy::Policy;

#[derive(Clone)]
struct FakeLink {
    name: &'static str,
    ended: Arc<AtomicBool>,
}

impl Link for FakeLink {
    fn is_closed(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }
}

fn link(name: &'static str) -> FakeLink {
    FakeLink { name, ended: Arc::default() }
}

struct Bench {
    picker: Picker<FakeLink>,
    gates: BTreeMap<&'static str, (Key, Arc<Gate<FakeLink>>)>,
}

impl Bench {
    /// Endpoints with open gates.
    fn new(names: &[&'static str]) -> Self {
        let mut bench = Self::within("");
        for name in names {
            bench.add(name).open(link(name));
        }
        bench
    }

    /// No endpoints, for calls that are made in `zone`.
    fn within(zone: &str) -> Self {
        Self { picker: Picker::from_rng(zone.into(), SmallRng::seed_from_u64(7)), gates: BTreeMap::new() }
    }

    fn add(&mut self, name: &'static str) -> Arc<Gate<FakeLink>> {
        self.add_with(name, Traits::default())
    }

    fn add_with(&mut self, name: &'static str, traits: Traits) -> Arc<Gate<FakeLink>> {
        let (key, gate) = self.picker.insert(traits);
        self.gates.insert(name, (key, gate.clone()));
        gate
    }

    fn gate(&self, name: &str) -> &Gate<FakeLink> {
        &self.gates[name].1
    }

    fn remove(&self, name: &str) {
        self.picker.remove(self.gates[name].0);
    }

    fn set_policy(&self, change: impl FnOnce(&mut Policy)) {
        let mut policy = Policy::default();
        change(&mut policy);
        self.picker.set_policy(Arc::new(policy));
    }

    fn pick(&self) -> Option<Pick<FakeLink>> {
        match self.picker.pick(None).expect("room in the queue") {
            Picked::Now(pick) => Some(pick),
            Picked::Later(_) => None,
        }
    }

    /// Picks until it is that endpoint's turn, while the others are busy with the picks before.
    fn pick_of(&self, name: &str) -> Pick<FakeLink> {
        let mut others = Vec::new();
        loop {
            let pick = self.pick().expect("somebody is ready");
            if pick.link.name == name {
                return pick;
            }
            others.push(pick);
            assert!(others.len() < 1000, "{name} is never picked");
        }
    }

    /// How often each is picked, by calls that take no time.
    fn shares(&self, picks: usize) -> BTreeMap<&'static str, usize> {
        let mut shares = BTreeMap::new();
        for _ in 0..picks {
            let mut pick = self.pick().expect("somebody is ready");
            pick.call.answered(Outcome::Served);
            *shares.entry(pick.link.name).or_default() += 1;
        }
        shares
    }

    /// Calls of that endpoint that end so.
    fn calls(&self, name: &str, outcomes: impl IntoIterator<Item = Outcome>) {
        for outcome in outcomes {
            self.pick_of(name).call.answered(outcome);
        }
    }
}
