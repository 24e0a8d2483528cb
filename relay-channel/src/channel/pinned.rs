//! A channel that outlives its process: its maps and its program, pinned.
//!
//! | pinned as | what |
//! |---|---|
//! | `control`, `buffers`, `wakers` | the maps that programs know |
//! | `buffer-N`, `waker-N` | what they have for CPU N |
//! | `flush` | the channel's own program |

use std::{
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::{Arc, OnceLock, PoisonError, RwLock},
};

use anyhow::{Context as _, Result, bail};
use aya::maps::MapData;
use relay_common::{Control, Geometry, MAX_RECORD, Mode};

use super::{Channel, ControlMapping, CpuMaps, Host, MappedBuffer};
use crate::{machine, pins::PinFolder};

const CONTROL: &str = "control";
const BUFFERS: &str = "buffers";
const WAKERS: &str = "wakers";
const FLUSH: &str = "flush";
const BUFFER: &str = "buffer-";
const WAKER: &str = "waker-";

pub(crate) fn pin_cpu(folder: &PinFolder, cpu: u32, buffer: BorrowedFd<'_>, waker: BorrowedFd<'_>) -> Result<()> {
    // A process that was killed here may have left the first.
    folder.replace(&format!("{WAKER}{cpu}"), waker)?;
    folder.replace(&format!("{BUFFER}{cpu}"), buffer)
}

impl Channel {
    /// Pins the channel, once an object is loaded: what is recorded stays when this process is gone, and can be read by whoever
    /// [opens](Self::open) it. What CPUs get that come online later is pinned too.
    ///
    /// ```no_run
    /// # use relay_common::{Geometry, Mode, Plain};
    /// # use relay_channel::{channel::{self, Channel}, pins::PinFolder};
    /// let geometry = Geometry::new(4096, 4)?;
    /// let channel = Channel::create(geometry, Mode::NoOverwrite, Plain)?;
    /// let ebpf = channel::load(&std::fs::read("programs.o")?, &[("KLOG", &channel)], aya::EbpfLoader::new())?;
    /// let folder = std::sync::Arc::new(PinFolder::create("example")?);
    /// channel.pin(&folder)?;
    /// drop((channel, ebpf));
    /// let again = Channel::open(&folder, geometry, Mode::NoOverwrite, Plain)?;
    /// # Ok::<(), anyhow::Error>(())
    /// ```
    ///
    /// # Errors
    /// When no object is loaded, or what the kernel says.
    pub fn pin(&self, folder: &Arc<PinFolder>) -> Result<()> {
        let request = self.request.get().context("no eBPF object is loaded for this channel")?;
        let cpus = self.cpus.write().unwrap_or_else(PoisonError::into_inner);
        // Under the lock: what CPUs get from now on is pinned by whoever gives it to them.
        let _ = self.folder.set(Arc::clone(folder));
        for (&cpu, maps) in &*cpus {
            pin_cpu(folder, cpu, maps.map.as_fd(), maps.waker.as_fd())?;
        }
        for (name, object) in
            [(CONTROL, &self.control_map), (BUFFERS, &self.buffers_map), (WAKERS, &self.wakers_map), (FLUSH, request)]
        {
            folder.pin(name, object.as_fd())?;
        }
        Ok(())
    }

    /// Opens a channel that is pinned. Geometry and mode are those that it was made with.
    ///
    /// # Errors
    /// When a part is missing, or is not what such a channel has.
    pub fn open(folder: &Arc<PinFolder>, geometry: Geometry, mode: Mode, host: impl Host) -> Result<Self> {
        let possible = machine::possible_cpus()?;
        let rows = possible.iter().max().map_or(0, |cpu| cpu + 1);
        let control_map = get(folder, CONTROL, size_of::<Control<u64>>() as u64, rows)?;
        let control =
            ControlMapping::new(control_map.as_fd(), rows).context("mapping the control rows of the channel")?;
        let channel = Self {
            geometry,
            mode,
            control_map,
            buffers_map: get(folder, BUFFERS, 4, rows)?,
            wakers_map: get(folder, WAKERS, 4, rows)?,
            control: Arc::new(control),
            cpus: RwLock::default(),
            possible,
            host: Box::new(host),
            request: OnceLock::from(folder.get(FLUSH)?),
            folder: OnceLock::from(Arc::clone(folder)),
        };
        for name in folder.names()? {
            let Some(cpu) = name.strip_prefix(BUFFER).and_then(|cpu| cpu.parse().ok()) else { continue };
            let map = get(folder, &name, geometry.buffer_size() + MAX_RECORD, 1)?;
            let waker = folder.get(&format!("{WAKER}{cpu}"))?;
            let buffer = MappedBuffer::new(map.as_fd(), Arc::clone(&channel.control), cpu, geometry)
                .with_context(|| format!("mapping the buffer of cpu {cpu}"))?;
            let mut cpus = channel.cpus.write().unwrap_or_else(PoisonError::into_inner);
            cpus.insert(cpu, CpuMaps { buffer: Arc::new(buffer), map, waker });
        }
        Ok(channel)
    }
}

/// Opens a pinned map, and sees to it that it is as large as what will be mapped.
fn get(folder: &PinFolder, name: &str, value_size: u64, entries: u32) -> Result<OwnedFd> {
    let map = folder.get(name)?;
    let what = || format!("looking at {}", folder.path().join(name).display());
    let info = MapData::from_fd(map.try_clone()?).and_then(|map| map.info()).with_context(what)?;
    if u64::from(info.value_size()) != value_size || info.max_entries() != entries {
        bail!(
            "{}: {} values of {} bytes are not the {entries} of {value_size} that a channel of this relayd has",
            folder.path().join(name).display(),
            info.max_entries(),
            info.value_size(),
        );
    }
    Ok(map)
}
