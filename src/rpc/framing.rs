//! gRPC's framing of messages, read while it flows: where each message begins, and how long it is.

/// gRPC puts a flag (0 or 1: compressed) and a big-endian length before each message.
pub(crate) const PREFIX: usize = 5;

/// Where in its framing a body is. It keeps no message, only a prefix that has come in parts.
#[derive(Debug, Default)]
pub(crate) struct Framing {
    /// The prefix of the next message, as far as it has come.
    prefix: [u8; PREFIX],
    filled: usize,
    /// Bytes that the message under way still lacks.
    rest: usize,
}

/// A message that begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prefix {
    pub(crate) flag: u8,
    /// Bytes of the message as it is sent, which may be compressed.
    pub(crate) length: usize,
}

impl Framing {
    /// Reads on, and gives the prefix of each message that begins to `begin`, until that fails.
    pub(crate) fn read<E>(&mut self, mut data: &[u8], mut begin: impl FnMut(Prefix) -> Result<(), E>) -> Result<(), E> {
        loop {
            let skipped = self.rest.min(data.len());
            self.rest -= skipped;
            data = &data[skipped..];
            if data.is_empty() {
                return Ok(());
            }
            let taken = (PREFIX - self.filled).min(data.len());
            self.prefix[self.filled..self.filled + taken].copy_from_slice(&data[..taken]);
            self.filled += taken;
            data = &data[taken..];
            if self.filled == PREFIX {
                let [flag, length @ ..] = self.prefix;
                let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                (self.filled, self.rest) = (0, length);
                begin(Prefix { flag, length })?;
            }
        }
    }

    /// Whether what was read ends with a whole message, or has none.
    pub(crate) fn is_whole(&self) -> bool {
        self.rest == 0 && self.filled == 0
    }
}
