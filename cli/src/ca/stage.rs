//! The steps of a rotation.

/// Where an authority is in the replacement of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// One CA signs, and it alone is trusted.
    Settled,
    /// The old CA signs, and both are trusted.
    NextTrusted,
    /// The new CA signs, and both are trusted.
    NextSigns,
}
