//! Which tests have run, as their programs' output tells: a test that is ignored everywhere is not tested.

use std::collections::BTreeMap;

/// Kernel tests that run on no machine of the matrix, and why.
const MAY_BE_IGNORED: [(&str, &str); 0] = [];

/// What is known of tests, by their names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Suite {
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

impl Suite {
    /// Reads a line of output: `test NAME ... ok`, or `test [WHY] NAME ... ignored`.
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
        let state = match result.trim() {
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
        let mut suite = Suite::default();
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
        let mut elsewhere = Suite::default();
        elsewhere.read("test probes::three ... ok");
        suite.add(&elsewhere);
        assert_eq!(suite.never_run(), [("compare::two", "no perf")]);
        assert_eq!(
            suite.lines().collect::<Vec<_>>(),
            ["test probes::five ... ok", "test probes::one ... ok", "test probes::three ... ok"]
        );
    }
}
