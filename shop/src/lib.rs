//! What the shop's services share: their contract, money, ids, times and idempotent requests, as they are inside and on the wire, the durable
//! half that each of them opens, and how a process of one is run.
//!
//! Only what two of them would otherwise write twice; what an order or a customer *is* belongs to its own service.

pub mod contract;

mod currency;
mod event;
mod money;
mod point;
mod process;
mod request;
mod statement;
mod status;
mod time;
mod write_side;

pub use currency::{Currency, CurrencyError};
pub use event::{decode_event, event_id};
pub use money::{Amount, MoneyError};
pub use point::{HEAD_COLUMNS, point};
pub use process::serve;
pub use request::{InvalidId, RequestKey, check_id, check_money, check_request_id, parse_id};
pub use statement::MAX_ROWS_PER_STATEMENT;
pub use status::{store_status, write_status};
pub use time::{now_ms, timestamp};
pub use write_side::{OpenError, WriteSide};
