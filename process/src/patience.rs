//! A wait that says so.

use std::{fmt::Display, pin::pin, time::Duration};

use tokio::time::timeout;

/// Opening a database that is there, or making a new one, takes less on a slow machine too; a person who waits for a server that is
/// not there has not given up after 2 s.
const SILENCE: Duration = Duration::from_secs(2);

/// Opens a database, and logs that it is waited for if it is not there at once.
pub async fn say_if_slow<T>(database: impl Display, opening: impl Future<Output = T>) -> T {
    let mut opening = pin!(opening);
    match timeout(SILENCE, &mut opening).await {
        Ok(opened) => opened,
        Err(_) => {
            tracing::warn!(%database, "waiting for the database");
            opening.await
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::sleep;

    use super::*;
    use crate::tests::Lines;

    #[tokio::test(start_paused = true)]
    async fn a_database_that_is_waited_for_is_named_soon_and_one_that_is_made_on_a_slow_machine_is_not() {
        let lines = Lines::default();
        let written = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || written.clone()).finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        say_if_slow("order.db", sleep(Duration::from_millis(1900))).await;
        assert_eq!(lines.text(), "");
        let waiting = say_if_slow("postgres://...", pending::<()>());
        assert!(timeout(Duration::from_millis(2100), waiting).await.is_err());
        let told = lines.text();
        assert!(told.contains("waiting for the database database=postgres://..."), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
    }
}
