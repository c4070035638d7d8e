//! The command line. Names of commands and flags are part of the product: scripts rely on them.

use std::{path::PathBuf, str::FromStr};

use clap::{Args, Parser, Subcommand};
use engine::RunStatus;
use uuid::Uuid;
use workflows::store::users::Role;

use crate::{bench::BenchArguments, config::Flags, demo::DemoArguments, maintain::parse_role, roles};

/// Durable carts and checkout on Postgres.
///
/// Without a command it runs a whole development shop.
///
/// Exit codes: 0 fine; 1 the books do not balance, a run was lost, or this release would not carry one on;
/// 2 wrong usage or configuration, or anything else that kept the command from its work.
#[derive(Debug, Parser)]
#[command(name = "cart-engine", version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) dev: DevArguments,
    #[command(flatten)]
    pub(crate) embedded: EmbeddedArguments,
    /// Configuration file; without it cart-engine.toml in this folder, if there is one
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Logs lines of JSON
    #[arg(long, global = true)]
    pub(crate) log_json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs a whole shop for development: database, API, workers, scheduler, payment sandbox
    Dev(DevArguments),
    /// Lets simulated shoppers into a shop of its own, and checks the books
    Demo(DemoArguments),
    /// Runs the HTTP API
    Api {
        /// Where to listen; default 127.0.0.1:8080
        #[arg(long, value_name = "ADDR")]
        listen: Option<String>,
    },
    /// Runs a worker, which carries workflows
    Worker {
        /// Runs in hand at once; default 256
        #[arg(long, value_name = "N")]
        concurrency: Option<u32>,
        /// Serves only these queues
        #[arg(long, value_name = "A,B", value_delimiter = ',')]
        queues: Option<Vec<String>>,
        /// Where to answer /metrics; default nowhere
        #[arg(long, value_name = "ADDR")]
        metrics_listen: Option<String>,
    },
    /// Runs the scheduler, which starts what is due by the calendar
    Scheduler,
    /// Runs the sandbox payment gateway
    Sandbox {
        /// Where to listen
        #[arg(long, value_name = "ADDR", default_value = roles::sandbox::DEFAULT_LISTEN)]
        listen: String,
        /// Where its webhooks go; default the API at its configured address
        #[arg(long, value_name = "URL")]
        webhook_url: Option<String>,
    },
    /// Brings the database's schema up to date
    Migrate,
    /// Adds demo users, products and coupons
    SeedDemo,
    /// Prints the effective configuration and where each value comes from
    Config,
    /// Checks the books: stock, money, coupons, runs, messages, events
    Audit {
        /// Prints one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Lists the live runs whose journal this release would not replay; ask it before each release
    CheckDeploy {
        /// Shows so many of them one by one
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=10_000))]
        limit: u16,
        /// Prints one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Measures the shop beside what this Postgres could do
    #[command(arg_required_else_help = false)]
    Bench {
        #[command(flatten)]
        bench: BenchArguments,
    },
    /// Manages users
    #[command(arg_required_else_help = false)]
    User {
        #[command(subcommand)]
        command: UserCommand,
    },
    /// Looks at workflow runs
    #[command(arg_required_else_help = false)]
    Inspect {
        #[command(subcommand)]
        command: InspectCommand,
    },
    /// Does something to a workflow run; who, why and when is kept
    #[command(arg_required_else_help = false)]
    Run {
        #[command(subcommand)]
        command: RunCommand,
    },
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(crate) struct DevArguments {
    /// Where to listen; default 127.0.0.1:8080
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Uses a database that is gone at the end
    #[arg(long)]
    pub(crate) ephemeral: bool,
    /// Workers in this process; 0 for none; default 1
    #[arg(long, value_name = "N")]
    pub(crate) workers: Option<u16>,
    /// Runs each worker has in hand at once; default 256
    #[arg(long, value_name = "N")]
    concurrency: Option<u32>,
}

