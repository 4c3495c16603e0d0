//! What the shop shares.
