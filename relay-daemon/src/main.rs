//! The `relayd` command. What the user types is parsed here; each subcommand has a file.

#![deny(clippy::print_stdout, clippy::print_stderr, reason = "they panic when the reader has gone")]

/// Says something on stderr, with nothing in it that a terminal would obey. Nobody may be there to read it, and recording goes on.
macro_rules! say {
    ($($what:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "{}", relay_trace::show::escape::escaped_lines(&format!($($what)*)));
    }};
}

mod commands;

use std::{io, process::ExitCode};

use clap::{CommandFactory as _, Parser, Subcommand, error::ErrorKind};
use commands::Misuse;
use relay_daemon::{
    environment::{self, Requirement},
    sys::survive_file_limits,
};
use relay_trace::show::escape::escaped;
use rustix::io::Errno;

/// Record kernel events into per-CPU relay channels, with every loss counted.
#[derive(Debug, Parser)]
#[command(name = "relayd", version, propagate_version = true, arg_required_else_help = true)]
#[command(
    after_long_help = "Exit status: 0 done; 1 failed, or recording stopped early; 2 wrong usage; with a COMMAND, its own status.

relayd NAME runs relayd-NAME, if that is installed, when NAME is none of these commands.

Environment: RUST_LOG=info or debug says more on stderr; NO_COLOR=1 takes the colours away."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Trace(Box<commands::trace::Arguments>),
    Recover(commands::recover::Arguments),
    Start(Box<commands::start::Arguments>),
    Status(commands::status::Arguments),
    Snapshot(commands::snapshot::Arguments),
    Wait(commands::snapshot::WaitArguments),
    Stop(commands::snapshot::StopArguments),
    Print(Box<commands::print::Arguments>),
    Stat(Box<commands::stat::Arguments>),
    Export(Box<commands::export::Arguments>),
    #[cfg(feature = "report")]
    Report(Box<commands::report::Arguments>),
    Verify(commands::verify::Arguments),
    Repair(commands::repair::Arguments),
    List(commands::list::Arguments),
    Symbolize(commands::symbolize::Arguments),
    Klog(commands::klog::Arguments),
    Check(commands::check::Arguments),
    Completions(commands::manual::CompletionsArguments),
    Man(commands::manual::ManArguments),
}

/// The status of a command line that cannot be meant, as clap has it.
const WRONG_USAGE: u8 = 2;

fn main() -> ExitCode {
    let mut log = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn"));
    log.format(|out, record| {
        use std::io::Write as _;
        let (level, style) = (record.level(), out.default_level_style(record.level()));
        // What is logged names what traces, processes and file systems hold.
        let said = escaped(&record.args().to_string());
        writeln!(out, "[{style}{level:<5}{style:#} {}] {said}", record.target())
    });
    log.init();
    survive_file_limits();
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(unknown) => {
            if unknown.kind() == ErrorKind::InvalidSubcommand
                && let Err(error) = commands::external::run()
            {
                say!("relayd: {error:#}");
                return ExitCode::FAILURE;
            }
            unknown.exit()
        }
    };
    #[cfg(feature = "report")]
    let is_report = matches!(command, Command::Report(_));
    #[cfg(not(feature = "report"))]
    let is_report = false;
    let asks_the_kernel = !is_report
        && !matches!(
            command,
            Command::Print(_)
                | Command::Stat(_)
                | Command::Export(_)
                | Command::Verify(_)
                | Command::Repair(_)
                | Command::Symbolize(_)
                | Command::Completions(_)
                | Command::Man(_)
        );
    let result = match command {
        Command::Trace(arguments) => commands::trace::run(*arguments),
        Command::Recover(arguments) => commands::recover::run(&arguments),
        Command::Start(arguments) => commands::start::run(&arguments),
        Command::Status(arguments) => commands::status::run(&arguments),
        Command::Snapshot(arguments) => commands::snapshot::run(&arguments),
        Command::Wait(arguments) => commands::snapshot::wait(&arguments),
        Command::Stop(arguments) => commands::snapshot::stop(&arguments),
        Command::Print(arguments) => commands::print::run(&arguments),
        Command::Stat(arguments) => commands::stat::run(&arguments),
        Command::Export(arguments) => commands::export::run(&arguments),
        #[cfg(feature = "report")]
        Command::Report(arguments) => commands::report::run(&arguments),
        Command::Verify(arguments) => commands::verify::run(&arguments),
        Command::Repair(arguments) => commands::repair::run(&arguments),
        Command::List(arguments) => commands::list::run(&arguments),
        Command::Symbolize(arguments) => commands::symbolize::run(&arguments),
        Command::Klog(arguments) => commands::klog::run(&arguments),
        Command::Check(arguments) => commands::check::run(&arguments),
        Command::Completions(arguments) => commands::manual::completions(&arguments, Cli::command()),
        Command::Man(arguments) => commands::manual::man(&arguments, Cli::command()),
    };
    match result {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let said = format!("{error:#}");
            say!("relayd: {said}");
            if asks_the_kernel && is_refusal(&error) {
                show_obstacles(&said);
            }
            if error.is::<Misuse>() { ExitCode::from(WRONG_USAGE) } else { ExitCode::FAILURE }
        }
    }
}

/// The kernel's answers to what is not allowed or not there, and not to what is misspelt.
fn is_refusal(error: &anyhow::Error) -> bool {
    let kind = |cause: &(dyn std::error::Error + 'static)| {
        let errno = cause.downcast_ref::<Errno>().map(|errno| io::Error::from(*errno).kind());
        errno.or_else(|| cause.downcast_ref::<io::Error>().map(io::Error::kind))
    };
    error.chain().filter_map(kind).any(|kind| {
        use io::ErrorKind::{InvalidInput, NotFound, PermissionDenied, ReadOnlyFilesystem, Unsupported};
        matches!(kind, InvalidInput | NotFound | PermissionDenied | ReadOnlyFilesystem | Unsupported)
    })
}

/// Where the kernel lets us record nothing, that, rather than what failed first, is what the user has to change.
fn show_obstacles(said: &str) {
    for Requirement { name, detail, .. } in environment::conditions().into_iter().filter(|condition| !condition.ok) {
        if !said.contains(&detail) {
            say!("relayd cannot record here: {name}: {detail}");
        }
    }
}

/// Whoever reads our output has seen enough: `relayd … | head` is not an error.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}
