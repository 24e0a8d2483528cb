//! A channel's maps: made at the geometry wanted, handed to an eBPF object, mapped for the reader.
//!
//! aya fixes a map's size in the object, but takes a map that is pinned under the name as it is. So the maps are
//! made here, pinned for the moment of loading, and unpinned after. What the bytes mean is not known here.

use std::{
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData, RingBuf},
};
use relay_common::{Control, Geometry, MAX_RECORD, Mode};

use crate::{
    machine,
    sys::{ControlMapping, MapCreate, MappedBuffer, create_map, fill_map_of_maps},
};

const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;
const BPF_MAP_TYPE_RINGBUF: u32 = 27;
const BPF_F_NUMA_NODE: u32 = 1 << 2;
const BPF_F_MMAPABLE: u32 = 1 << 10;
/// No node in particular (`NUMA_NO_NODE`).
const ANY_NODE: u32 = u32::MAX;
/// Bytes of a ring buffer that wakes a reader: the least there is.
const WAKER_SIZE: u32 = 4096;

/// The names of a channel's maps and settings in its eBPF object.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// The control rows.
    pub control: &'static str,
    /// The buffers.
    pub buffers: &'static str,
    /// The wakers.
    pub wakers: &'static str,
    /// Geometry and mode.
    pub settings: &'static str,
}

impl Default for Names {
    fn default() -> Self {
        Self { control: "CONTROL", buffers: "BUFFERS", wakers: "WAKERS", settings: "SETTINGS" }
    }
}

/// A channel: one buffer for every CPU that was online when it was made.
#[derive(Debug)]
pub struct Channel {
    geometry: Geometry,
    mode: Mode,
    /// `relay_ebpf::channel::Settings`.
    settings: [u32; 3],
    control_map: OwnedFd,
    buffers_map: OwnedFd,
    wakers_map: OwnedFd,
    control: Arc<ControlMapping>,
    buffers: Vec<Arc<MappedBuffer>>,
    wakers: Vec<OwnedFd>,
    possible: Vec<u32>,
}

impl Channel {
    /// Makes the maps of a channel.
    ///
    /// # Errors
    /// When memory does not suffice or the kernel refuses.
    pub fn create(geometry: Geometry, mode: Mode) -> Result<Self> {
        let (possible, online) = (machine::possible_cpus()?, machine::online_cpus()?);
        let rows = possible.iter().max().map_or(0, |cpu| cpu + 1);
        check_memory(geometry, online.len())?;
        let control_map = create(MapCreate {
            map_type: BPF_MAP_TYPE_ARRAY,
            key_size: 4,
            value_size: u32::try_from(size_of::<Control<u64>>())?,
            max_entries: rows,
            map_flags: BPF_F_MMAPABLE,
            map_name: *b"relay_control\0\0\0",
            ..MapCreate::default()
        })?;
        let control = Arc::new(
            ControlMapping::new(control_map.as_fd(), rows).context("mapping the control rows of the channel")?,
        );
        let inner = |cpu| buffer_map(geometry, cpu);
        let (buffers_map, buffer_maps) = map_of_maps(rows, &online, *b"relay_buffers\0\0\0", inner)
            .with_context(|| format!("making {} buffers of {} bytes", online.len(), geometry.buffer_size()))?;
        let (wakers_map, wakers) = map_of_maps(rows, &online, *b"relay_wakers\0\0\0\0", |_| waker_map())
            .context("making the readers' wakers")?;
        let buffers = buffer_maps
            .iter()
            .zip(&online)
            .map(|(map, &cpu)| {
                let buffer = MappedBuffer::new(map.as_fd(), Arc::clone(&control), cpu, geometry);
                Ok(Arc::new(buffer.with_context(|| format!("mapping the buffer of cpu {cpu}"))?))
            })
            .collect::<Result<_>>()?;
        let (subbuf_shift, n_subbufs_shift) = geometry.shifts();
        let settings = [subbuf_shift, n_subbufs_shift, u32::from(mode == Mode::Overwrite)];
        Ok(Self { geometry, mode, settings, control_map, buffers_map, wakers_map, control, buffers, wakers, possible })
    }

    /// Loads an eBPF object with this channel's maps and settings in place of its own. The programs are still to be
    /// loaded one by one.
    ///
    /// # Errors
    /// When the BPF file system is not there or the object does not load.
    pub fn load<'a>(&'a self, object: &[u8], names: Names, loader: &mut EbpfLoader<'a>) -> Result<Ebpf> {
        if object.is_empty() {
            bail!("this relayd was built without its eBPF programs (RELAYD_SKIP_EBPF was set): build it again");
        }
        let mut pins = Pins::create()?;
        loader.override_global(names.settings, self.settings.as_slice(), true);
        for (name, map) in
            [(names.control, &self.control_map), (names.buffers, &self.buffers_map), (names.wakers, &self.wakers_map)]
        {
            loader.map_pin_path(name, pins.pin(name, map.as_fd())?);
        }
        loader.load(object).context("loading the eBPF object")
    }

    /// The geometry.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The mode.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The buffers, one per CPU that has one.
    #[must_use]
    pub fn buffers(&self) -> &[Arc<MappedBuffer>] {
        &self.buffers
    }

    /// The control rows.
    #[must_use]
    pub fn control(&self) -> &ControlMapping {
        &self.control
    }

    /// CPUs that may ever come online: those that have a control row.
    #[must_use]
    pub fn possible(&self) -> &[u32] {
        &self.possible
    }

    /// Waits until every program that was running has returned: the kernel does so whenever an element of a map of maps is
    /// replaced, so that user space knows who uses the new one (kernel/bpf/syscall.c, `maybe_wait_bpf_programs`).
    /// One is replaced by itself.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn wait_for_running_programs(&self) -> Result<()> {
        let (Some(waker), Some(buffer)) = (self.wakers.first(), self.buffers.first()) else { return Ok(()) };
        fill_map_of_maps(self.wakers_map.as_fd(), &[(buffer.cpu(), waker.as_fd())])
            .context("waiting for running programs")
    }

    /// What wakes the reader of the `index`-th buffer.
    ///
    /// # Errors
    /// When the ring buffer cannot be mapped.
    pub fn waker(&self, index: usize) -> Result<RingBuf<MapData>> {
        let fd = self.wakers.get(index).with_context(|| format!("no buffer {index}"))?.try_clone()?;
        RingBuf::try_from(Map::RingBuf(MapData::from_fd(fd)?)).context("mapping a reader's waker")
    }
}

