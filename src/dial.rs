//! Connects to a name that may have several addresses, of which some may not answer (RFC 8305, "Happy Eyeballs").
//!
//! One that drops packets would otherwise use up the time that all have, and each further attempt would begin with it again
//! (materialize #23271, grpc #12295). So the addresses race: the next one begins when the one before has failed, or has not answered
//! for a moment. The error names each address.

use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    io,
    net::SocketAddr,
    sync::{Arc, LazyLock},
    time::Duration,
};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use parking_lot::Mutex;
use tokio::{
    net::{TcpStream, lookup_host},
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout_at},
};

/// The head start of an address before the next (RFC 8305, section 5).
const STAGGER: Duration = Duration::from_millis(250);
/// Addresses of a name that are tried, so that one with very many does not open as many connections.
const MAX_ADDRESSES: usize = 6;
/// A look-up that has taken longer than one attempt may is there for the next, which comes within this time.
const KEPT: Duration = Duration::from_secs(15);

/// What a name has led to: nothing yet, its addresses, or why there are none.
type Found = Option<Result<Vec<SocketAddr>, Arc<io::Error>>>;

/// The look-ups of all connections that are under way, or were done after their attempt had ended.
static LOOK_UPS: LazyLock<LookUps> = LazyLock::new(LookUps::default);

/// Look-ups by name. A resolver asks the next server after some seconds (5 by default), which is longer than an attempt takes: if
/// each attempt began anew, a first server that is dead would keep every connection from being made.
#[derive(Clone, Debug, Default)]
struct LookUps(Arc<Mutex<HashMap<String, watch::Receiver<Found>>>>);

/// Connects to the first address of `host_port` that accepts, within `limit`, the look-up of the name included. A look-up that takes
/// longer goes on, and the next attempt uses it.
///
/// # Errors
/// No address was found, or none of them accepted; what each said, without the address if it is `host_port` itself.
pub async fn tcp(host_port: &str, limit: Duration) -> io::Result<TcpStream> {
    let end = Instant::now() + limit;
    let connected = first(look_up(host_port, end).await?, end).await;
    connected.map_err(|error| match error.to_string().strip_prefix(&format!("{host_port}: ")) {
        Some(problem) => io::Error::new(error.kind(), problem),
        None => error,
    })
}

/// The addresses of `host_port`, found until `end`. A look-up that takes longer goes on, and the next one joins it.
///
/// # Errors
/// The name is not known, or it takes longer.
pub async fn look_up(host_port: &str, end: Instant) -> io::Result<Vec<SocketAddr>> {
    LOOK_UPS.addresses(host_port, end, resolve).await
}

/// Connects to the first of these addresses that accepts, until `end`.
///
/// # Errors
/// None of them accepted; what each said.
pub async fn first(addresses: Vec<SocketAddr>, end: Instant) -> io::Result<TcpStream> {
    race(chosen(addresses, rand::random()), end, TcpStream::connect).await
}

async fn resolve(name: String) -> io::Result<Vec<SocketAddr>> {
    lookup_host(name).await.map(Iterator::collect)
}

impl LookUps {
    async fn addresses<F>(
        &self,
        name: &str,
        end: Instant,
        look_up: impl FnOnce(String) -> F,
    ) -> io::Result<Vec<SocketAddr>>
    where
        F: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
    {
        if let Ok(address) = name.parse() {
            return Ok(vec![address]);
        }
        let mut found = self.join(name, look_up);
        let found = timeout_at(end, found.wait_for(Option::is_some)).await.map(|found| found.ok()?.clone());
        match found {
            Ok(Some(found)) => found.map_err(|error| io::Error::new(error.kind(), error.to_string())),
            Ok(None) => Err(io::Error::other("the runtime that looked the name up has ended")),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the name was not resolved in time")),
        }
    }

    /// The look-up of the name that is under way, or a new one.
    fn join<F>(&self, name: &str, look_up: impl FnOnce(String) -> F) -> watch::Receiver<Found>
    where
        F: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
    {
        let mut all = self.0.lock();
        // One whose runtime has ended is closed.
        if let Some(found) = all.get(name).filter(|found| found.has_changed().is_ok()) {
            return found.clone();
        }
        let (sender, receiver) = watch::channel(None);
        all.insert(name.to_owned(), receiver.clone());
        let (look_ups, name, looking) = (self.clone(), name.to_owned(), look_up(name.to_owned()));
        tokio::spawn(async move {
            let found = looking.await;
            let is_found = found.is_ok();
            sender.send_replace(Some(found.map_err(Arc::new)));
            let is_kept = {
                let mut all = look_ups.0.lock();
                let is_awaited = sender.receiver_count() > 1;
                if is_awaited || !is_found {
                    all.remove(&name);
                }
                is_found && !is_awaited
            };
            if is_kept {
                sleep(KEPT).await;
                look_ups.0.lock().remove(&name);
            }
        });
        receiver
    }
}

