//! `returns`, `return_items`: goods that come back.
