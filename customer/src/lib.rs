//! Meshwork's customer service: customers, and the credit that their orders reserve.

pub mod domain;
