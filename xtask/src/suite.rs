//! Which tests have run, as their programs' output tells: a test that is ignored everywhere is not tested.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

/// Kernel tests that run on no machine of the matrix, and why.
const MAY_BE_IGNORED: [(&str, &str); 0] = [];

/// What a guest need not have for a test, as the test says it, and why.
const NOT_IN_GUESTS: [(&str, &str); 11] = [
    ("no cc", "a guest has no compiler"),
    ("no perf", "Debian's for arm64 is not unpacked: on x86-64 stacks are the same programs"),
    ("no bpftrace", "likewise"),
    ("no python3-bt2", "a guest has no Python: the library reads traces of the running kernel"),
    ("no Python packages: cargo xtask kernel installs them", "likewise: exports do not depend on the kernel"),
    ("a kernel that has kprobes", "what is said without them is tested where there are none"),
    ("a kernel without fprobes", "6.1 has none"),
    ("a kernel without system calls of 32 bits", "Debian's for arm64 has none"),
    ("no strace", "what system calls are called in words does not depend on the kernel"),
    ("fewer than three CPUs", "emulated CPUs of x86-64 run by turns, so there are two; on arm64 there are four"),
    ("a kernel that is not locked down", "there is no way back: that test runs last, by itself"),
];

/// What is known of tests, by their names.
#[derive(Clone, Debug, Default)]
pub(crate) struct TestResults {
    tests: BTreeMap<String, State>,
    /// A test that has begun, and after whose name the kernel has written to the console: its result has a line of its own.
    begun: Option<String>,
}

/// The best that is known of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Passed,
    /// Not run, and why.
    Ignored(String),
}

impl TestResults {
    /// Reads a line of output: `test NAME ... ok`, `test [WHY] NAME ... ignored` of a kernel test, or `test NAME ... ignored, WHY` of any other.
    pub(crate) fn read(&mut self, line: &str) {
        let (test, result) = match (line.trim().strip_prefix("test "), &self.begun) {
            (Some(rest), _) => match rest.split_once(" ... ") {
                Some((test, result)) => (test.to_owned(), result),
                None => return,
            },
            (None, Some(test)) => (test.clone(), line),
            (None, None) => return,
        };
        let (why, name) = match test.trim().strip_prefix('[').and_then(|test| test.split_once(']')) {
            Some((why, name)) => (why, name.trim()),
            None => ("ignored", test.trim()),
        };
        let (result, why) = result.trim().split_once(", ").unwrap_or((result.trim(), why));
        let state = match result {
            "ok" => State::Passed,
            "ignored" => State::Ignored(why.to_owned()),
            // Of that its program tells.
            "FAILED" => {
                self.begun = None;
                return;
            }
            _ => {
                self.begun = Some(test);
                return;
            }
        };
        let name = name.to_owned();
        self.begun = None;
        self.note(&name, &state);
    }

    /// What two have read.
    pub(crate) fn add(&mut self, other: &Self) {
        other.tests.iter().for_each(|(name, state)| self.note(name, state));
    }

    fn note(&mut self, name: &str, state: &State) {
        let known = self.tests.entry(name.to_owned()).or_insert_with(|| state.clone());
        if *state == State::Passed {
            *known = State::Passed;
        }
    }

    /// Names of those that have passed.
    pub(crate) fn passed(&self) -> impl Iterator<Item = &str> {
        self.tests.iter().filter(|(_, state)| **state == State::Passed).map(|(name, _)| &**name)
    }

    /// What [`Self::read`] takes, of those that have passed.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        self.passed().map(|name| format!("test {name} ... ok"))
    }

    /// Says which tests a guest could not run. One for whose reason nobody answers is a failure.
    pub(crate) fn report_left_out(&self, kernel: &str) -> Result<()> {
        let mut by_reason = BTreeMap::<&str, Vec<&str>>::new();
        for (name, state) in &self.tests {
            if let State::Ignored(reason) = state {
                by_reason.entry(reason).or_default().push(name);
            }
        }
        for (reason, names) in by_reason {
            let Some((_, why)) = NOT_IN_GUESTS.iter().find(|(known, _)| *known == reason) else {
                bail!("tests were not run on {kernel} ({reason}), and suite.rs does not say why: {}", names.join(", "));
            };
            println!("not run on {kernel}: {reason} ({why}): {}", names.join(", "));
        }
        Ok(())
    }

    /// Tests that ran nowhere and should have, and why they did not where they were seen last.
    pub(crate) fn never_run(&self) -> Vec<(&str, &str)> {
        let is_allowed = |name: &str| MAY_BE_IGNORED.iter().any(|(test, _)| *test == name);
        let unrun = self.tests.iter().filter_map(|(name, state)| match state {
            State::Ignored(why) if !is_allowed(name) => Some((&**name, &**why)),
            _ => None,
        });
        unrun.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_is_ignored_everywhere_is_told() {
        let mut suite = TestResults::default();
        for line in [
            "test            probes::one        ... ok",
            "test [no perf]  compare::two       ... ignored",
            "test [no kprobes] probes::three    ... ignored",
            "test            probes::four       ... FAILED",
            "testing nothing",
            "test            probes::five       ... [   81.2] the kernel says something",
            "[   81.3] and something else",
            "ok",
        ] {
            suite.read(line);
        }
        let mut elsewhere = TestResults::default();
        elsewhere.read("test probes::three ... ok");
        suite.add(&elsewhere);
        assert_eq!(suite.never_run(), [("compare::two", "no perf")]);
        suite.report_left_out("1.0").unwrap();
        suite.read("test writer::seven ... ignored, for today");
        assert_eq!(suite.never_run(), [("compare::two", "no perf"), ("writer::seven", "for today")]);
        suite.read("test writer::seven ... ok");
        suite.read("test [no time] probes::six ... ignored");
        let unknown = suite.report_left_out("1.0").unwrap_err().to_string();
        assert!(unknown.contains("no time") && unknown.contains("probes::six"), "{unknown}");
        assert_eq!(
            suite.lines().collect::<Vec<_>>(),
            [
                "test probes::five ... ok",
                "test probes::one ... ok",
                "test probes::three ... ok",
                "test writer::seven ... ok"
            ]
        );
    }
}
