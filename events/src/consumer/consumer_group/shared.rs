//! Members as rows of the consumers' shared database.
//!
//! ```text
//!   join: row, notify              the others see a new row, and send a heartbeat at once
//!     |   heartbeat every 50 ms    <- a member whose heartbeat moves, lives
//!     v   300 ms later: assignment, notify    the others see this heartbeat move, and assign anew
//!   member: a heartbeat each second; reads the rows then, and when notified
//!     |
//!     v   leave: row deleted, notify          its partitions are read again within a round trip
//! ```
//!
//! A crash notifies no process: the others read the member's partitions after the lease, at most six seconds later. Without
//! the introduction a new member would contend for the partitions of members whose heartbeats it has not seen move yet, which
//! is harmless but slow. The column of the heartbeat is `beat`.

use std::{collections::BTreeSet, time::Duration};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::assignment::{Assignment, assign};
use crate::{
    store::{Database, Notifier, Sql, StoreError, Topic},
    writer::CursorName,
};

/// A fifth of the lease: four may be late or lost.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// How long a new member waits for the others' heartbeats to move: some round trips through the database on a busy machine.
const INTRODUCTION: Duration = Duration::from_millis(300);
/// How often it looks, meanwhile.
const INTRODUCTION_INTERVAL: Duration = Duration::from_millis(50);
/// A database that does not answer must not hold up a shutdown: then the lease runs out.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// A member's row, kept alive by its own task.
pub(super) struct Member {
    leaving: CancellationToken,
    task: JoinHandle<()>,
}

impl Member {
    /// Joins the group that shares the cursors of this name; its assignments go to `sender`.
    pub(super) fn join(database: Database, cursor: CursorName, sender: watch::Sender<BTreeSet<u32>>) -> Self {
        let leaving = CancellationToken::new();
        let member_id = meshwork::id::new_id().to_string();
        let assignment = Assignment::new(member_id.clone());
        let member = MemberTask { database, cursor, member_id, assignment, sender };
        let task = tokio::spawn(member.run(leaving.clone()));
        Self { leaving, task }
    }

    /// Deletes the row, and notifies the others.
    pub(super) async fn leave(mut self) {
        self.leaving.cancel();
        // An error is a panic; it was reported by the panic hook.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct MemberTask {
    database: Database,
    cursor: CursorName,
    member_id: String,
    assignment: Assignment,
    sender: watch::Sender<BTreeSet<u32>>,
}

impl MemberTask {
    async fn run(mut self, leaving: CancellationToken) {
        // Not cut off in the middle of a statement, but between two of them.
        tokio::select! {
            () = leaving.cancelled() => {}
            () = self.stay() => {}
        }
        if !matches!(timeout(LEAVE_TIMEOUT, self.delete(&self.member_id, None)).await, Ok(Ok(()))) {
            tracing::debug!(cursor = &*self.cursor, "could not leave cleanly; the lease will expire");
        }
        self.notifier().notify(Topic::Members);
    }

    async fn stay(&mut self) {
        let mut notified = self.notifier().subscribe(Topic::Members);
        self.introduce().await;
        let mut heartbeat_at = Instant::now();
        loop {
            let due = Instant::now() >= heartbeat_at;
            if due {
                heartbeat_at = Instant::now() + HEARTBEAT_INTERVAL;
            }
            self.look(due).await;
            assign(&self.sender, self.assignment.partitions(Instant::now()));
            if due {
                self.forget().await;
            }
            // Both arms are cancel-safe; after either it looks anew.
            tokio::select! {
                () = tokio::time::sleep_until(heartbeat_at) => {}
                changed = notified.changed() => changed.expect("the database is held here"),
            }
        }
    }

    /// Lets the others show that they live, before it takes partitions from them.
    async fn introduce(&mut self) {
        let until = Instant::now() + INTRODUCTION;
        self.look(true).await;
        self.notifier().notify(Topic::Members);
        while self.assignment.has_unknown() && Instant::now() < until {
            tokio::time::sleep(INTRODUCTION_INTERVAL).await;
            self.look(true).await;
        }
        self.look(true).await;
        self.notifier().notify(Topic::Members);
    }

    /// Reads the members' rows, and sends a heartbeat if it is due or a new member looks for it. A failure changes nothing:
    /// the cursors fence a member that is wrong.
    async fn look(&mut self, due: bool) {
        let looked = async {
            if due {
                self.heartbeat().await?;
            }
            let rows = self.rows().await?;
            if self.assignment.observe(Instant::now(), rows) && !due {
                self.heartbeat().await?;
            }
            Ok::<_, StoreError>(())
        };
        if let Err(error) = looked.await {
            tracing::debug!(cursor = &*self.cursor, %error, "members could not be read; retrying");
        }
    }

    async fn heartbeat(&self) -> Result<(), StoreError> {
        let upsert = Sql::new("insert into consumer_member (source, member_id, beat) ")
            .values([[(*self.cursor).into(), self.member_id.as_str().into(), 1.into()]])
            .push(" on conflict (source, member_id) do update set beat = consumer_member.beat + 1");
        self.write(upsert).await
    }

    async fn rows(&self) -> Result<Vec<(String, i64)>, StoreError> {
        let select = Sql::new("select member_id, beat from consumer_member where source = ").arg(&*self.cursor);
        let rows = self.database.read(select).await?;
        rows.iter().map(|row| Ok((row.text(0)?.to_owned(), row.int(1)?))).collect()
    }

    async fn forget(&self) {
        for (member_id, heartbeat) in self.assignment.forgotten(Instant::now()) {
            // Unless it has moved meanwhile. A failure is tried again with the next heartbeat.
            let _ = self.delete(&member_id, Some(heartbeat)).await;
        }
    }

    async fn delete(&self, member_id: &str, heartbeat: Option<i64>) -> Result<(), StoreError> {
        let delete = Sql::new("delete from consumer_member where source = ").arg(&*self.cursor);
        let delete = delete.push(" and member_id = ").arg(member_id);
        self.write(match heartbeat {
            Some(heartbeat) => delete.push(" and beat = ").arg(heartbeat),
            None => delete,
        })
        .await
    }

    async fn write(&self, sql: Sql) -> Result<(), StoreError> {
        let mut tx = self.database.begin().await?;
        tx.execute(sql).await?;
        tx.commit().await
    }

    fn notifier(&self) -> &Notifier {
        self.database.notifier().expect("only a shared database has rows of members")
    }
}
