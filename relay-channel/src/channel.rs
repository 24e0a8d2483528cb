//! A channel's maps: made at the geometry wanted, handed to an eBPF object, mapped for the reader.
//!
//! aya fixes a map's size in the object, but takes a map that is pinned under the name as it is. So the maps are
//! made here, pinned for the moment of loading, and unpinned after. What the bytes mean is not known here.
//!
//! | relay | here |
//! |---|---|
//! | `relay_open` | [`Channel::create`], then [`load`] |
//! | `relay_write`, `relay_reserve` | in eBPF: `relay_ebpf::channel` |
//! | `relay_flush` | [`Channel::flush`], for one CPU |
//! | `relay_subbufs_consumed` | [`Reader::release`], which [`crate::consumer`] calls |
//! | `relay_buf_full`, `relay_buf_empty`, `relay_stats` | [`Channel::counters`] |
//! | `relay_reset` | [`Channel::reset`] |
//! | `relay_close` | dropping the [`Channel`], and the programs; it flushes nothing |
//! | `struct rchan_callbacks` | [`Client`] in eBPF, [`Host`] here |

mod pinned;

use std::{
    collections::BTreeMap,
    fmt, io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    sync::{Arc, OnceLock, PoisonError, RwLock},
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData, RingBuf},
    programs::{Program, RawTracePoint},
};
use aya_obj::generated::{BPF_F_MMAPABLE, BPF_F_NUMA_NODE, bpf_map_type};
use relay_common::{Control, Counters, Geometry, MAX_RECORD, Mode, Plain, Request};

#[cfg(doc)]
use relay_common::{Client, Reader};

pub use crate::sys::{ControlMapping, MappedBuffer};
use crate::{
    bpf, machine,
    pins::{self, PinFolder},
    sys::{MapCreate, create_map, fill_map_of_maps},
};

/// No node in particular (`NUMA_NO_NODE`).
const ANY_NODE: u32 = u32::MAX;

/// A channel's user as user space sees it. What its programs do is `relay_common::Client`'s.
///
/// ```
/// use relay_channel::channel::{Host, MappedBuffer};
///
/// /// Every sub-buffer has a header of eight bytes, which says what the file is.
/// struct Magic;
///
/// impl Host for Magic {
///     fn buffer_made(&self, buffer: &MappedBuffer) -> std::io::Result<()> {
///         let geometry = buffer.geometry();
///         (0..geometry.n_subbufs())
///             .try_for_each(|number| buffer.store(geometry.begin(number) + relay_common::HEADER, b"my bytes"))
///     }
/// }
/// ```
pub trait Host: Send + Sync + 'static {
    /// A buffer was made, and no program writes to it yet (`create_buf_file`): what is the same in every sub-buffer can
    /// be written here, once.
    ///
    /// # Errors
    /// What keeps the buffer from being used.
    #[doc(alias = "create_buf_file")]
    fn buffer_made(&self, _buffer: &MappedBuffer) -> io::Result<()> {
        Ok(())
    }
}

impl Host for Plain {}

/// A channel: one buffer for every CPU that is or has been online since it was made.
///
/// ```no_run
/// use std::sync::Arc;
///
/// use aya::EbpfLoader;
/// use relay_common::{Geometry, Mode, Plain};
/// use relay_channel::{
///     channel::{self, Channel},
///     output::CpuFile,
///     readers::Readers,
/// };
///
/// let folder = tempfile::tempdir()?;
/// let channel = Arc::new(Channel::create(Geometry::new(4096, 4)?, Mode::NoOverwrite, Plain)?);
/// let mut ebpf = channel::load(&std::fs::read("programs.o")?, &[("KLOG", &channel)], EbpfLoader::new())?;
/// let path = folder.path().to_path_buf();
/// let readers = Readers::start(Arc::clone(&channel), move |cpu| Ok(Box::new(CpuFile::create(&path, cpu)?)))?;
///
/// let program: &mut aya::programs::RawTracePoint = ebpf.program_mut("on_exec").unwrap().try_into()?;
/// program.load()?;
/// let link = program.attach("sched_process_exec")?;
/// std::process::Command::new("true").status()?;
///
/// // Detach, then drain: every record is in the files.
/// program.detach(link)?;
/// readers.drain()?;
/// # Ok::<(), anyhow::Error>(())
/// ```
#[doc(alias = "rchan")]
#[doc(alias = "relay_close")]
pub struct Channel {
    geometry: Geometry,
    mode: Mode,
    control_map: OwnedFd,
    buffers_map: OwnedFd,
    wakers_map: OwnedFd,
    control: Arc<ControlMapping>,
    cpus: RwLock<BTreeMap<u32, CpuMaps>>,
    possible: Vec<u32>,
    host: Box<dyn Host>,
    /// The channel's own program, once an object is loaded.
    request: OnceLock<OwnedFd>,
    /// Where it is pinned, if it is.
    folder: OnceLock<Arc<PinFolder>>,
}

