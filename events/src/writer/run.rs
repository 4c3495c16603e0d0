//! Runs the loop, which gathers inputs while the last commit runs, and commits them as one batch.
//!
//! There is no linger: an input that comes alone is committed alone, and the busier the service, the larger its batches.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use meshwork::{
    log_limit::{LogLimit, MAX_CAUSES},
    trace,
};
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    Applied, CursorMove, Decider, Traced, WriteError, batch,
    job::{Job, JobOutcome, JobResult},
};
use crate::{outbox::Outbox, store::StoreError};

/// A batch takes jobs until it has this many inputs; a job has at most as many again. Beyond this a transaction gains nothing
/// and only holds its locks longer.
const MAX_BATCH_INPUTS: usize = 512;
/// Jobs that wait for the loop; callers beyond wait for room, as long as their deadline allows.
const MAX_QUEUED_JOBS: usize = 1024;
/// How often a batch that conflicts is repeated as a whole before its jobs are tried one by one.
const MAX_ATTEMPTS: u32 = 3;
/// A repeated batch waits this long, times a random share, times the attempt: its rival needs about a commit.
const BACKOFF: Duration = Duration::from_millis(5);
/// A batch whose connection was lost before its commit is repeated for this long: a database that was restarted is there
/// again after a second or two, and then it has cost its callers no more than that.
const UNAVAILABLE_PATIENCE: Duration = Duration::from_secs(4);

/// A handle to the writer of one service instance; clones share it.
pub struct Writer<D: Decider> {
    jobs: mpsc::Sender<Job<D>>,
    closing: CancellationToken,
    task: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl<D: Decider> Clone for Writer<D> {
    fn clone(&self) -> Self {
        Self { jobs: self.jobs.clone(), closing: self.closing.clone(), task: self.task.clone() }
    }
}

impl<D: Decider> Writer<D> {
    /// Starts the loop on `outbox`'s database.
    pub fn start(outbox: Outbox, decider: Arc<D>) -> Self {
        let (jobs, queue) = mpsc::channel(MAX_QUEUED_JOBS);
        let closing = CancellationToken::new();
        let (handle, closed) = (Handle::current(), closing.clone());
        let embedded = outbox.database().notifier().is_none();
        let run = run(outbox, decider, queue, closed);
        // On its own thread if the store is embedded: its statements run on the thread that awaits them. To a server's
        // answers the way there is only longer.
        let task = if embedded { tokio::task::spawn_blocking(move || handle.block_on(run)) } else { tokio::spawn(run) };
        Self { jobs, closing, task: Arc::new(Mutex::new(Some(task))) }
    }

    /// Submits a command and waits for its commit. Dropping the future does not take the command back.
    ///
    /// # Errors
    /// [`WriteError::Refused`], [`WriteError::Store`], [`WriteError::Closed`].
    pub async fn submit(&self, input: D::Input) -> Result<Applied<D::Reply>, WriteError<D::Refusal>> {
        let trace_parent = trace::current().map(|trace| trace.to_string()).unwrap_or_default();
        let answer = self.enqueue(vec![Traced { input, trace_parent }], None).await?;
        let mut replies = answer.await.map_err(|_| WriteError::Closed)??;
        Ok(replies.pop().expect("one answer for one input"))
    }

    /// Submits consumed events with the claim that they are next in their log. Returns once they are in the queue, so
    /// that the next batch can follow; the answer comes with their commit.
    pub(crate) async fn enqueue_consumed(
        &self,
        inputs: Vec<Traced<D::Input>>,
        claim: CursorMove,
    ) -> Result<oneshot::Receiver<JobResult<D>>, WriteError<D::Refusal>> {
        self.enqueue(inputs, Some(claim)).await
    }

    /// Commits what is in the queue, and ends.
    pub async fn close(&self) {
        self.closing.cancel();
        let task = self.task.lock().take();
        if let Some(task) = task {
            // An error is a panic; it was reported by the panic hook.
            let _ = task.await;
        }
    }

