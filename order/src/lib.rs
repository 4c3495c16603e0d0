//! Meshwork: order.
