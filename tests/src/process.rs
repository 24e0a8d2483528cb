//! Commands that are at work while a test goes on.

use std::{
    fs::{self, File},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{text, wait_until};

/// A command at work. Dropping it kills it, unless it has ended.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// What it prints, and what it says on stderr.
    folder: tempfile::TempDir,
}

/// What a command has left that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code, if it has one.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it said.
    pub stderr: String,
}

impl Running {
    /// Starts it.
    ///
    /// # Panics
    /// When it is not there.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = |name: &str| File::create(folder.path().join(name)).expect("a file for what it prints");
        command.stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr"));
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, folder }
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it has ended and that is known.
    pub fn signal(&self, which: Signal) {
        kill_process(Pid::from_child(&self.child), which).expect("it has not ended");
    }

    /// What it has said on stderr by now.
    ///
    /// # Panics
    /// When that cannot be read.
    #[must_use]
    pub fn said(&self) -> String {
        self.read("stderr")
    }

    /// What it has printed by now.
    ///
    /// # Panics
    /// When that cannot be read.
    #[must_use]
    pub fn printed(&self) -> String {
        self.read("stdout")
    }

    fn read(&self, name: &str) -> String {
        text(&fs::read(self.folder.path().join(name)).expect("the file of what it prints"))
    }

    /// Waits until it says something on stderr.
    pub fn wait_until_it_says(&mut self, words: &str) {
        self.wait_until(&format!("it says {words:?}"), |running| running.said().contains(words));
    }

    /// Waits until something is so, which can only come while it is at work.
    ///
    /// # Panics
    /// When it ends before.
    pub fn wait_until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        wait_until(what, || {
            let ended = self.child.try_wait().expect("it was started");
            let is_so = is_so(self);
            assert!(is_so || ended.is_none(), "{what}: it has ended: {ended:?}: {}", self.said());
            is_so
        });
    }

    /// Waits until it ends.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn end(mut self) -> Ended {
        let mut status = None;
        wait_until("the command has ended", || {
            status = self.child.try_wait().expect("it was started");
            status.is_some()
        });
        let code = status.and_then(|status| status.code());
        Ended { code, stdout: self.read("stdout"), stderr: self.read("stderr") }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
