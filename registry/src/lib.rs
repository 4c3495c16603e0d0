//! Meshwork: registry.