/// Those that are tried. Of too many others each `turn`, so that a name of which most addresses are dead connects in the end.
fn chosen(addresses: impl IntoIterator<Item = SocketAddr>, turn: u32) -> Vec<SocketAddr> {
    let mut all = interleaved(addresses);
    if all.len() > MAX_ADDRESSES {
        let first = usize::try_from(turn).unwrap_or_default() % all.len();
        all.rotate_left(first);
        all.truncate(MAX_ADDRESSES);
    }
    all
}

/// The addresses in their order, but with the two families in turn, so that a family that leads nowhere holds up one attempt.
fn interleaved(addresses: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let (mut first, mut other) = (VecDeque::new(), VecDeque::new());
    for address in addresses {
        let of_first = first.front().is_none_or(|front: &SocketAddr| front.is_ipv4() == address.is_ipv4());
        if of_first { first.push_back(address) } else { other.push_back(address) }
    }
    let mut all = Vec::new();
    while !(first.is_empty() && other.is_empty()) {
        all.extend(first.pop_front());
        all.extend(other.pop_front());
    }
    all
}

async fn race<T, F>(addresses: Vec<SocketAddr>, end: Instant, connect: impl Fn(SocketAddr) -> F) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let begin = |address| {
        let connecting = connect(address);
        async move { (address, connecting.await) }
    };
    let mut waiting = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut silent = Vec::new();
    let mut failures = Vec::new();
    let mut kind = io::ErrorKind::NotFound;
    loop {
        if attempts.is_empty() {
            let Some(address) = waiting.next() else { break };
            silent.push(address);
            attempts.push(begin(address));
        }
        let turn = Instant::now() + STAGGER;
        // All are cancel-safe.
        tokio::select! {
            Some((address, result)) = attempts.next() => match result {
                Ok(connection) => return Ok(connection),
                Err(error) => {
                    kind = error.kind();
                    silent.retain(|one| *one != address);
                    failures.push(format!("{address}: {error}"));
                    // Not when it would be its turn.
                    if let Some(address) = waiting.next() {
                        silent.push(address);
                        attempts.push(begin(address));
                    }
                }
            },
            () = sleep_until(turn), if waiting.len() > 0 => {
                let address = waiting.next().expect("one is waiting");
                silent.push(address);
                attempts.push(begin(address));
            }
            () = sleep_until(end) => {
                kind = io::ErrorKind::TimedOut;
                failures.extend(silent.iter().map(|address| format!("{address}: no answer")));
                break;
            }
        }
    }
    let problem = if failures.is_empty() { "the name has no address".to_owned() } else { failures.join("; ") };
    Err(io::Error::new(kind, problem))
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use parking_lot::Mutex;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(2);

    fn v4(last: u8) -> SocketAddr {
        ([10, 0, 0, last], 80).into()
    }

    fn v6(last: u16) -> SocketAddr {
        ([0x2001, 0xdb8, 0, 0, 0, 0, 0, last], 80).into()
    }

    #[test]
    fn families_take_turns_beginning_with_that_of_the_first_address() {
        assert_eq!(interleaved([v6(1), v6(2), v4(1), v6(3)]), [v6(1), v4(1), v6(2), v6(3)]);
        assert_eq!(interleaved([v4(1), v4(2), v6(1)]), [v4(1), v6(1), v4(2)]);
    }

    #[test]
    fn of_many_addresses_a_bounded_number_is_tried_and_each_of_them_has_its_turn() {
        let few: Vec<_> = (0..6).map(v4).collect();
        let many: Vec<_> = (0..200).map(v4).collect();
        let mut tried = std::collections::BTreeSet::new();
        for turn in (0..300).chain([u32::MAX]) {
            assert_eq!(chosen(few.clone(), turn), few, "all in their order");
            let chosen = chosen(many.clone(), turn);
            assert_eq!(chosen.len(), MAX_ADDRESSES);
            tried.extend(chosen);
        }
        assert_eq!(tried, many.into_iter().collect());
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_does_not_answer_holds_the_next_up_for_a_moment_only() {
        let begin = Instant::now();
        let silent_first =
            |address: SocketAddr| async move { if address == v4(1) { pending().await } else { Ok(address) } };
        let connected = race(vec![v4(1), v4(2)], begin + LIMIT, silent_first).await;
        assert_eq!(connected.expect("the second answers"), v4(2));
        assert_eq!(begin.elapsed(), STAGGER);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_slow_may_still_win_and_one_that_fails_gives_its_turn_away_at_once() {
        let begin = Instant::now();
        let begun = Mutex::new(Vec::new());
        let connect = |address: SocketAddr| {
            begun.lock().push((address, begin.elapsed()));
            async move {
                match address {
                    address if address == v4(1) => {
                        tokio::time::sleep(STAGGER * 3 / 2).await;
                        Ok(address)
                    }
                    address if address == v4(2) => Err(io::ErrorKind::ConnectionRefused.into()),
                    _ => pending().await,
                }
            }
        };
        let connected = race(vec![v4(1), v4(2), v4(3), v4(4)], begin + LIMIT, connect).await;
        assert_eq!(connected.expect("the first answers"), v4(1));
        assert_eq!(*begun.lock(), [(v4(1), Duration::ZERO), (v4(2), STAGGER), (v4(3), STAGGER)]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_names_each_address_and_what_it_said_and_comes_within_the_limit() {
        let begin = Instant::now();
        let connect = |address: SocketAddr| async move {
            if address == v4(1) { pending().await } else { Err(io::ErrorKind::ConnectionRefused.into()) }
        };
        let error = race::<(), _>(vec![v4(1), v4(2)], begin + LIMIT, connect).await.expect_err("none accepts");
        assert_eq!(error.to_string(), "10.0.0.2:80: connection refused; 10.0.0.1:80: no answer");
        assert_eq!((error.kind(), begin.elapsed()), (io::ErrorKind::TimedOut, LIMIT));
        let none = race::<(), _>(Vec::new(), begin + LIMIT, connect).await.expect_err("there is none");
        assert_eq!(none.to_string(), "the name has no address");
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_up_that_takes_longer_than_an_attempt_is_there_for_a_later_one() {
        let look_ups = LookUps::default();
        let asked = Arc::new(Mutex::new(0));
        let attempt = || {
            let (look_ups, asked) = (look_ups.clone(), Arc::clone(&asked));
            async move {
                let slow = |_| {
                    *asked.lock() += 1;
                    async {
                        sleep(LIMIT * 5 / 2).await;
                        Ok(vec![v4(1)])
                    }
                };
                look_ups.addresses("registry:80", Instant::now() + LIMIT, slow).await
            }
        };
        for _ in 0..2 {
            let begun = *asked.lock();
            for _ in 0..2 {
                assert_eq!(attempt().await.expect_err("it takes longer").kind(), io::ErrorKind::TimedOut);
            }
            assert_eq!(attempt().await.expect("it is done"), [v4(1)]);
            assert_eq!(*asked.lock(), begun + 1);
            assert!(look_ups.0.lock().is_empty(), "an answer that was waited for is not kept");
        }

        for _ in 0..2 {
            attempt().await.expect_err("it takes longer");
        }
        sleep(LIMIT).await;
        assert_eq!(attempt().await.expect("it is kept"), [v4(1)]);
        sleep(KEPT).await;
        assert!(look_ups.0.lock().is_empty(), "for a bounded time");
        assert_eq!(*asked.lock(), 3);

        let fails = |_| async {
            sleep(LIMIT * 3 / 2).await;
            Err(io::ErrorKind::NotFound.into())
        };
        look_ups.addresses("registry:80", Instant::now() + LIMIT, fails).await.expect_err("it takes longer");
        sleep(LIMIT).await;
        assert!(look_ups.0.lock().is_empty(), "a failure is not kept");
    }

    #[tokio::test]
    async fn a_name_leads_to_the_address_that_listens() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("it listens").port();
        let stream = tcp(&format!("localhost:{port}"), LIMIT * 10).await.expect("it listens");
        assert_eq!(stream.peer_addr().expect("connected").port(), port);
        assert!(tcp("no.such.name.invalid:80", LIMIT * 10).await.is_err());
    }
}
