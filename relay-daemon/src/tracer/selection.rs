//! From the lists of `-e` and `--limit` to the events of a session, each with all that is to be done at it.

use anyhow::{Context as _, Result, bail};
use relay_common::recipe::{Pattern, Recipe};

use super::{
    events::Event,
    probes::Finder,
    spec::{self, Spec},
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
                let same = selection.events.iter().position(|other| other.name == event.name && other.probe == event.probe);
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
        Ok(selection)
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