    async fn enqueue(
        &self,
        inputs: Vec<Traced<D::Input>>,
        cursor: Option<CursorMove>,
    ) -> Result<oneshot::Receiver<JobResult<D>>, WriteError<D::Refusal>> {
        let (done, answer) = oneshot::channel();
        self.jobs.send(Job { inputs, cursor, done }).await.map_err(|_| WriteError::Closed)?;
        Ok(answer)
    }
}

async fn run<D: Decider>(
    outbox: Outbox,
    decider: Arc<D>,
    mut queue: mpsc::Receiver<Job<D>>,
    closing: CancellationToken,
) {
    loop {
        // Both arms are cancel-safe: a job that was not received stays in the queue.
        let first = tokio::select! {
            job = queue.recv() => job,
            () = closing.cancelled() => {
                queue.close();
                queue.recv().await
            }
        };
        let Some(first) = first else { return };
        let (jobs, begun) = (gather(first, &mut queue), Instant::now());
        let inputs: usize = jobs.iter().map(|job| job.inputs.len()).sum();
        commit(&outbox, &*decider, jobs).await;
        metrics::histogram!("meshwork_write_batch_inputs", "decider" => name::<D>()).record(inputs as f64);
        metrics::histogram!("meshwork_write_commit_seconds", "decider" => name::<D>()).record(begun.elapsed());
    }
}

/// A decider's name in metrics: that of its type.
fn name<D>() -> &'static str {
    let path = std::any::type_name::<D>();
    path.rsplit("::").next().unwrap_or(path)
}

/// What has arrived by now, up to a batch.
fn gather<D: Decider>(first: Job<D>, queue: &mut mpsc::Receiver<Job<D>>) -> Vec<Job<D>> {
    let mut inputs = first.inputs.len();
    let mut jobs = vec![first];
    while inputs < MAX_BATCH_INPUTS {
        let Ok(job) = queue.try_recv() else { break };
        inputs += job.inputs.len();
        jobs.push(job);
    }
    jobs
}

/// Commits a batch: as a whole if possible, else job by job, so that one bad job fails alone.
async fn commit<D: Decider>(outbox: &Outbox, decider: &D, jobs: Vec<Job<D>>) {
    match attempt(outbox, decider, &jobs).await {
        Ok(outcomes) => jobs.into_iter().zip(outcomes).for_each(|(job, outcome)| job.answer(outcome)),
        Err(error) if jobs.len() == 1 || error.is_about_the_store() => fail_all(jobs, error),
        Err(error) => {
            // A command that the store refuses may be sent again and again.
            static LIMIT: LogLimit = LogLimit::new(MAX_CAUSES);
            if let Some(left_out) = LIMIT.pass_once(error.to_string()) {
                tracing::warn!(%error, jobs = jobs.len(), "a batch failed; its jobs are tried one by one{left_out}");
            }
            for job in jobs {
                Box::pin(commit(outbox, decider, vec![job])).await;
            }
        }
    }
}

/// Runs a batch, and repeats it while it conflicts with others or the database is unreachable. Never after a commit whose
/// answer was lost: commands in it would take effect twice.
async fn attempt<D: Decider>(outbox: &Outbox, decider: &D, jobs: &[Job<D>]) -> Result<Vec<JobOutcome<D>>, StoreError> {
    let give_up = Instant::now() + UNAVAILABLE_PATIENCE;
    let mut attempt = 1;
    loop {
        // A panic ends its own job and not the loop, which every caller of this service depends on.
        let run = AssertUnwindSafe(batch::run(decider, outbox, jobs)).catch_unwind().await;
        let result = run.unwrap_or(Err(StoreError::Panicked));
        let repeat = match &result {
            Err(StoreError::Conflict(_)) => attempt < MAX_ATTEMPTS,
            Err(StoreError::Unavailable(_)) => Instant::now() < give_up,
            Ok(_) | Err(_) => false,
        };
        if matches!(result, Err(StoreError::CommitUnknown(_))) {
            outbox.look_behind();
        }
        if !repeat {
            return result;
        }
        metrics::counter!("meshwork_write_repeats_total", "decider" => name::<D>()).increment(1);
        tokio::time::sleep(BACKOFF.mul_f64(rand::random::<f64>() * f64::from(attempt))).await;
        attempt += 1;
    }
}

fn fail_all<D: Decider>(jobs: Vec<Job<D>>, error: StoreError) {
    let error = Arc::new(error);
    for job in jobs {
        job.finish(Err(WriteError::Store(error.clone())));
    }
}
