//! The one binary: a subcommand for each role of a shop, and for each thing an operator does.
//!
//! What lives here: the command line, the configuration, the database's choice, and putting the crates
//! together. What must not: rules of commerce, SQL over the shop's tables other than the demo data's,
//! or anything that a library crate could be tested for alone.

mod arguments;
mod bench;
mod check_deploy;
mod config;
mod database;
mod demo;
mod dev;
mod failure;
mod inspect;
mod listen;
mod maintain;
mod operate;
mod outside;
mod parts;
mod roles;
mod seed;
mod shutdown;
mod watchdog;

use std::{
    fmt::Display,
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
};

use clap::{Parser as _, error::ErrorKind};
use serde::Serialize;
use tracing_subscriber::EnvFilter;

use crate::{
    arguments::{Arguments, Command, DevArguments},
    failure::Failure,
};

/// How a command that did its work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Nothing is wrong.
    Well,
    /// The books do not balance, a run was lost, or one would be.
    Unsound,
}

/// What is logged unless `RUST_LOG` says otherwise: what we do, and what others warn of. The embedded
/// database's steps are on the screen already.
const SERVICE_LOG: &str = "warn,sqlx::postgres::notice=error,cart_engine=info,api=info,workers=info,schedules=info,workflows=info,engine=info,adapters=info,sandbox=info";

/// The same for a command that answers one question.
const COMMAND_LOG: &str = "warn,sqlx::postgres::notice=error,sqlx::query=error";

/// The same for the demo, in which much goes wrong on purpose.
const DEMO_LOG: &str = "error";

/// A checkout makes and drops thousands of small values, many of them on another thread: with glibc's allocator that
/// took more than a third of the process' time at saturation.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match started() {
        Ok(Ended::Well) => ExitCode::SUCCESS,
        Ok(Ended::Unsound) => ExitCode::from(1),
        Err(failure) => {
            // A closed stderr leaves nobody to tell; the exit code still does.
            let _ = writeln!(std::io::stderr().lock(), "{}", failure.report());
            ExitCode::from(2)
        }
    }
}

fn started() -> Result<Ended, Failure> {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            // As in `say`: a reader that has gone away is no failure.
            let _ = error.print();
            return Ok(Ended::Well);
        }
        Err(error) => return Err(misuse(&error.to_string())),
    };
    let command = chosen(arguments.command, arguments.dev)?;
    log(&command, arguments.log_json)?;
    serving::allow_many_files();
    // Several TLS libraries could serve; rustls wants to be told which, once, before the first use.
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| Failure::new("another TLS provider is already in use"))?;
    // A name that is not Unicode is none of ours; a value that is not is in nobody's range.
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())));
    let loaded = config::load(arguments.config.as_deref(), environment, command.flags(&arguments.embedded))?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(carry_out(command, loaded))
}

async fn carry_out(command: Command, loaded: config::Loaded) -> Result<Ended, Failure> {
    let config = &loaded.config;
    match command {
        Command::Dev(arguments) => {
            dev::run(dev::Options {
                config: loaded.config,
                ephemeral: arguments.ephemeral,
                workers: arguments.workers.unwrap_or(1).into(),
                progress: |step| say(&format!("· {step}")),
            })
            .await?;
        }
        Command::Demo(arguments) => return demo::run(arguments, config).await,
        Command::Api { .. } => roles::api::run(config).await?,
        Command::Worker { .. } => roles::worker::run(config).await?,
        Command::Scheduler => roles::scheduler::run(config).await?,
        Command::Sandbox { listen, .. } => roles::sandbox::run(config, &listen).await?,
        Command::Config => say(loaded.describe()?.trim_end()),
        Command::Migrate => return maintain::migrate(config).await,
        Command::SeedDemo => return maintain::seed_demo(config).await,
        Command::User { command, .. } => return maintain::user(config, command).await,
        Command::Audit { json, .. } => return maintain::audit(config, json).await,
        Command::CheckDeploy { limit, json } => return check_deploy::run(config, limit.into(), json).await,
        Command::Bench { bench, .. } => return bench::run(bench, config).await,
        Command::Inspect { command, .. } => return inspect::run(config, command).await,
        Command::Run { command, .. } => return operate::run(config, command).await,
    }
    Ok(Ended::Well)
}

