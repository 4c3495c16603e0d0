//! What the shop's services share: their contract, money, ids, times and idempotent requests, in memory and on the
//! wire.
//!
//! Only what two of them would otherwise write twice; what an order or a customer *is* belongs to its own service.

pub mod contract;

mod currency;
mod money;
mod request;
mod time;

pub use currency::{Currency, CurrencyError};
pub use money::{Amount, MoneyError};
pub use request::{InvalidId, RequestKey, check_id, check_money, check_request_id, parse_id};
pub use time::{now_ms, timestamp};
