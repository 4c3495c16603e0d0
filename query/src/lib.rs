//! Meshwork: query.
