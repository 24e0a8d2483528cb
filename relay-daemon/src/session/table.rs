//! What the programs look up at an event: made of the events of a session in one place, before anything is loaded.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use relay_common::recipe::{Operator, Pattern, Recipe, flag, input};

use crate::{kernel::served::Served, probe::Event};

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;
/// A limit lets so much of a second's records come at once.
const BURST: u64 = SECOND / 10;

/// What the programs look up.
#[derive(Debug, Default)]
pub(crate) struct EventTable {
    /// By the events' ids; without those whose fields are copied and that have no condition.
    recipes: BTreeMap<u16, Recipe>,
    /// All text patterns, as recipes number them: first those that name threads.
    patterns: Vec<Pattern>,
}

impl EventTable {
    /// The table of these events. `names`: patterns of the threads whose events are recorded; `has_context`: something stands before every payload.
    ///
    /// # Errors
    /// When there are too many patterns.
    pub(crate) fn new(events: &[Event], names: Vec<Pattern>, has_context: bool) -> Result<Self> {
        let mut table = Self { recipes: BTreeMap::new(), patterns: names };
        let mut lanes = BTreeMap::new();
        for event in events {
            let is_plain = event.values.is_none()
                && event.condition.is_none()
                && event.limit.is_none()
                && !event.is_trigger
                && !event.probe.is_by_recipe()
                && !has_context;
            if !is_plain {
                let mut recipe = recipe(event, table.patterns.len())?;
                if let Some((call, _)) = event.probe.call().filter(|_| event.pair.is_some()) {
                    let lane = lanes.entry(call).or_insert(0u16);
                    recipe.lane = *lane;
                    *lane = lane.checked_add(1).context("too many events of one system call")?;
                }
                table.patterns.extend(event.condition.iter().flat_map(|condition| &condition.patterns));
                table.recipes.insert(event.id, recipe);
            }
        }
        Ok(table)
    }

    /// The recipes, by the events' ids.
    pub(crate) fn recipes(&self) -> &BTreeMap<u16, Recipe> {
        &self.recipes
    }

    /// The patterns that the recipes name, by their places.
    pub(crate) fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    /// An event as the programs know it that serve it.
    ///
    /// # Errors
    /// When the fields are longer than a record can be.
    pub(crate) fn served<'a>(&self, event: &'a Event) -> Result<Served<'a>> {
        Ok(Served {
            name: &event.name,
            cookie: event.cookie()?,
            by_recipe: self.recipes.contains_key(&event.id),
            is_pair: event.pair.is_some(),
            is_trigger: event.is_trigger,
        })
    }
}

