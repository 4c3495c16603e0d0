//! What a registry bears. What an instance may be is in [`meshwork::instance`].

/// How many instances may hold a lease. A mesh of this size costs the registry tens of megabytes; beyond it, something is
/// registering in a loop.
pub const MAX_INSTANCES: usize = 10_000;

/// How many service names are remembered. They are kept until a restart ("known but empty"), so they need a bound.
pub const MAX_SERVICES: usize = 4_096;

/// How many policies may be set: one for each service that a registry can know.
pub const MAX_POLICIES: usize = MAX_SERVICES;

/// How many services may have an authorization policy, those included whose policy was deleted.
pub const MAX_AUTHORIZATIONS: usize = MAX_SERVICES;

/// How many gRPC services may be bound to a service: four for each service.
pub const MAX_BINDINGS: usize = 4 * MAX_SERVICES;

/// How many of them a service may have taken by its own registrations: the names of four instances that differ in all of theirs. One
/// service that announces ever new names leaves room for the others.
pub const MAX_BINDINGS_TAKEN: usize = 1_024;

/// Bytes of a file of policies, rules or bindings: 4,096 policies of 8 KiB, which is several times what one with everything in it has;
/// or 16,384 bindings of 2 KiB.
pub(crate) const MAX_FILE_BYTES: u64 = 32 << 20;

/// How many watches may be open at once. A process needs one for all of its channels, so this is also the number of
/// processes of a mesh.
pub const MAX_WATCHES: usize = 10_000;

/// Streams at a time: one for every watch, one for every instance's renewals, and a quarter more for those of clients that
/// have come back before their old streams are found dead. So what is refused is refused by a limit that says what it is of.
pub const MAX_STREAMS: usize = (MAX_WATCHES + MAX_INSTANCES) / 4 * 5;

/// How many departures a service remembers. A watcher that is further behind gets a snapshot, which is then the smaller
/// answer for most services anyway.
pub const MAX_TOMBSTONES: usize = 256;

/// Lines a minute about one thing that instances do: a rolling restart of a large service, and not a client that registers in
/// a loop.
pub(crate) const MAX_LINES: u32 = 200;

/// A number as people read it: `10,000`.
pub(crate) fn grouped(number: usize) -> String {
    let mut text = number.to_string();
    for at in (1..text.len()).rev().filter(|at| (text.len() - at).is_multiple_of(3)).collect::<Vec<_>>() {
        text.insert(at, ',');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_a_comma_for_each_thousand() {
        for (number, expected) in
            [(0, "0"), (999, "999"), (4_096, "4,096"), (100_000, "100,000"), (1_234_567, "1,234,567")]
        {
            assert_eq!(grouped(number), expected);
        }
    }
}