fn check_memory(geometry: Geometry, cpus: usize) -> Result<()> {
    let needed = (geometry.buffer_size() + MAX_RECORD).saturating_mul(cpus as u64);
    let available = machine::available_memory()?;
    if needed > available {
        bail!(
            "{cpus} buffers of {} sub-buffers of {} bytes need {} MiB of memory and {} MiB are available: \
             make the sub-buffers (-b) smaller or fewer (-n)",
            geometry.n_subbufs(),
            geometry.subbuf_size(),
            needed >> 20,
            available >> 20,
        );
    }
    Ok(())
}

fn buffer_map(geometry: Geometry, cpu: Option<u32>) -> Result<OwnedFd> {
    create(MapCreate {
        map_type: BPF_MAP_TYPE_ARRAY,
        key_size: 4,
        value_size: u32::try_from(geometry.buffer_size() + MAX_RECORD)?,
        max_entries: 1,
        // The flag must be on the template as on every inner map; the node may differ.
        map_flags: BPF_F_MMAPABLE | BPF_F_NUMA_NODE,
        numa_node: cpu.and_then(machine::numa_node).unwrap_or(ANY_NODE),
        map_name: *b"relay_buffer\0\0\0\0",
        ..MapCreate::default()
    })
}

fn waker_map() -> Result<OwnedFd> {
    create(MapCreate {
        map_type: BPF_MAP_TYPE_RINGBUF,
        max_entries: WAKER_SIZE,
        map_name: *b"relay_waker\0\0\0\0\0",
        ..MapCreate::default()
    })
}

/// A map of maps with `rows` places and an inner map at the places of `cpus`.
fn map_of_maps(
    rows: u32,
    cpus: &[u32],
    map_name: [u8; 16],
    inner: impl Fn(Option<u32>) -> Result<OwnedFd>,
) -> Result<(OwnedFd, Vec<OwnedFd>)> {
    let maps = cpus.iter().map(|&cpu| inner(Some(cpu))).collect::<Result<Vec<_>>>()?;
    let template = maps.first().context("no CPU is online")?;
    let outer = create(MapCreate {
        map_type: BPF_MAP_TYPE_ARRAY_OF_MAPS,
        key_size: 4,
        value_size: 4,
        max_entries: rows,
        inner_map_fd: template.as_raw_fd().cast_unsigned(),
        map_name,
        ..MapCreate::default()
    })?;
    let places: Vec<(u32, BorrowedFd<'_>)> = cpus.iter().zip(&maps).map(|(&cpu, map)| (cpu, map.as_fd())).collect();
    fill_map_of_maps(outer.as_fd(), &places).context("filling a map of maps")?;
    Ok((outer, maps))
}

fn create(attr: MapCreate) -> Result<OwnedFd> {
    let (kind, size) = (attr.map_type, attr.value_size);
    create_map(attr).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => anyhow::Error::new(error)
            .context("making a BPF map was not permitted: run as root, or with CAP_BPF and CAP_PERFMON"),
        _ => anyhow::Error::new(error).context(format!("making a BPF map of type {kind} with values of {size} bytes")),
    })
}

/// A folder in the BPF file system for the moment of loading. It goes when this is dropped.
struct Pins {
    folder: PathBuf,
    pinned: Vec<PathBuf>,
}

impl Pins {
    fn create() -> Result<Self> {
        let base = machine::bpffs()?.join("relayd");
        let folder = base.join(format!("load-{}-{}", std::process::id(), fresh_number()));
        for path in [&base, &folder] {
            match create_private_dir(path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path == &base => {}
                other => other.with_context(|| format!("making {} to hand maps to the kernel side", path.display()))?,
            }
        }
        Ok(Self { folder, pinned: Vec::new() })
    }

    fn pin(&mut self, name: &str, map: BorrowedFd<'_>) -> Result<PathBuf> {
        let path = self.folder.join(name);
        MapData::from_fd(map.try_clone_to_owned()?)?
            .pin(&path)
            .with_context(|| format!("pinning a map at {}", path.display()))?;
        self.pinned.push(path.clone());
        Ok(path)
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let removed = self.pinned.iter().try_for_each(fs::remove_file);
        if let Err(error) = removed.and_then(|()| fs::remove_dir(&self.folder)) {
            log::warn!("{} stays behind: {error}", self.folder.display());
        }
    }
}

fn create_private_dir(path: &Path) -> io::Result<()> {
    std::os::unix::fs::DirBuilderExt::mode(&mut fs::DirBuilder::new(), 0o700).create(path)
}

/// Different at every call in this process.
fn fresh_number() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}