/// About the embedded Postgres, which is used without `DATABASE_URL`.
#[derive(Debug, Args)]
pub(crate) struct EmbeddedArguments {
    /// Where the embedded Postgres, used without DATABASE_URL, keeps its data
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Folder with the programs postgres and initdb
    #[arg(long, global = true, value_name = "DIR")]
    pg_bin: Option<PathBuf>,
    /// Downloads nothing
    #[arg(long, global = true)]
    offline: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Adds a user who may log in
    Add {
        /// E-mail address
        #[arg(long)]
        email: String,
        /// CUSTOMER, STAFF or ADMIN
        #[arg(long, value_parser = parse_role)]
        role: Role,
        /// Reads the password from the first line of standard input
        #[arg(long, required = true)]
        password_stdin: bool,
        /// Given name
        #[arg(long)]
        first_name: Option<String>,
        /// Family name
        #[arg(long)]
        last_name: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum InspectCommand {
    /// Lists runs, newest first
    Runs {
        /// Only of this workflow, e.g. checkout
        #[arg(long)]
        workflow: Option<String>,
        /// Only in this status, e.g. WAITING
        #[arg(long, value_parser = parse_status)]
        status: Option<RunStatus>,
        /// At most so many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=10_000))]
        limit: i64,
        /// Prints one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Shows one run and its journal
    Run {
        /// The run's id
        id: Uuid,
        /// Prints one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Lists the runs that wait for an operator
    Stuck {
        /// At most so many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=10_000))]
        limit: i64,
        /// Prints one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Lists what of the money waits for a person: refunds, comparisons with gateways, gateways' messages
    Money {
        /// At most so many of each
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=10_000))]
        limit: i64,
        /// Prints one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Follows runs as they change, until Ctrl-C
    Tail,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RunCommand {
    /// Tries a run again now that backs off after a failed attempt, or is parked
    Retry {
        #[command(flatten)]
        target: Target,
    },
    /// Lets a parked run go on where it stopped
    Resume {
        #[command(flatten)]
        target: Target,
    },
    /// Has a run take back what it did, unless it has passed its point of no return
    Cancel {
        #[command(flatten)]
        target: Target,
    },
    /// Tells a run what it waits for, as whoever it waits for would
    Signal {
        /// The signal's name, as `inspect run` shows it
        #[arg(long)]
        name: String,
        /// What it says, as JSON
        #[arg(long, value_name = "JSON", value_parser = parse_json)]
        payload: serde_json::Value,
        #[command(flatten)]
        target: Target,
    },
}

/// Which run, who, and why.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// The run's id
    pub(crate) id: Uuid,
    /// Why, for the audit log
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    /// Who, for the audit log; default whoever is logged in here
    #[arg(long, value_name = "NAME", env = "USER")]
    pub(crate) by: String,
}

fn parse_status(text: &str) -> Result<RunStatus, <RunStatus as FromStr>::Err> {
    text.to_uppercase().parse()
}

fn parse_json(text: &str) -> Result<serde_json::Value, serde_json::Error> {
    serde_json::from_str(text)
}

impl Command {
    /// What the flags say about the configuration.
    pub(crate) fn flags(&self, embedded: &EmbeddedArguments) -> Flags {
        let flags = embedded.flags();
        match self {
            Command::Dev(dev) => flags.with("--listen", "api.listen", dev.listen.clone()).with(
                "--concurrency",
                "worker.concurrency",
                dev.concurrency,
            ),
            Command::Api { listen } => flags.with("--listen", "api.listen", listen.clone()),
            Command::Worker { concurrency, queues, metrics_listen } => flags
                .with("--concurrency", "worker.concurrency", *concurrency)
                .with("--queues", "worker.queues", queues.clone())
                .with("--metrics-listen", "worker.metrics_listen", metrics_listen.clone()),
            Command::Sandbox { webhook_url, .. } => {
                flags.with("--webhook-url", "sandbox.webhook_url", webhook_url.clone())
            }
            Command::Demo(_)
            | Command::Scheduler
            | Command::Migrate
            | Command::SeedDemo
            | Command::Config
            | Command::Audit { .. }
            | Command::CheckDeploy { .. }
            | Command::Bench { .. }
            | Command::User { .. }
            | Command::Inspect { .. }
            | Command::Run { .. } => flags,
        }
    }

    /// Whether it serves until it is stopped; such a command also tells what it is doing.
    pub(crate) fn is_service(&self) -> bool {
        match self {
            Command::Dev(_)
            | Command::Api { .. }
            | Command::Worker { .. }
            | Command::Scheduler
            | Command::Sandbox { .. } => true,
            Command::Demo(_)
            | Command::Migrate
            | Command::SeedDemo
            | Command::Config
            | Command::Audit { .. }
            | Command::CheckDeploy { .. }
            | Command::Bench { .. }
            | Command::User { .. }
            | Command::Inspect { .. }
            | Command::Run { .. } => false,
        }
    }
}

impl EmbeddedArguments {
    fn flags(&self) -> Flags {
        let text = |path: &PathBuf| path.to_string_lossy().into_owned();
        Flags::default()
            .with("--data-dir", "database.data_dir", self.data_dir.as_ref().map(text))
            .with("--pg-bin", "database.bin_dir", self.pg_bin.as_ref().map(text))
            .with("--offline", "database.offline", self.offline.then_some(true))
    }
}
