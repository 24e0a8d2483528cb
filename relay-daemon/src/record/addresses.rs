//! What a trace keeps so that the addresses in it get names: the kernel's symbols, and the files that processes' code is from.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use relay_common::recipe::context;

use super::{builds::Builds, text::Text};
use relay_channel::machine;
use relay_trace::form::{folder::Folder, kallsyms, session::SessionEvent, strings};

const KALLSYMS: &str = "/proc/kallsyms";

/// What has been seen so far, of what the context asks for.
#[derive(Default)]
pub(crate) struct Addresses {
    kernel: Option<Text>,
    strings: Option<Text>,
    builds: Option<Builds>,
}

impl Addresses {
    /// Begins to collect; of what happens from now on, what happens on `cpus`.
    pub(crate) fn watch(events: &[SessionEvent], context: u32, cpus: &[u32]) -> Self {
        let wanted = context & context::KSTACK != 0 || events.iter().any(SessionEvent::prints_symbols);
        let kernel = wanted.then(Text::default);
        let strings = events.iter().any(SessionEvent::prints_strings).then(Text::default);
        let builds = (context & context::USTACK != 0).then(|| Builds::watch(cpus));
        Self { kernel, strings, builds }
    }

    /// Adds what a recorder that was killed had saved: modules and programs may be gone.
    pub(crate) fn add_known(&mut self, folder: &Folder) {
        if let (Some(kernel), Ok(Some(known))) = (&mut self.kernel, kallsyms::read(folder)) {
            kernel.known = known;
        }
        if let (Some(texts), Ok(Some(known))) = (&mut self.strings, strings::read(folder)) {
            texts.known = known;
        }
        if let Some(builds) = &mut self.builds {
            builds.add_known(folder);
        }
    }

    /// To be called every second or so.
    pub(crate) fn poll(&mut self) {
        if let Some(builds) = &mut self.builds {
            builds.poll();
        }
    }

    /// Writes all that is known now, what was known before included, into the trace's own folder.
    pub(crate) fn save(&mut self, folder: &Path) -> Result<()> {
        if let Some(kernel) = &mut self.kernel {
            kernel.update(symbols(&kernel.known)?);
            kernel.save(&folder.join(kallsyms::FILE))?;
        }
        if let Some(texts) = &mut self.strings {
            let path = machine::tracefs()?.join(strings::FILE);
            match fs::read_to_string(&path) {
                Ok(now) => texts.update(strings::merge(&texts.known, &now)),
                Err(error) => log::warn!("reading {}: {error}: addresses of texts stay numbers", path.display()),
            }
            texts.save(&folder.join(strings::FILE))?;
        }
        if let Some(builds) = &mut self.builds {
            builds.poll();
            builds.add_mapped();
            builds.write(folder)?;
        }
        Ok(())
    }
}

/// The kernel's symbols now, and those of modules that it had before.
fn symbols(known: &str) -> Result<String> {
    let now = fs::read_to_string(KALLSYMS).with_context(|| format!("reading {KALLSYMS}"))?;
    let excerpt = kallsyms::excerpt(&now);
    if excerpt.is_none() {
        log::warn!("the kernel hides its addresses (sysctl kernel.kptr_restrict): they will have no names");
    }
    Ok(excerpt.map_or_else(|| known.to_owned(), |now| kallsyms::merge(known, &now)))
}