/// Why a channel, or a CPU's part of one, cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// Its buffers need more memory than there is.
    #[error(
        "{cpus} buffers of {} sub-buffers of {} bytes need {} MiB of memory and {} MiB are available: make the sub-buffers (-b) smaller or fewer (-n)",
        .geometry.n_subbufs(), .geometry.subbuf_size(), .needed >> 20, .available >> 20
    )]
    Memory {
        /// How many buffers.
        cpus: usize,
        /// How each is cut.
        geometry: Geometry,
        /// Bytes that all of them take.
        needed: u64,
        /// Bytes that there are.
        available: u64,
    },
    /// This process may make no maps.
    #[error("making a BPF map was not permitted")]
    NotPermitted(#[source] io::Error),
    /// A buffer is larger than a map of this kernel can be.
    #[error(
        "making a BPF map with values of {size} bytes: before Linux 6.0 at most 4 MiB; make the sub-buffers (-b) smaller or fewer (-n)"
    )]
    TooLarge {
        /// Bytes of the buffer.
        size: u32,
        /// What the kernel says.
        #[source]
        error: io::Error,
    },
    /// Something else is in the way.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// Why an eBPF object cannot be loaded for channels.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It is empty: its program was built without it.
    #[error("this relayd was built without its eBPF programs (RELAYD_SKIP_EBPF was set): build it again")]
    Empty,
    /// It declares a channel of this name, which was not given.
    #[error("the eBPF object declares a channel {0}, and none was given for it")]
    NotGiven(String),
    /// A channel was given that it does not declare.
    #[error("the eBPF object declares no channel {name}, but {}", .declared.join(", "))]
    NotDeclared {
        /// The channel's name.
        name: String,
        /// Those that it declares.
        declared: Vec<String>,
    },
    /// The BPF file system is not there, or the kernel refuses the object.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// What one CPU has of a channel.
