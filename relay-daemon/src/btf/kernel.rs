//! The running kernel's BTF: its own, and its modules'.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result, bail};

use super::{Btf, Function};

/// The kernel's own, among the modules.
const VMLINUX: &str = "vmlinux";

/// The BTF of the kernel, and of its modules when they are asked for.
#[derive(Debug)]
pub struct Kernel {
    folder: PathBuf,
    vmlinux: Arc<Btf>,
    loaded: Mutex<HashMap<String, Arc<Btf>>>,
}

impl Kernel {
    /// Reads the kernel's BTF; the folder is `/sys/kernel/btf`.
    ///
    /// # Errors
    /// When the kernel has none, or it is not understood.
    pub fn load(folder: &Path) -> Result<Self> {
        let path = folder.join(VMLINUX);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                bail!("there is no {}: the kernel was built without CONFIG_DEBUG_INFO_BTF", path.display())
            }
            read => read.with_context(|| format!("reading {}", path.display()))?,
        };
        let vmlinux = Btf::parse(bytes, None).with_context(|| format!("parsing {}", path.display()))?;
        Ok(Self { folder: folder.to_path_buf(), vmlinux: Arc::new(vmlinux), loaded: Mutex::default() })
    }

    /// The kernel's own.
    #[must_use]
    pub fn vmlinux(&self) -> &Arc<Btf> {
        &self.vmlinux
    }

    /// A loaded module's, on top of the kernel's. It is read once.
    ///
    /// # Errors
    /// When no such module is loaded, it has no BTF, or that is not understood.
    pub fn module(&self, name: &str) -> Result<Arc<Btf>> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(btf) = loaded.get(name) {
            return Ok(Arc::clone(btf));
        }
        // Only names from the folder: another one could lead out of it.
        if !self.modules().iter().any(|module| module == name) {
            bail!("no module '{name}' is loaded, or it was built without BTF");
        }
        let path = self.folder.join(name);
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let btf = Btf::parse(bytes, Some(Arc::clone(&self.vmlinux)));
        let btf = Arc::new(btf.with_context(|| format!("parsing {}", path.display()))?);
        loaded.insert(name.to_owned(), Arc::clone(&btf));
        Ok(btf)
    }

    /// Names of the loaded modules that have BTF, sorted.
    #[must_use]
    pub fn modules(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.retain(|name| name != VMLINUX);
        names.sort_unstable();
        names
    }

    /// Looks for a function in the kernel, then in every module: where it is, the module's name, and the function.
    #[must_use]
    pub fn find_function(&self, name: &str) -> Option<(Arc<Btf>, Option<String>, Function)> {
        if let Some(function) = self.vmlinux.function(name) {
            return Some((Arc::clone(&self.vmlinux), None, function));
        }
        self.modules().into_iter().find_map(|module| {
            let btf = match self.module(&module) {
                Ok(btf) => btf,
                Err(error) => {
                    log::warn!("left out the module {module}: {error:#}");
                    return None;
                }
            };
            let function = btf.function(name)?;
            Some((btf, Some(module), function))
        })
    }
}
