//! From the lists of `-e` and `--limit` to the events of a session, each with all that is to be done at it.

use anyhow::{Context as _, Result, anyhow, bail};
use relay_common::recipe::{HIDDEN, Operator, Pattern, Recipe, flag};

use super::Finder;
use crate::{
    events::Event,
    values::layout::{self, Content, Value},
};
use relay_trace::condition::{
    expression::{Expression, ExpressionError, Source, Subject, TextSource},
    spec::{self, Spec},
    subjects::{of_task, recorded, unknown},
};

/// The highest rate that a limit can have, a second.
const FASTEST: u64 = 1_000_000_000;
/// A limit lets so much of a second's records come at once.
const BURST: u64 = 10;

/// The events of a session.
#[derive(Debug, Default)]
pub struct Selection {
    /// The events, in the order in which they were asked for.
    pub events: Vec<Event>,
    /// The patterns of their conditions.
    pub patterns: Vec<Pattern>,
}

impl Selection {
    /// Finds the events of the lists. `context`: something stands before every payload.
    ///
    /// # Errors
    /// What there is not, or is not understood.
    pub fn find(lists: &[String], latency: bool, limits: &[String], context: u32) -> Result<Self> {
        let specs = spec::parse(lists)?;
        let finder = Finder::new(latency)?;
        let mut selection = Self::default();
        let mut conditions: Vec<Option<String>> = Vec::new();
        for spec in &specs {
            for mut event in finder.find(spec)? {
                let same =
                    selection.events.iter().position(|other| other.name == event.name && other.probe == event.probe);
                if let Some(same) = same {
                    selection.again(same, &event, spec, &conditions[same])?;
                    continue;
                }
                if let Some(condition) = &spec.condition {
                    selection.set_condition(&finder, spec, &mut event, condition)?;
                }
                if context != 0 && event.recipe.is_none() {
                    event.recipe = Some(Box::new(Recipe::EMPTY));
                }
                conditions.push(spec.condition.clone());
                selection.events.push(event);
            }
        }
        for limit in limits {
            selection.set_limit(limit)?;
        }
        let is_return =
            |event: &Event| matches!(event.kind(), spec::Kind::Kretprobe | spec::Kind::Fexit | spec::Kind::Uretprobe);
        if latency && !selection.events.iter().any(is_return) {
            log::warn!("--latency is for kretprobe, fexit and uretprobe; none is selected");
        }
        Ok(selection)
    }

    /// Adds the events of `other`: the record of one of them ends the recording.
    pub fn until(&mut self, other: Self) {
        let first = self.patterns.len();
        for mut event in other.events {
            let same = |known: &&mut Event| {
                let tests = |event: &Event| event.recipe.as_ref().map_or(0, |recipe| recipe.n_tests);
                known.name == event.name && known.text == event.text && tests(known) == 0 && tests(&event) == 0
            };
            if let Some(known) = self.events.iter_mut().find(same) {
                known.recipe.get_or_insert_with(|| Box::new(Recipe::EMPTY)).flags |= flag::TRIGGER;
                known.explicit |= event.explicit;
                continue;
            }
            let recipe = event.recipe.get_or_insert_with(|| Box::new(Recipe::EMPTY));
            recipe.flags |= flag::TRIGGER;
            for test in recipe.tests.iter_mut().filter(|test| test.operator == Operator::Matches as u8) {
                test.pattern = test.pattern.saturating_add(u16::try_from(first).unwrap_or(u16::MAX));
            }
            self.events.push(event);
        }
        self.patterns.extend(other.patterns);
    }

    /// An event that was selected before.
    fn again(&mut self, index: usize, event: &Event, spec: &Spec, condition: &Option<String>) -> Result<()> {
        let first = &mut self.events[index];
        if *condition != spec.condition || first.text != event.text {
            bail!("{} is selected twice, with different arguments or conditions: '{}'", event.name, spec.text);
        }
        first.explicit |= event.explicit;
        Ok(())
    }

    /// Compiles an event's condition into its recipe.
    fn set_condition(&mut self, finder: &Finder, spec: &Spec, event: &mut Event, condition: &str) -> Result<()> {
        let refuse = |error: &ExpressionError| anyhow!("'{}': {}", spec.target, error.render());
        let expression = Expression::parse(condition).map_err(|error| refuse(&error))?;
        let mut recipe = event.recipe.take().unwrap_or_else(|| Box::new(Recipe::EMPTY));
        let mut fetching = *recipe;
        let mut hidden = HIDDEN;
        let mut resolve = |name: &str| {
            let subject = match recorded(&event.format.fields, name) {
                Some(subject) => return Ok(subject),
                None => finder.hidden(event, name).and_then(|value| {
                    value
                        .map(|value| {
                            let at = layout::hide(&value, &mut hidden, &mut fetching)?;
                            anyhow::Ok(subject_of(&value, at))
                        })
                        .transpose()
                }),
            };
            match subject {
                Ok(Some(subject)) => Ok(subject),
                Ok(None) => of_task(name).ok_or_else(|| unknown(&event.name, &event.format.fields, name)),
                Err(error) => of_task(name).ok_or_else(|| format!("{error:#}")),
            }
        };
        let mut tests = Recipe::EMPTY;
        let patterns = expression.compile(&mut resolve, &mut tests).map_err(|error| refuse(&error))?;
        (fetching.tests, fetching.n_tests) = (tests.tests, tests.n_tests);
        let first = u16::try_from(self.patterns.len())?;
        for test in fetching.tests.iter_mut().filter(|test| test.operator == Operator::Matches as u8) {
            test.pattern += first;
        }
        self.patterns.extend(patterns);
        *recipe = fetching;
        event.recipe = Some(recipe);
        Ok(())
    }

    /// `EVENT=RATE/s`
    fn set_limit(&mut self, limit: &str) -> Result<()> {
        let form = || format!("--limit '{limit}': give EVENT=RATE/s, like 'sched:sched_switch=10000/s'");
        let (name, rate) = limit.rsplit_once('=').with_context(form)?;
        let rate = rate.trim().strip_suffix("/s").unwrap_or(rate.trim());
        let rate: u64 = rate.parse().ok().filter(|rate| (1..=FASTEST).contains(rate)).with_context(form)?;
        let pattern = glob::Pattern::new(name.trim()).with_context(form)?;
        let mut found = false;
        for event in self.events.iter_mut().filter(|event| pattern.matches(&event.name)) {
            found = true;
            let recipe = event.recipe.get_or_insert_with(|| Box::new(Recipe::EMPTY));
            recipe.interval = FASTEST / rate;
            recipe.burst = FASTEST / BURST;
        }
        if !found {
            let names: Vec<_> = self.events.iter().take(5).map(|event| event.name.as_str()).collect();
            bail!("--limit '{limit}': no selected event is named so; there are: {}", names.join(", "));
        }
        Ok(())
    }
}

/// A value that only the condition needs.
fn subject_of(value: &Value, at: u16) -> Subject {
    match value.content {
        Content::Number { size, signed, .. } => Subject::Integer { source: Source::Payload(at), size, signed },
        Content::Text(len) => Subject::Text { source: TextSource::Fixed { at, len } },
        Content::String => Subject::Text { source: TextSource::Located { at, relative: false } },
        Content::Bytes(_) => Subject::Other("bytes".to_owned()),
    }
}