/// What is to be done at an event; the patterns of its condition come after so many others.
fn recipe(event: &Event, patterns: usize) -> Result<Recipe> {
    let mut recipe = Recipe::EMPTY;
    let recorded = event.values.iter().flat_map(|values| &values.fetches);
    let hidden = event.condition.iter().flat_map(|condition| &condition.hidden);
    for (to, fetch) in recipe.fetches.iter_mut().zip(recorded.chain(hidden)) {
        *to = *fetch;
        recipe.n_fetches += 1;
    }
    if let Some(values) = &event.values {
        recipe.n_entry = u8::try_from(values.n_entry)?;
        recipe.size = values.size;
    }
    if let Some(pair) = event.pair {
        recipe.flags |= flag::PAIR;
        recipe.flags |= if pair.is_single { flag::SINGLE } else { 0 };
        recipe.flags |= if pair.at_exec { flag::AT_EXEC } else { 0 };
        recipe.frame = pair.frame.unwrap_or(input::WORDS);
    }
    if event.is_trigger {
        recipe.flags |= flag::TRIGGER;
    }
    let first = u16::try_from(patterns).context("the text patterns of all conditions")?;
    for (to, test) in recipe.tests.iter_mut().zip(event.condition.iter().flat_map(|condition| &condition.tests)) {
        *to = *test;
        if test.operator == Operator::Matches as u8 {
            to.pattern = test.pattern.checked_add(first).context("the text patterns of all conditions")?;
        }
        recipe.n_tests += 1;
    }
    if let Some(rate) = event.limit {
        recipe.interval = SECOND / rate;
        recipe.burst = BURST;
    }
    Ok(recipe)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        kernel::{attach::Attached, hook::Hook},
        probe::{Condition, Pair, Probe},
        values::layout::{self, RecordedValue, Stored},
    };
    use relay_common::recipe::{Fetch, Glyph, HIDDEN, Test};
    use relay_trace::{condition::spec::ProbeKind, form::format::Format};

    #[derive(Debug)]
    struct Nowhere;

    impl Probe for Nowhere {
        fn hook(&self) -> Hook<'static> {
            Hook::Tracepoint
        }
        fn can_run_in_nmi(&self) -> bool {
            false
        }
        fn attach(&self, _: &Served<'_>, _: &mut Attached) -> Result<()> {
            Ok(())
        }
    }

    /// A tracepoint without anything but a condition with so many patterns.
    fn event(id: u16, patterns: u16) -> Event {
        let pattern = Pattern::new(std::iter::once(Glyph::Any)).unwrap();
        let test = |pattern| Test { operator: Operator::Matches as u8, pattern, ..Test::default() };
        let condition = (patterns > 0).then(|| Condition {
            tests: (0..patterns).map(test).chain([Test::default()]).collect(),
            patterns: vec![pattern; patterns.into()],
            hidden: Vec::new(),
        });
        Event {
            id,
            name: format!("x:{id}"),
            kind: ProbeKind::Tracepoint,
            explicit: true,
            probe: Arc::new(Nowhere),
            format: Format { id: 0, fields: Vec::new() },
            text: String::new(),
            values: None,
            pair: None,
            condition,
            limit: None,
            is_trigger: false,
        }
    }

    #[test]
    fn patterns_come_after_those_of_names_and_of_events_before() {
        let name = Pattern::new(std::iter::once(Glyph::Run)).unwrap();
        let events = [event(3, 2), event(4, 0), event(5, 1)];
        let table = EventTable::new(&events, vec![name; 4], false).unwrap();
        let numbers = |id| {
            let recipe: &Recipe = &table.recipes()[&id];
            recipe.tests[..usize::from(recipe.n_tests)].iter().map(|test| test.pattern).collect::<Vec<_>>()
        };
        assert_eq!((numbers(3), numbers(5)), (vec![4, 5, 0], vec![6, 0]));
        assert_eq!((table.patterns().len(), table.recipes().len()), (7, 2));
        let by_recipe = |event| table.served(event).unwrap().by_recipe;
        assert_eq!(events.each_ref().map(by_recipe), [true, false, true]);
        assert_eq!(EventTable::new(&events, Vec::new(), true).unwrap().recipes().len(), 3);
    }

    #[test]
    fn a_recipe_has_all_that_an_event_says() {
        let value = RecordedValue {
            name: "a".to_owned(),
            c_type: "int".to_owned(),
            content: Stored::Number { size: 4, signed: true, hexadecimal: false },
            fetch: layout::input(1, 4),
        };
        let (values, _) = layout::lay_out("x", vec![value.clone(), value], 1).unwrap();
        let mut event = Event { values: Some(values), limit: Some(1000), is_trigger: true, ..event(0, 1) };
        event.pair = Some(Pair { frame: Some(19), is_single: true, at_exec: true });
        event.condition.as_mut().unwrap().hidden.push(Fetch { to: HIDDEN, ..Fetch::default() });
        let recipe = recipe(&event, 0).unwrap();
        assert_eq!((recipe.n_fetches, recipe.n_entry, recipe.n_tests, recipe.size), (3, 1, 2, 8));
        assert_eq!((recipe.fetches[1].to, recipe.fetches[2].to), (4, HIDDEN));
        assert_eq!((recipe.interval, recipe.burst, recipe.frame), (1_000_000, SECOND / 10, 19));
        assert_eq!(recipe.flags, flag::PAIR | flag::SINGLE | flag::TRIGGER | flag::AT_EXEC);
        event.pair = None;
        assert_eq!(super::recipe(&event, 0).unwrap().frame, input::WORDS);
    }
}
