//! Members as rows of the consumers' shared database.
//!
//! ```text
//!   join: row, "members!"          the others see a new row, and beat at once
//!     |   beats every 50 ms        <- who of them moves, lives
//!     v   300 ms later: a share, "members!"   the others see this one move, and share out anew
//!   member: a beat each second; reads the rows then, and when told
//!     |
//!     v   leave: row deleted, "members!"      its share is read again within a round trip
//! ```
//!
//! A crash says nothing: the share is read again after the lease, at most six seconds later. Without the introduction a
//! newcomer would fight for the partitions of those it has not seen move yet, harmless, but slow.

use std::{collections::BTreeSet, time::Duration};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    roster::Roster,
    share::{hand_out, share},
};
use crate::{
    store::{Database, Peers, Sql, StoreError, Topic},
    writer::CursorName,
};

/// A fifth of the lease: four may be late or lost.
const BEAT_INTERVAL: Duration = Duration::from_secs(1);
/// How long a newcomer waits for the others to move: some round trips through the database on a busy machine.
const INTRODUCTION: Duration = Duration::from_millis(300);
/// How often it looks, meanwhile.
const INTRODUCTION_INTERVAL: Duration = Duration::from_millis(50);
/// A database that does not answer must not hold up a shutdown: then the lease runs out.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// A member's row, kept alive by a task of its own.
pub(super) struct Seat {
    leaving: CancellationToken,
    task: JoinHandle<()>,
}

impl Seat {
    /// Joins the readers who share the cursors of this name; its partitions go to `sender`.
    pub(super) fn take(database: Database, cursor: CursorName, sender: watch::Sender<BTreeSet<u32>>) -> Self {
        let leaving = CancellationToken::new();
        let member_id = Uuid::now_v7().to_string();
        let member = Member { database, cursor, roster: Roster::new(member_id.clone()), member_id, sender };
        let task = tokio::spawn(member.run(leaving.clone()));
        Self { leaving, task }
    }

    /// Deletes the row, and tells the others.
    pub(super) async fn leave(mut self) {
        self.leaving.cancel();
        // An error is a panic; it was reported by the panic hook.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Member {
    database: Database,
    cursor: CursorName,
    member_id: String,
    roster: Roster,
    sender: watch::Sender<BTreeSet<u32>>,
}

impl Member {
    async fn run(mut self, leaving: CancellationToken) {
        // Not cut off in the middle of a statement, but between two of them.
        tokio::select! {
            () = leaving.cancelled() => {}
            () = self.stay() => {}
        }
        if !matches!(timeout(LEAVE_TIMEOUT, self.delete(&self.member_id, None)).await, Ok(Ok(()))) {
            tracing::debug!(cursor = &*self.cursor, "could not leave in order; the lease will run out");
        }
        self.peers().tell(Topic::Members);
    }

    async fn stay(&mut self) {
        let mut heard = self.peers().heard(Topic::Members);
        self.introduce().await;
        let mut beat_at = Instant::now();
        loop {
            let due = Instant::now() >= beat_at;
            if due {
                beat_at = Instant::now() + BEAT_INTERVAL;
            }
            self.look(due).await;
            let (rank, members) = self.roster.rank(Instant::now());
            hand_out(&self.sender, share(rank, members));
            if due {
                self.forget().await;
            }
            // Both arms are cancel-safe; whoever wakes looks anew.
            tokio::select! {
                () = tokio::time::sleep_until(beat_at) => {}
                heard = heard.changed() => heard.expect("the database is held here"),
            }
        }
    }

    /// Lets the others show that they live, before it takes anything from them.
    async fn introduce(&mut self) {
        let until = Instant::now() + INTRODUCTION;
        self.look(true).await;
        self.peers().tell(Topic::Members);
        while self.roster.has_unknown() && Instant::now() < until {
            tokio::time::sleep(INTRODUCTION_INTERVAL).await;
            self.look(true).await;
        }
        self.look(true).await;
        self.peers().tell(Topic::Members);
    }

    /// Reads who is there, with a sign of life if one is due or somebody new looks for it. A failure changes nothing: the
    /// cursors fence whoever is wrong.
    async fn look(&mut self, due: bool) {
        let looked = async {
            if due {
                self.beat().await?;
            }
            let rows = self.rows().await?;
            if self.roster.observe(Instant::now(), rows) && !due {
                self.beat().await?;
            }
            Ok::<_, StoreError>(())
        };
        if let Err(error) = looked.await {
            tracing::debug!(cursor = &*self.cursor, %error, "members could not be read; it is tried again");
        }
    }

    async fn beat(&self) -> Result<(), StoreError> {
        let beat = Sql::new("insert into consumer_member (source, member_id, beat) values ")
            .rows([[(*self.cursor).into(), self.member_id.as_str().into(), 1.into()]])
            .push(" on conflict (source, member_id) do update set beat = consumer_member.beat + 1");
        self.write(beat).await
    }

    async fn rows(&self) -> Result<Vec<(String, i64)>, StoreError> {
        let select = Sql::new("select member_id, beat from consumer_member where source = ").arg(&*self.cursor);
        let rows = self.database.read(select).await?;
        rows.iter().map(|row| Ok((row.text(0)?.to_owned(), row.int(1)?))).collect()
    }

    async fn forget(&self) {
        for (member_id, beat) in self.roster.forgotten(Instant::now()) {
            // Unless it has moved meanwhile. A failure is tried again with the next beat.
            let _ = self.delete(&member_id, Some(beat)).await;
        }
    }

    async fn delete(&self, member_id: &str, beat: Option<i64>) -> Result<(), StoreError> {
        let delete = Sql::new("delete from consumer_member where source = ").arg(&*self.cursor);
        let delete = delete.push(" and member_id = ").arg(member_id);
        self.write(match beat {
            Some(beat) => delete.push(" and beat = ").arg(beat),
            None => delete,
        })
        .await
    }

    async fn write(&self, sql: Sql) -> Result<(), StoreError> {
        let mut tx = self.database.begin().await?;
        tx.execute(sql).await?;
        tx.commit().await
    }

    fn peers(&self) -> &Peers {
        self.database.peers().expect("only a shared database has rows of members")
    }
}
