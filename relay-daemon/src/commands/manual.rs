//! `relayd completions` and `relayd man`: what shells and `man` want to know, made of the same definitions as `--help`.

use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;

/// Print what makes a shell complete relayd's commands and options.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  relayd completions bash > /usr/share/bash-completion/completions/relayd
  relayd completions zsh > /usr/share/zsh/vendor-completions/_relayd
  relayd completions fish > ~/.config/fish/completions/relayd.fish")]
pub(crate) struct CompletionsArguments {
    /// For this shell.
    shell: Shell,
}

/// Print the manual page of relayd, or of one of its commands.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  relayd man trace | man -l -
  relayd man -o /usr/local/share/man/man1")]
pub(crate) struct ManArguments {
    /// Of this command [default: relayd's own page].
    command: Option<String>,
    /// Write all pages into this directory instead: relayd.1, relayd-trace.1 and so on.
    #[arg(short, long, value_name = "DIR", conflicts_with = "command")]
    output: Option<PathBuf>,
}

pub(crate) fn completions(arguments: &CompletionsArguments, mut relayd: Command) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut relayd, "relayd", &mut script);
    io::stdout().write_all(&script).context("writing the completions")?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn man(arguments: &ManArguments, relayd: Command) -> Result<ExitCode> {
    // `help` is not a page of its own.
    let mut relayd = relayd.disable_help_subcommand(true);
    relayd.build();
    if let Some(folder) = &arguments.output {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let write = |name: String, page: Vec<u8>| {
            let path = folder.join(name);
            fs::write(&path, page).with_context(|| format!("writing {}", path.display()))
        };
        for command in relayd.get_subcommands() {
            write(format!("relayd-{}.1", command.get_name()), page(command)?)?;
        }
        write("relayd.1".to_owned(), page(&relayd)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let text = match &arguments.command {
        None => page(&relayd)?,
        Some(name) => {
            let command = relayd.find_subcommand(name);
            page(command.with_context(|| format!("there is no command '{name}': see relayd --help"))?)?
        }
    };
    io::stdout().write_all(&text).context("writing the manual page")?;
    Ok(ExitCode::SUCCESS)
}

fn page(command: &Command) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let page = Man::new(command.clone()).source(concat!("relayd ", env!("CARGO_PKG_VERSION")));
    page.render(&mut text).context("making the manual page")?;
    Ok(text)
}
