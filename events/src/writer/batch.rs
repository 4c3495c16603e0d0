//! Runs one batch in one transaction: claims cursors, loads rows, decides in memory, writes what changed.

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::{
    CursorMove, Decider, Rows,
    cursor::Cursors,
    job::{Applied, Job, JobOutcome, Traced},
};
use crate::{
    outbox::{LogPoint, NewEvent, Outbox},
    store::StoreError,
};

/// Runs `jobs` in one transaction and answers what became of each, in order.
///
/// # Errors
/// [`StoreError`], and then nothing has changed.
pub(super) async fn run<D: Decider>(
    decider: &D,
    outbox: &Outbox,
    jobs: &[Job<D>],
) -> Result<Vec<JobOutcome<D>>, StoreError> {
    let mut tx = outbox.database().begin().await?;
    let cursors = Cursors::lock(&mut *tx, jobs.iter().filter_map(|job| job.cursor.as_ref())).await?;
    let keys = keys(decider, jobs);
    let rows = if keys.is_empty() { Vec::new() } else { decider.load(&mut *tx, &keys).await? };

    let mut batch =
        Batch::<D> { rows: rows.into_iter().collect(), changed: BTreeSet::new(), events: Vec::new(), cursors };
    let decisions: Vec<Decision<D>> = jobs.iter().map(|job| batch.decide_job(decider, job)).collect();

    let changed = batch.changed_rows();
    if !changed.is_empty() {
        decider.save(&mut *tx, &changed).await?;
    }
    let events = outbox.append(&mut *tx, batch.events).await?;
    batch.cursors.save(&mut *tx).await?;
    tx.commit().await?;

    let points: Vec<_> = events.iter().map(LogPoint::of).collect();
    if batch.cursors.have_moved() {
        outbox.notify_others();
    }
    outbox.publish(events);
    if !changed.is_empty() {
        // Not as if the batch had failed: its jobs would be done once more.
        let told = catch_unwind(AssertUnwindSafe(|| decider.committed(&changed)));
        if told.is_err() {
            tracing::error!("a decider panicked after a commit; the commit stands");
        }
    }
    Ok(decisions.into_iter().map(|decision| decision.outcome(&points)).collect())
}

/// The keys of all inputs, sorted and unique: the order in which every transaction locks them.
fn keys<D: Decider>(decider: &D, jobs: &[Job<D>]) -> Vec<D::Key> {
    let mut keys = Vec::new();
    jobs.iter().flat_map(|job| &job.inputs).for_each(|caused| decider.keys(&caused.input, &mut keys));
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// The state of a batch between its reads and its writes.
struct Batch<D: Decider> {
    rows: Rows<D::Key, D::Row>,
    changed: BTreeSet<D::Key>,
    events: Vec<NewEvent>,
    cursors: Cursors,
}

/// An outcome whose events have no positions yet: each reply comes with the index behind its last event, if it has any.
enum Decision<D: Decider> {
    Accepted(Vec<(D::Reply, Option<usize>)>),
    Refused(D::Refusal),
    Fenced,
}

/// A row as it was before an input: what takes the input back.
type Undo<D> = (<D as Decider>::Key, Option<<D as Decider>::Row>);

impl<D: Decider> Batch<D> {
    fn decide_job(&mut self, decider: &D, job: &Job<D>) -> Decision<D> {
        if !job.cursor.as_ref().is_none_or(|claim| self.cursors.advance(claim)) {
            return Decision::Fenced;
        }
        let events_before = self.events.len();
        let mut undo = Vec::new();
        let mut replies = Vec::with_capacity(job.inputs.len());
        for Traced { input, trace_parent } in &job.inputs {
            match decider.decide(&self.rows, input) {
                Ok(mut outcome) => {
                    outcome.events.iter_mut().for_each(|event| event.trace_parent.clone_from(trace_parent));
                    let position = (!outcome.events.is_empty()).then(|| self.events.len() + outcome.events.len());
                    self.apply(outcome.rows, &mut undo);
                    self.events.extend(outcome.events);
                    replies.push((outcome.reply, position));
                }
                Err(refusal) => {
                    self.events.truncate(events_before);
                    self.take_back(undo, job.cursor.as_ref());
                    return Decision::Refused(refusal);
                }
            }
        }
        Decision::Accepted(replies)
    }

    fn apply(&mut self, rows: Vec<(D::Key, D::Row)>, undo: &mut Vec<Undo<D>>) {
        for (key, row) in rows {
            let before = self.rows.insert(key.clone(), row);
            self.changed.insert(key.clone());
            undo.push((key, before));
        }
    }

    /// The rows stay marked as changed: writing a row as it was is harmless, and a refusal behind accepted inputs of the
    /// same job is rare.
    fn take_back(&mut self, undo: Vec<Undo<D>>, claim: Option<&CursorMove>) {
        for (key, before) in undo.into_iter().rev() {
            match before {
                Some(row) => drop(self.rows.insert(key, row)),
                None => drop(self.rows.remove(&key)),
            }
        }
        if let Some(claim) = claim {
            self.cursors.take_back(claim);
        }
    }

    fn changed_rows(&self) -> Vec<(D::Key, D::Row)> {
        let row = |key: &D::Key| self.rows.get(key).map(|row| (key.clone(), row.clone()));
        self.changed.iter().filter_map(row).collect()
    }
}

impl<D: Decider> Decision<D> {
    fn outcome(self, points: &[LogPoint]) -> JobOutcome<D> {
        match self {
            Self::Accepted(replies) => JobOutcome::Accepted(
                replies
                    .into_iter()
                    .map(|(reply, end)| Applied { reply, point: end.map(|end| points[end - 1]) })
                    .collect(),
            ),
            Self::Refused(refusal) => JobOutcome::Refused(refusal),
            Self::Fenced => JobOutcome::Fenced,
        }
    }
}