struct CpuMaps {
    buffer: Arc<MappedBuffer>,
    map: OwnedFd,
    waker: OwnedFd,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("geometry", &self.geometry).field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl Channel {
    /// Makes the maps of a channel, with a buffer for every CPU that is online (`relay_open`).
    ///
    /// # Errors
    /// When memory does not suffice or the kernel refuses.
    #[doc(alias = "relay_open")]
    pub fn create(geometry: Geometry, mode: Mode, host: impl Host) -> Result<Self, CreateError> {
        let (possible, online) = (machine::possible_cpus()?, machine::online_cpus()?);
        let rows = possible.iter().max().map_or(0, |cpu| cpu + 1);
        check_memory(geometry, online.len())?;
        let control_map = create(MapCreate {
            map_type: bpf_map_type::BPF_MAP_TYPE_ARRAY as u32,
            key_size: 4,
            value_size: u32::try_from(size_of::<Control<u64>>()).context("the size of a control row")?,
            max_entries: rows,
            map_flags: BPF_F_MMAPABLE,
            map_name: *b"relay_control\0\0\0",
            ..MapCreate::default()
        })?;
        let control = Arc::new(
            ControlMapping::new(control_map.as_fd(), rows).context("mapping the control rows of the channel")?,
        );
        let buffers_map = map_of_maps(rows, &buffer_map(geometry, None)?, *b"relay_buffers\0\0\0")?;
        let wakers_map = map_of_maps(rows, &waker_map()?, *b"relay_wakers\0\0\0\0")?;
        let channel = Self {
            geometry,
            mode,
            control_map,
            buffers_map,
            wakers_map,
            control,
            cpus: RwLock::default(),
            possible,
            host: Box::new(host),
            request: OnceLock::new(),
            folder: OnceLock::new(),
        };
        channel.add_buffers(&online)?;
        Ok(channel)
    }

    /// Gives CPUs that have come online their buffers. Until then their records are lost, and counted (`no buffer`). A CPU that
    /// has one keeps it.
    ///
    /// # Errors
    /// When the kernel refuses, or a CPU is not a possible one.
    pub fn add_buffers(&self, cpus: &[u32]) -> Result<(), CreateError> {
        let mut made = Vec::new();
        for &cpu in cpus.iter().filter(|cpu| self.buffer(**cpu).is_none()) {
            let map = buffer_map(self.geometry, Some(cpu))?;
            let buffer = MappedBuffer::new(map.as_fd(), Arc::clone(&self.control), cpu, self.geometry)
                .with_context(|| format!("mapping the buffer of cpu {cpu}"))?;
            self.host.buffer_made(&buffer).with_context(|| format!("preparing the buffer of cpu {cpu}"))?;
            made.push((cpu, CpuMaps { buffer: Arc::new(buffer), map, waker: waker_map()? }));
        }
        if made.is_empty() {
            return Ok(());
        }
        if let Some(folder) = self.folder.get() {
            // Before anything can be in them.
            made.iter()
                .try_for_each(|(cpu, maps)| pinned::pin_cpu(folder, *cpu, maps.map.as_fd(), maps.waker.as_fd()))?;
        }
        self.fill(made.iter().map(|(cpu, maps)| (*cpu, maps)))?;
        let mut cpus = self.cpus.write().unwrap_or_else(PoisonError::into_inner);
        cpus.extend(made);
        Ok(())
    }

    /// Hands all CPUs their buffers once more: the process that made them may have been killed before it had.
    pub fn hand_out(&self) -> Result<()> {
        let cpus = self.cpus.read().unwrap_or_else(PoisonError::into_inner);
        self.fill(cpus.iter().map(|(cpu, maps)| (*cpu, maps)))
    }

    /// Puts what CPUs have where writers see it.
    fn fill<'a>(&self, cpus: impl Iterator<Item = (u32, &'a CpuMaps)> + Clone) -> Result<()> {
        let wakers: Vec<_> = cpus.clone().map(|(cpu, maps)| (cpu, maps.waker.as_fd())).collect();
        fill_map_of_maps(self.wakers_map.as_fd(), &wakers).context("handing out the readers' wakers")?;
        // Now writers see them.
        let buffers: Vec<_> = cpus.map(|(cpu, maps)| (cpu, maps.map.as_fd())).collect();
        fill_map_of_maps(self.buffers_map.as_fd(), &buffers).context("handing out the buffers")
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

    /// The buffers, in the order of their CPUs.
    #[must_use]
    pub fn buffers(&self) -> Vec<Arc<MappedBuffer>> {
        let cpus = self.cpus.read().unwrap_or_else(PoisonError::into_inner);
        cpus.values().map(|maps| Arc::clone(&maps.buffer)).collect()
    }

    /// The buffer of a CPU, if it has one.
    #[must_use]
    pub fn buffer(&self, cpu: u32) -> Option<Arc<MappedBuffer>> {
        let cpus = self.cpus.read().unwrap_or_else(PoisonError::into_inner);
        cpus.get(&cpu).map(|maps| Arc::clone(&maps.buffer))
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

    /// Sub-buffers produced and consumed, and records lost by cause, of a CPU (`relay_stats`; but a CPU's counts stay when it goes
    /// offline). `None` when there can be no such CPU.
    #[must_use]
    #[doc(alias = "relay_stats")]
    #[doc(alias = "relay_buf_full")]
    #[doc(alias = "relay_buf_empty")]
    pub fn counters(&self, cpu: u32) -> Option<Counters> {
        Some(self.control.row(cpu)?.counters(self.geometry))
    }

    /// Closes the open sub-buffer of a CPU, if there is one, so that the reader gets it (`relay_flush`). Loses nothing, and does
    /// nothing for a CPU without a buffer.
    ///
    /// # Errors
    /// When no object is loaded, or what the kernel says.
    #[doc(alias = "relay_flush")]
    pub fn flush(&self, cpu: u32) -> Result<()> {
        self.request(Request::Flush, cpu)
    }

    /// Flushes, and closes one more sub-buffer, without a record: the client's header alone, to tell what is known now. Does
    /// nothing when there is no room, or the CPU has no buffer.
    ///
    /// # Errors
    /// When no object is loaded, or what the kernel says.
    pub fn mark(&self, cpu: u32) -> Result<()> {
        self.request(Request::Mark, cpu)
    }

    /// Makes the channel as new: nothing produced, nothing consumed, nothing lost (`relay_reset`). The programs must be detached,
    /// or have nothing to write; those that still run are waited for. Nobody may read meanwhile, and who has read before
    /// begins anew: a consumer from before would find that its count is not the channel's.
    ///
    /// # Errors
    /// When that cannot be waited for.
    #[doc(alias = "relay_reset")]
    pub fn reset(&mut self) -> Result<()> {
        self.wait_for_running_programs()?;
        for &cpu in &self.possible {
            let buffer = self.buffer(cpu);
            if let Some(buffer) = buffer {
                buffer.reader().reset();
            } else if let Some(row) = self.control.row(cpu) {
                row.producer.lost_no_buffer.store(0, std::sync::atomic::Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Waits until every program that was running has returned: the kernel does so whenever an element of a map of maps is
    /// replaced, so that user space knows who uses the new one (kernel/bpf/syscall.c, `maybe_wait_bpf_programs`).
    /// One is replaced by itself.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn wait_for_running_programs(&self) -> Result<()> {
        let cpus = self.cpus.read().unwrap_or_else(PoisonError::into_inner);
        let Some((&cpu, maps)) = cpus.first_key_value() else { return Ok(()) };
        fill_map_of_maps(self.wakers_map.as_fd(), &[(cpu, maps.waker.as_fd())]).context("waiting for running programs")
    }

    /// What wakes the reader of a CPU.
    ///
    /// # Errors
    /// When the CPU has no buffer, or the ring buffer cannot be mapped.
    pub fn waker(&self, cpu: u32) -> Result<RingBuf<MapData>> {
        let cpus = self.cpus.read().unwrap_or_else(PoisonError::into_inner);
        let maps = cpus.get(&cpu).with_context(|| format!("cpu {cpu} has no buffer"))?;
        let map = MapData::from_fd(maps.waker.try_clone()?)?;
        RingBuf::try_from(Map::RingBuf(map)).context("mapping a reader's waker")
    }

    /// Runs the channel's own program for a CPU: there, or, while that CPU is offline, here.
    fn request(&self, request: Request, cpu: u32) -> Result<()> {
        let program = self.request.get().context("no eBPF object is loaded for this channel")?;
        bpf::request(program.as_fd(), [request as u64, cpu.into()], Some(cpu))
            .with_context(|| format!("asking cpu {cpu} to {request:?}"))
    }

    /// `relay_ebpf::channel::Settings`.
    fn settings(&self) -> [u64; 4] {
        let [subbuf_mask, buffer_mask, shifts] = self.geometry.words();
        [subbuf_mask, buffer_mask, shifts, u64::from(self.mode == Mode::Overwrite)]
    }
}

/// Loads an eBPF object with these channels in place of those that it declares under their names (`channel!(NAME)`). The
/// channels' own programs are loaded too; the others are still to be loaded and attached.
///
/// # Errors
/// When the BPF file system is not there, or the object does not load or declares no such channel.
pub fn load(object: &[u8], channels: &[(&str, &Channel)], loader: EbpfLoader<'_>) -> Result<Ebpf, LoadError> {
    if object.is_empty() {
        return Err(LoadError::Empty);
    }
    pins::sweep("load-", |_| true);
    let pins = PinFolder::create(&fresh_name())?;
    let (mut settings, mut maps) = (Vec::new(), Vec::new());
    for (name, channel) in channels {
        settings.push((format!("{name}_SETTINGS"), channel.settings()));
        maps.push((format!("{name}_CONTROL"), &channel.control_map));
        maps.push((format!("{name}_BUFFERS"), &channel.buffers_map));
        maps.push((format!("{name}_WAKERS"), &channel.wakers_map));
    }
    // Again, since it must not outlive what it borrows.
    let mut loader = loader;
    for (name, settings) in &settings {
        // That it is not there is found out below.
        loader.override_global(name, settings.as_slice(), false);
    }
    for (name, map) in &maps {
        loader.map_pin_path(name, pins.pin(name, map.as_fd())?);
    }
    let mut ebpf = loader.load(&bpf::fitted(object)).context("loading the eBPF object")?;
    let declared = declared(&ebpf);
    if let Some(missing) = declared.iter().find(|name| channels.iter().all(|(given, _)| given != name)) {
        return Err(LoadError::NotGiven(missing.clone()));
    }
    for (name, channel) in channels {
        let Some(program) = ebpf.program_mut(&format!("{name}_request")) else {
            return Err(LoadError::NotDeclared { name: (*name).to_owned(), declared });
        };
        let program = loaded(program).with_context(|| format!("loading the program of the channel {name}"))?;
        // A channel may be loaded into several objects: any of its programs will do.
        let _ = channel.request.set(program);
    }
    Ok(ebpf)
}

/// Loads a channel's own program.
fn loaded(program: &mut Program) -> Result<OwnedFd> {
    let program: &mut RawTracePoint = program.try_into()?;
    program.load()?;
    Ok(program.fd()?.as_fd().try_clone_to_owned()?)
}

/// The channels that an object declares.
fn declared(ebpf: &Ebpf) -> Vec<String> {
    let name = |(map, _): (&str, _)| map.strip_suffix("_BUFFERS").map(str::to_owned);
    let names = ebpf.maps().filter_map(name).filter(|name| ebpf.program(&format!("{name}_request")).is_some());
    names.collect()
}

fn check_memory(geometry: Geometry, cpus: usize) -> Result<(), CreateError> {
    let needed = (geometry.buffer_size() + MAX_RECORD).saturating_mul(cpus as u64);
    let available = machine::available_memory()?;
    if needed > available {
        return Err(CreateError::Memory { cpus, geometry, needed, available });
    }
    Ok(())
}

fn buffer_map(geometry: Geometry, cpu: Option<u32>) -> Result<OwnedFd, CreateError> {
    create(MapCreate {
        map_type: bpf_map_type::BPF_MAP_TYPE_ARRAY as u32,
        key_size: 4,
        value_size: u32::try_from(geometry.buffer_size() + MAX_RECORD).context("the size of a buffer")?,
        max_entries: 1,
        // The flag must be on the template as on every inner map; the node may differ.
        map_flags: BPF_F_MMAPABLE | BPF_F_NUMA_NODE,
        numa_node: cpu.and_then(machine::numa_node).unwrap_or(ANY_NODE),
        map_name: *b"relay_buffer\0\0\0\0",
        ..MapCreate::default()
    })
}

fn waker_map() -> Result<OwnedFd, CreateError> {
    create(MapCreate {
        map_type: bpf_map_type::BPF_MAP_TYPE_RINGBUF as u32,
        // The least there is.
        max_entries: u32::try_from(rustix::param::page_size()).context("the size of a page")?,
        map_name: *b"relay_waker\0\0\0\0\0",
        ..MapCreate::default()
    })
}

/// A map of maps with `rows` places, for maps that look like `template`.
fn map_of_maps(rows: u32, template: &OwnedFd, map_name: [u8; 16]) -> Result<OwnedFd, CreateError> {
    create(MapCreate {
        map_type: bpf_map_type::BPF_MAP_TYPE_ARRAY_OF_MAPS as u32,
        key_size: 4,
        value_size: 4,
        max_entries: rows,
        inner_map_fd: template.as_raw_fd().cast_unsigned(),
        map_name,
        ..MapCreate::default()
    })
}

fn create(attr: MapCreate) -> Result<OwnedFd, CreateError> {
    let (kind, size) = (attr.map_type, attr.value_size);
    create_map(attr).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => CreateError::NotPermitted(error),
        io::ErrorKind::ArgumentListTooLong => CreateError::TooLarge { size, error },
        _ => {
            let what = format!("making a BPF map of type {kind} with values of {size} bytes");
            anyhow::Error::new(error).context(what).into()
        }
    })
}

/// A name for a folder of pins that is needed while an object is loaded: another at every call.
pub fn fresh_name() -> String {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    format!("load-{}-{}", std::process::id(), NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
}
