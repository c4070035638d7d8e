//! A stateful fake of one payment gateway, as a process of its own. The crate `fakes` says what it does.

use clap::Parser as _;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    fakes::run(fakes::Arguments::parse()).await
}
