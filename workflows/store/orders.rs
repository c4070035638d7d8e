//! Orders and what belongs to them: what the checkout writes, how a status changes afterwards, and what
//! is read.

pub mod from_carts;
pub mod read;
pub mod summary;
mod transitions;
mod write;

pub use self::{
    transitions::{By, LockedOrder, Move, MoveError, lock, lock_many, move_many, move_to, promise_to},
    write::{
        Confirmation, Failed, NewIntent, NewItems, NewOrder, append_history, cancel_pending, confirm, create,
        create_items, link_coupons, next_numbers, store_intents,
    },
};
