//! What the command line says, to the letter: every help text, and what users most often get wrong. None of it needs root.
//!
//! After a wanted change: `INSTA_UPDATE=always cargo test -p relay-daemon --test cli`, and read the difference.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::process::{Command, Output, Stdio};

use insta::assert_snapshot;

const COMMANDS: [&str; 19] = [
    "check",
    "completions",
    "export",
    "klog",
    "list",
    "man",
    "print",
    "recover",
    "repair",
    "report",
    "snapshot",
    "start",
    "stat",
    "status",
    "stop",
    "symbolize",
    "trace",
    "verify",
    "wait",
];

/// Runs relayd on a terminal that is 100 columns wide, as far as it can tell.
fn relayd(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relayd"));
    command.args(arguments).env("COLUMNS", "100").env_remove("RUST_LOG").env_remove("RUST_BACKTRACE");
    command.stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Runs relayd with arguments that it refuses, and returns how it ends and what it says; it must not print anything else.
fn refusal(arguments: &[&str]) -> String {
    let output = relayd(arguments);
    assert_eq!(text(&output.stdout), "", "{arguments:?}");
    format!("$ relayd {}\n{}status {}", arguments.join(" "), text(&output.stderr), output.status.code().unwrap())
}

#[test]
fn every_help_text() {
    // The short one leaves out what follows the options, and what long texts of options go on with.
    let both = |command: &[&str]| {
        let help = |form| relayd(&[command, &[form]].concat()).stdout;
        let (short, long) = (help("-h"), help("--help"));
        assert!(short.len() < long.len(), "{command:?}");
        format!(
            "{}
$ relayd {} -h
{}",
            text(&long),
            command.join(" "),
            text(&short)
        )
    };
    assert_snapshot!("relayd", both(&[]));
    for command in COMMANDS {
        assert_snapshot!(command, both(&[command]));
    }
}

#[test]
fn every_command_has_its_help_text_here() {
    let help = relayd(&["-h"]);
    let commands = text(&help.stdout).split("Commands:").nth(1).unwrap().split("Options:").next().unwrap().lines();
    let mut names: Vec<_> = commands
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    names.sort_unstable();
    assert_eq!(names, COMMANDS);
}

#[test]
fn wrong_usage() {
    let wrong: [&[&str]; 9] = [
        &["trcae"],
        &["trace", "--evnet", "sched:*"],
        &["trace", "-e", "sched:*", "-b", "64X"],
        &["trace", "-e", "sched:*", "-d", "5parsecs"],
        &["trace", "-e", "sched:*", "--keep", "3"],
        &["trace", "-e", "sched:*", "--context", "stack"],
        &["start"],
        &["export", "DIR", "--to", "perfeto"],
        &["completions", "bsh"],
    ];
    assert_snapshot!("wrong_usage", wrong.map(refusal).join("\n\n"));
}

#[test]
fn what_is_no_trace() {
    let wrong: [&[&str]; 5] = [
        &["print", "/nosuch"],
        &["print", "/"],
        &["verify", "/nosuch"],
        &["export", "/nosuch", "--to", "json", "-o", "-"],
        &["man", "nosuch"],
    ];
    assert_snapshot!("what_is_no_trace", wrong.map(refusal).join("\n\n"));
}

#[test]
fn a_reader_that_has_enough_is_no_error() {
    for arguments in [&["completions", "bash"][..], &["man", "trace"], &["--help"]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_relayd"))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn an_error_that_nobody_reads_has_its_exit_status() {
    let mut child =
        Command::new(env!("CARGO_BIN_EXE_relayd")).args(["verify", "/nosuch"]).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    // `script` runs a command on a terminal.
    let on_terminal = |no_color: bool| {
        let mut command = Command::new("script");
        command.args(["-qec", &format!("{} trcae", env!("CARGO_BIN_EXE_relayd")), "/dev/null"]);
        command.env("TERM", "xterm").env_remove("NO_COLOR");
        if no_color {
            command.env("NO_COLOR", "1");
        }
        command.stdin(Stdio::null()).output().unwrap().stdout
    };
    let is_coloured = |said: &[u8]| said.contains(&b'\x1b');
    let (coloured, plain) = (on_terminal(false), on_terminal(true));
    assert!(text(&coloured).contains("similar") && is_coloured(&coloured), "{}", text(&coloured));
    assert!(text(&plain).contains("similar") && !is_coloured(&plain), "{}", text(&plain));
    assert!(!is_coloured(&relayd(&["trcae"]).stderr));
}

#[test]
fn an_installed_companion_is_a_command() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["relayd-greet", "relayd-trace"] {
        let program = folder.path().join(name);
        std::fs::write(&program, "#!/bin/sh\necho hello \"$@\"; exit 7\n").unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_relayd"));
        command.args(arguments).env("PATH", format!("{}:/usr/bin:/bin", folder.path().display())).output().unwrap()
    };
    let output = run(&["greet", "all", "--of", "you"]);
    assert_eq!((text(&output.stdout), output.status.code()), ("hello all --of you\n", Some(7)));
    // Its own commands come first, and what is not a name is not looked for.
    for other in [["trace", "--help"], ["--version", ""], ["../greet", ""], ["nosuch", ""]] {
        assert!(!text(&run(&other).stdout).contains("hello"), "{other:?}");
    }
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = relayd(&["completions", shell]);
        let script = text(&output.stdout);
        assert!(COMMANDS.iter().all(|command| script.contains(command)), "{shell}");
        assert!(script.contains("rotate-size"), "{shell}");
    }
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let output = relayd(&["man", "-o", folder.path().to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for command in COMMANDS {
        let page = std::fs::read_to_string(folder.path().join(format!("relayd-{command}.1"))).unwrap();
        assert_eq!(page, text(&relayd(&["man", command]).stdout), "{command}");
        assert!(page.contains("\"relayd ") && page.contains(".SH NAME") && page.contains(".SH SYNOPSIS"), "{command}");
    }
    assert!(folder.path().join("relayd.1").exists());
}
