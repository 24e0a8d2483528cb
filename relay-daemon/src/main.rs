//! The `relayd` command. What the user types is parsed here; each subcommand has a file.

mod commands;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use relay_daemon::environment;

/// Record kernel events into per-CPU relay channels, with every loss counted.
#[derive(Debug, Parser)]
#[command(name = "relayd", version, propagate_version = true, arg_required_else_help = true)]
#[command(
    after_help = "Exit status: 0 done; 1 failed, or recording stopped early; 2 wrong usage; with a COMMAND, its own status."
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
    Verify(commands::verify::Arguments),
    Repair(commands::repair::Arguments),
    List(commands::list::Arguments),
    Symbolize(commands::symbolize::Arguments),
    Klog(commands::klog::Arguments),
    Check(commands::check::Arguments),
    Completions(commands::manual::CompletionsArguments),
    Man(commands::manual::ManArguments),
}

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).format_timestamp(None).init();
    let command = Cli::parse().command;
    let records = matches!(command, Command::Trace(_) | Command::Start(_) | Command::Klog(_));
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
            eprintln!("relayd: {error:#}");
            if records {
                show_obstacles();
            }
            ExitCode::FAILURE
        }
    }
}

/// Nothing can be recorded where the kernel lets us not: that, rather than what failed first, is what the user has to change.
fn show_obstacles() {
    for condition in environment::conditions().into_iter().filter(|condition| !condition.ok) {
        eprintln!("relayd cannot record here: {}: {}", condition.name, condition.detail);
    }
}

/// Whoever reads our output has seen enough: `relayd … | head` is no error.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}
