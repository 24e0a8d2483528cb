//! What a trace keeps so that the addresses in it get names: the kernel's symbols, and the files that processes' code is from.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use relay_common::recipe::context;

use super::builds::Builds;
use relay_trace::form::{folder::Folder, kallsyms, replace, session::SessionEvent, share};

const KALLSYMS: &str = "/proc/kallsyms";

/// What has been seen so far, of what the context asks for.
#[derive(Default)]
pub(crate) struct Addresses {
    kernel: Option<Symbols>,
    builds: Option<Builds>,
}

/// The kernel's symbols: megabytes that seldom change.
#[derive(Default)]
struct Symbols {
    known: String,
    /// Where they are written as they are known.
    written: Option<PathBuf>,
}

impl Addresses {
    /// Begins to collect; of what happens from now on, what happens on `cpus`.
    pub(crate) fn watch(events: &[SessionEvent], context: u32, cpus: &[u32]) -> Self {
        let wanted = context & context::KSTACK != 0 || events.iter().any(SessionEvent::prints_symbols);
        let kernel = wanted.then(Symbols::default);
        let builds = (context & context::USTACK != 0).then(|| Builds::watch(cpus));
        Self { kernel, builds }
    }

    /// Adds what a recorder that was killed had saved: modules and programs may be gone.
    pub(crate) fn add_known(&mut self, folder: &Folder) {
        if let (Some(kernel), Ok(Some(known))) = (&mut self.kernel, kallsyms::read(folder)) {
            kernel.known = known;
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
            kernel.save(folder)?;
        }
        if let Some(builds) = &mut self.builds {
            builds.poll();
            builds.add_mapped();
            builds.write(folder)?;
        }
        Ok(())
    }
}

impl Symbols {
    fn save(&mut self, folder: &Path) -> Result<()> {
        let now = fs::read_to_string(KALLSYMS).with_context(|| format!("reading {KALLSYMS}"))?;
        match kallsyms::excerpt(&now).map(|now| kallsyms::merge(&self.known, &now)) {
            Some(known) if known == self.known => {}
            Some(known) => (self.known, self.written) = (known, None),
            None => {
                log::warn!("the kernel hides its addresses (sysctl kernel.kptr_restrict): they will have no names")
            }
        }
        let path = folder.join(kallsyms::FILE);
        let is_there = match &self.written {
            Some(written) if *written == path => fs::symlink_metadata(&path).is_ok(),
            // Of the pieces of a trace each is whole, and most have the same symbols.
            Some(written) => share(written, &path).is_ok(),
            None => false,
        };
        if !is_there {
            replace(&path, self.known.as_bytes()).with_context(|| format!("writing {}", path.display()))?;
        }
        self.written = Some(path);
        Ok(())
    }
}
