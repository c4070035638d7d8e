//! The SQL, one file a table family. Functions take a connection and say in their name what they do;
//! whoever calls them owns the transaction. What they take and return is declared here.
//!
//! What must not live here: flows, their requests, or rules that need no SQL.

pub mod addresses;
pub mod alone;
pub mod attempts;
pub mod audit_log;
pub mod cancellations;
pub mod carts;
pub mod catalogue;
pub mod coupons;
pub mod disputes;
pub mod events;
pub mod fraud;
pub mod inventory;
pub mod login_failures;
pub mod messages;
pub mod orders;
pub mod payments;
pub mod preferences;
pub mod reconciliation;
pub mod refunds;
pub mod retention;
pub mod returns;
pub mod schedules;
pub mod shipments;
pub mod users;
pub mod webhook_inbox;
