//! Meshwork: customer.
