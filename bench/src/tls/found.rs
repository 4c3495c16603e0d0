//! What the parts of `bench tls` find.

use meshwork_harness::report::Figures;

use crate::clients::Turns;

/// Figures, and the rounds that they come from.
#[derive(Default)]
pub(super) struct Found {
    pub(super) figures: Figures,
    pub(super) turns: Turns,
}
