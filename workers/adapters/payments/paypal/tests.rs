//! Each call of the port, against a server that plays PayPal's part of one scene and writes down ours.

mod closing;
mod logging_in;
mod paying;
mod refunding;
mod scene;
mod webhooks;