/// `dev` when no command is named. Its flags may then stand alone, but not before another command.
fn chosen(command: Option<Command>, dev: DevArguments) -> Result<Command, Failure> {
    match command {
        None => Ok(Command::Dev(dev)),
        Some(command) if dev == DevArguments::default() => Ok(command),
        Some(_) => {
            Err(Failure::new("a flag of `dev` stands before another command").hint("put the flags after the command"))
        }
    }
}

/// The command line parser's complaint, without its usage text.
fn misuse(complaint: &str) -> Failure {
    let complaint = complaint.split("\n\n").next().unwrap_or(complaint).trim_start_matches("error: ");
    Failure::new(complaint).hint("`cart-engine --help` and `cart-engine <command> --help` tell what there is")
}

fn log(command: &Command, json: bool) -> Result<(), Failure> {
    let is_demo = matches!(command, Command::Demo(_));
    let default = if is_demo {
        DEMO_LOG
    } else if command.is_service() {
        SERVICE_LOG
    } else {
        COMMAND_LOG
    };
    let filter = match std::env::var("RUST_LOG") {
        Ok(wanted) if !wanted.is_empty() => {
            EnvFilter::try_new(&wanted).map_err(|error| Failure::caused_by("RUST_LOG cannot be read", &error))?
        }
        Ok(_) | Err(_) => EnvFilter::new(default),
    };
    // Standard output belongs to what was asked for.
    let colours = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    if json {
        lines.json().init()
    } else {
        lines.init()
    }
    Ok(())
}

/// One line, or several, on standard output.
pub(crate) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    // A reader that has gone away (`| head`) is no reason to end a shop.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// What a command found: for a script one JSON object, else as people read it.
///
/// # Errors
/// What cannot be written as JSON.
pub(crate) fn print<T: Display + Serialize>(found: &T, json: bool) -> Result<(), Failure> {
    say(&if json { serde_json::to_string(found)? } else { found.to_string() });
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        let arguments =
            Arguments::try_parse_from(line.split_whitespace()).map_err(|error| misuse(&error.to_string()).report())?;
        chosen(arguments.command, arguments.dev).map_err(|failure| failure.report())
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn no_command_means_dev() {
        for line in ["cart-engine", "cart-engine --ephemeral --listen 127.0.0.1:1", "cart-engine dev --workers 0"] {
            assert!(matches!(parsed(line), Ok(Command::Dev(_))), "{line}");
        }
        assert!(matches!(parsed("cart-engine --data-dir d audit"), Ok(Command::Audit { .. })));
        assert!(matches!(parsed("cart-engine inspect runs --data-dir d"), Ok(Command::Inspect { .. })));
        assert!(matches!(parsed("cart-engine --config x.toml api --listen a:1"), Ok(Command::Api { .. })));
    }

    #[test]
    fn a_misuse_is_told_in_one_line_and_a_hint() {
        for line in [
            "cart-engine nonsense",
            "cart-engine --workers many",
            "cart-engine --ephemeral audit",
            "cart-engine user add",
            "cart-engine user add --email a@b.example --role KING --password-stdin",
            "cart-engine inspect",
            "cart-engine inspect run seven",
            "cart-engine run",
            "cart-engine run resume seven --reason mended --by asha",
            "cart-engine run cancel 0198a000-0000-7000-8000-000000000000 --by asha",
            "cart-engine run signal 0198a000-0000-7000-8000-000000000000 --reason r --by asha --name n --payload {",
            "cart-engine demo --shoppers 0",
            "cart-engine demo --seed lucky",
        ] {
            let report = parsed(line).expect_err(line);
            let lines: Vec<&str> = report.lines().collect();
            assert!(
                lines.len() == 2 && lines[0].starts_with("cart-engine: ") && lines[1].starts_with("hint: "),
                "{report}"
            );
        }
    }
}
