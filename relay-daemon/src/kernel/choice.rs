//! Whose events are recorded: processes, threads, users, CPUs, cgroups, names of threads.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use relay_common::{
    recipe::{Glyph, MAX_PATTERN, Pattern, choice},
    rows::Cgroup,
};
use serde::{Deserialize, Serialize};

/// What was asked for. Each list that is not empty is a condition; all of them must hold.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Choice {
    /// Processes.
    pub pids: Vec<u32>,
    /// Threads.
    pub tids: Vec<u32>,
    /// Users.
    pub uids: Vec<u32>,
    /// CPUs.
    pub cpus: Vec<u32>,
    /// Folders of cgroups: tasks in them and below.
    pub cgroups: Vec<PathBuf>,
    /// Names of threads, with `*` and `?`.
    pub names: Vec<String>,
    /// Processes that chosen processes start are chosen too.
    pub follow: bool,
    /// The processes that relayd starts are the first that are chosen.
    pub own_children: bool,
}

impl Choice {
    /// The bits of `relay_common::recipe::choice` for what is chosen.
    #[must_use]
    pub fn bits(&self) -> u32 {
        let lists = [
            (choice::PID, self.pids.is_empty() && !self.own_children),
            (choice::TID, self.tids.is_empty()),
            (choice::UID, self.uids.is_empty()),
            (choice::CPU, self.cpus.is_empty()),
            (choice::CGROUP, self.cgroups.is_empty()),
            (choice::NAME, self.names.is_empty()),
        ];
        lists.iter().filter(|(_, is_empty)| !is_empty).map(|(bit, _)| bit).sum()
    }

    /// The keys of everything that is chosen by number.
    pub fn keys(&self) -> impl Iterator<Item = u64> {
        let lists = [
            (choice::PID, &self.pids),
            (choice::TID, &self.tids),
            (choice::UID, &self.uids),
            (choice::CPU, &self.cpus),
        ];
        lists
            .into_iter()
            .flat_map(|(bit, numbers)| numbers.iter().map(move |number| choice::key(bit, u64::from(*number))))
    }

    /// The patterns of names.
    ///
    /// # Errors
    /// When there are too many, or one is too long.
    pub fn patterns(&self) -> Result<Vec<Pattern>> {
        if self.names.len() > choice::MAX_NAMES as usize {
            bail!("{} names of threads are more than {}", self.names.len(), choice::MAX_NAMES);
        }
        self.names.iter().map(|name| pattern(name)).collect()
    }

    /// Level and id of every cgroup.
    ///
    /// # Errors
    /// When one is not a cgroup.
    pub fn cgroup_ids(&self) -> Result<Vec<Cgroup>> {
        if self.cgroups.len() > choice::MAX_CGROUPS as usize {
            bail!("{} cgroups are more than {}", self.cgroups.len(), choice::MAX_CGROUPS);
        }
        if self.cgroups.is_empty() {
            return Ok(Vec::new());
        }
        let root = cgroup_root()?;
        self.cgroups.iter().map(|path| cgroup(&root, path)).collect()
    }
}

fn pattern(name: &str) -> Result<Pattern> {
    const MOST: usize = 15;
    if name.is_empty() || name.len() > MOST && !name.contains('*') {
        bail!("no thread is named '{name}': names of threads have 1 to {MOST} characters; what is longer is cut off");
    }
    let glyphs = name.bytes().map(|byte| match byte {
        b'*' => Glyph::Run,
        b'?' => Glyph::Any,
        byte => Glyph::Byte(byte),
    });
    Pattern::new(glyphs).with_context(|| format!("the name '{name}' is longer than {MAX_PATTERN} characters"))
}

/// Where the unified hierarchy of cgroups is mounted.
pub(crate) fn cgroup_root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
    let root = mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        after.starts_with("cgroup2 ").then(|| PathBuf::from(before.split(' ').nth(4).unwrap_or_default()))
    });
    root.context("the unified hierarchy of cgroups is not mounted: mount -t cgroup2 none /sys/fs/cgroup")
}

/// Level below the root, and id, of a cgroup: `/sys/fs/cgroup/system.slice` or `/system.slice`.
fn cgroup(root: &Path, path: &Path) -> Result<Cgroup> {
    let below = match path.strip_prefix(root) {
        Ok(below) => below.to_owned(),
        Err(_) => path.strip_prefix("/").unwrap_or(path).to_owned(),
    };
    if below.components().any(|component| matches!(component, Component::ParentDir)) {
        bail!("the cgroup '{}': name it without ..", path.display());
    }
    let folder = root.join(&below);
    let metadata = fs::metadata(&folder).with_context(|| {
        format!(
            "there is no cgroup {} in the unified hierarchy, which is mounted at {}",
            path.display(),
            root.display()
        )
    })?;
    if !folder.join("cgroup.procs").exists() {
        bail!("{} is not a cgroup", folder.display());
    }
    let level = below.components().filter(|component| matches!(component, Component::Normal(_))).count();
    Ok(Cgroup { level: level as u64, id: metadata.ino() })
}

/// `0-3,8`: CPUs, as the kernel writes lists of them.
///
/// # Errors
/// What is not understood.
pub fn parse_cpus(text: &str) -> Result<Vec<u32>> {
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<u32>().with_context(|| format!("'{text}' is not a CPU's number"));
        let (first, last) = (number(first)?, number(last)?);
        if last < first || last > 65535 {
            bail!("'{part}' is not a range of CPUs");
        }
        cpus.extend(first..=last);
    }
    Ok(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_chosen_sets_its_bit_and_keys() {
        let choice = Choice { pids: vec![7], cpus: parse_cpus("0-2,5").unwrap(), ..Choice::default() };
        assert_eq!(choice.bits(), choice::PID | choice::CPU);
        let keys: Vec<_> = choice.keys().collect();
        assert_eq!(keys, [1 << 32 | 7, 8 << 32, 8 << 32 | 1, 8 << 32 | 2, 8 << 32 | 5]);
        assert_eq!(Choice::default().bits(), 0);
    }

    #[test]
    fn lists_of_cpus_that_are_none_are_refused() {
        for text in ["", "a", "3-1", "0-99999999", "1-"] {
            assert!(parse_cpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_cgroup_has_its_level_and_its_id() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        fs::write(root.path().join("a/b/cgroup.procs"), "").unwrap();
        let found @ Cgroup { level, id } = cgroup(root.path(), Path::new("/a/b")).unwrap();
        assert_eq!((level, id), (2, fs::metadata(root.path().join("a/b")).unwrap().ino()));
        assert_eq!(cgroup(root.path(), &root.path().join("a/b")).unwrap(), found);
        assert!(cgroup(root.path(), Path::new("/a")).is_err(), "no cgroup.procs");
        assert!(cgroup(root.path(), Path::new("/a/../b")).is_err());
    }
}
