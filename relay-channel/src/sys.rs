//! Everything unsafe in the channel: system calls that no crate offers, and memory shared with the kernel side.
//!
//! Shared memory may change under every read. It is never lent as a slice: single words are atomics, bytes are
//! copied or handed to `pwrite` by address.
#![expect(unsafe_code, reason = "the one file of this crate that may")]
#![expect(clippy::cast_possible_truncation, reason = "addresses and lengths have 64 bits: asserted below")]

use std::{
    ffi::{CStr, c_int},
    fs::File,
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
    sync::{Arc, atomic::AtomicU64},
};

use aya::maps::{MapData, RingBuf};
use aya_obj::generated::{BPF_F_TEST_RUN_ON_CPU, bpf_cmd};
use memmap2::{MmapOptions, MmapRaw};
use relay_common::{Buffer, COMMITTED_AT, Control, Geometry, MAX_RECORD, Reader, ReaderWord as _, Taken, Word as _};
use tokio::io::{Interest, unix::AsyncFd};

const _: () = assert!(usize::BITS == 64, "relayd is for 64-bit machines");

/// What `BPF_MAP_CREATE` is given (the start of `union bpf_attr`, include/uapi/linux/bpf.h).
#[derive(Debug, Default)]
#[repr(C)]
pub struct MapCreate {
    /// `enum bpf_map_type`.
    pub map_type: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Elements.
    pub max_entries: u32,
    /// `BPF_F_*`.
    pub map_flags: u32,
    /// For a map of maps: a map of the inner maps' shape.
    pub inner_map_fd: u32,
    /// With `BPF_F_NUMA_NODE`: where the memory is to be.
    pub numa_node: u32,
    /// As `bpftool map` shows it, NUL-terminated.
    pub map_name: [u8; 16],
}

/// Creates a map.
///
/// # Errors
/// What the kernel says.
pub fn create_map(mut attr: MapCreate) -> io::Result<OwnedFd> {
    open(bpf_cmd::BPF_MAP_CREATE, &mut attr)
}

#[derive(Default)]
#[repr(C)]
struct Pin {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Gives a map, a program or a link a name in the BPF file system: it stays as long as the name does.
///
/// # Errors
/// What the kernel says.
pub fn pin(object: BorrowedFd<'_>, path: &CStr) -> io::Result<()> {
    let path = path.as_ptr().expose_provenance() as u64;
    call(bpf_cmd::BPF_OBJ_PIN, &mut Pin { path, fd: raw(object), ..Pin::default() }).map(drop)
}

/// Opens what has a name in the BPF file system: a map, a program or a link.
///
/// # Errors
/// What the kernel says.
pub fn open_pinned(path: &CStr) -> io::Result<OwnedFd> {
    let path = path.as_ptr().expose_provenance() as u64;
    open(bpf_cmd::BPF_OBJ_GET, &mut Pin { path, ..Pin::default() })
}

/// Puts the maps `inner[i].1` at the indexes `inner[i].0` of a map of maps. Where the kernel can, in one call: one at a time,
/// each waits for an RCU grace period.
///
/// # Errors
/// What the kernel says.
pub fn fill_map_of_maps(outer: BorrowedFd<'_>, inner: &[(u32, BorrowedFd<'_>)]) -> io::Result<()> {
    /// `ENOTSUPP`, which is the kernel's own: maps of maps have batches since Linux 5.19.
    const NO_BATCH: i32 = 524;
    let one_by_one = || inner.iter().try_for_each(|(key, map)| set_file(outer, *key, map.as_raw_fd()));
    if inner.len() < 2 {
        return one_by_one();
    }
    match fill_in_one_call(outer, inner) {
        Err(error) if error.raw_os_error() == Some(NO_BATCH) => one_by_one(),
        other => other,
    }
}

/// Puts a map into a map of maps, or a perf event into an array of them.
///
/// # Errors
/// What the kernel says.
pub fn set_file(map: BorrowedFd<'_>, key: u32, file: RawFd) -> io::Result<()> {
    #[derive(Default)]
    #[repr(C)]
    struct Element {
        map_fd: u32,
        zero: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let mut attr = Element {
        map_fd: raw(map),
        key: (&raw const key).expose_provenance() as u64,
        value: (&raw const file).expose_provenance() as u64,
        ..Element::default()
    };
    call(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attr).map(drop)
}

fn fill_in_one_call(outer: BorrowedFd<'_>, inner: &[(u32, BorrowedFd<'_>)]) -> io::Result<()> {
    #[derive(Default)]
    #[repr(C)]
    struct Batch {
        in_batch: u64,
        out_batch: u64,
        keys: u64,
        values: u64,
        count: u32,
        map_fd: u32,
        elem_flags: u64,
        flags: u64,
    }
    let keys: Vec<u32> = inner.iter().map(|(key, _)| *key).collect();
    let values: Vec<RawFd> = inner.iter().map(|(_, fd)| fd.as_raw_fd()).collect();
    let mut attr = Batch {
        keys: keys.as_ptr().expose_provenance() as u64,
        values: values.as_ptr().expose_provenance() as u64,
        count: u32::try_from(inner.len()).map_err(io::Error::other)?,
        map_fd: raw(outer),
        ..Batch::default()
    };
    call(bpf_cmd::BPF_MAP_UPDATE_BATCH, &mut attr).map(drop)
}

/// Runs a raw tracepoint program with these arguments, on a CPU or right here; returns what it returned: 0 also when it did not run, since it was running
/// there already (Linux 7.2, net/bpf/test_run.c, `__bpf_prog_test_run_raw_tp`). `None` for a CPU that is offline.
///
/// # Errors
/// What the kernel says.
pub fn run_program(program: BorrowedFd<'_>, arguments: [u64; 2], cpu: Option<u32>) -> io::Result<Option<u32>> {
    #[derive(Default)]
    #[repr(C)]
    struct TestRun {
        prog_fd: u32,
        retval: u32,
        data_size_in: u32,
        data_size_out: u32,
        data_in: u64,
        data_out: u64,
        repeat: u32,
        duration: u32,
        ctx_size_in: u32,
        ctx_size_out: u32,
        ctx_in: u64,
        ctx_out: u64,
        flags: u32,
        cpu: u32,
        batch_size: u32,
        /// The kernel wants zeros after what it knows.
        zero: u32,
    }
    let mut attr = TestRun {
        prog_fd: raw(program),
        ctx_size_in: size_of_val(&arguments) as u32,
        ctx_in: arguments.as_ptr().expose_provenance() as u64,
        flags: if cpu.is_some() { BPF_F_TEST_RUN_ON_CPU } else { 0 },
        cpu: cpu.unwrap_or(0),
        ..TestRun::default()
    };
    match call(bpf_cmd::BPF_PROG_TEST_RUN, &mut attr) {
        Ok(_) => Ok(Some(attr.retval)),
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Lets the calling thread run before every ordinary task of its CPU (SCHED_FIFO, lowest priority). What it starts does not
/// inherit that.
///
/// # Errors
/// `EPERM` without CAP_SYS_NICE.
pub fn run_ahead_of_tasks() -> io::Result<()> {
    let this_thread = 0;
    // The kernel's `struct sched_param`. musl has another, and a function of this name that does nothing.
    let priority: c_int = 1;
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the parameters outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_sched_setscheduler, this_thread, policy, &raw const priority) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets tokio say when a waker has something.
///
/// # Errors
/// What `epoll` says.
pub fn watch_waker(ring: RingBuf<MapData>) -> io::Result<AsyncFd<RingBuf<MapData>>> {
    // SAFETY: a ring buffer owns its map's file descriptor for as long as it lives, and always the same.
    let registered = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
    registered.map_err(|error| error.into_parts().1)
}

/// bpf(2), for what this process does by itself.
fn call<T>(command: bpf_cmd, attr: &mut T) -> io::Result<RawFd> {
    // SAFETY: `attr` is the part of `union bpf_attr` that the command reads; addresses in it are of memory that the callers keep alive.
    unsafe { bpf(command, attr) }
}

fn open<T>(command: bpf_cmd, attr: &mut T) -> io::Result<OwnedFd> {
    let fd = call(command, attr)?;
    // SAFETY: the kernel has just made it; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// bpf(2): what it returns, or the error that it says.
///
/// # Safety
/// `attr` is the part of `union bpf_attr` that the command reads, and addresses in it are of memory that lives until this returns.
///
/// # Errors
/// What the kernel says.
pub unsafe fn bpf<T>(command: bpf_cmd, attr: &mut T) -> io::Result<RawFd> {
    // SAFETY: as the caller promises; the size is that of `attr`.
    result(unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) })
}

/// What a system call has returned, or the error that it says.
///
/// # Errors
/// `errno`, where the value is negative.
pub fn result(value: libc::c_long) -> io::Result<RawFd> {
    if value < 0 { Err(io::Error::last_os_error()) } else { RawFd::try_from(value).map_err(io::Error::other) }
}

/// A file descriptor as `union bpf_attr` has it.
#[must_use]
pub fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// The control map, mapped: a row for every possible CPU.
///
/// ```no_run
/// # use relay_common::{Geometry, Mode, Plain, Word};
/// # use relay_channel::channel::Channel;
/// # let channel = Channel::create(Geometry::new(4096, 4)?, Mode::NoOverwrite, Plain)?;
/// let row = channel.control().row(0).unwrap();
/// println!("bytes handed out: {}", row.producer.reserved.peek());
/// # Ok::<(), anyhow::Error>(())
/// ```
#[derive(Debug)]
pub struct ControlMapping {
    mapping: MmapRaw,
    rows: u32,
}

impl ControlMapping {
    /// Maps `rows` rows of a control map.
    ///
    /// # Errors
    /// What `mmap` says.
    pub fn new(map: BorrowedFd<'_>, rows: u32) -> io::Result<Self> {
        if rows == 0 {
            return Err(io::Error::other("a control map without rows"));
        }
        let mapping = MmapOptions::new().len(rows as usize * size_of::<Control<AtomicU64>>()).map_raw(&map)?;
        Ok(Self { mapping, rows })
    }

    /// The row of a CPU, if there is one.
    #[must_use]
    pub fn row(&self, cpu: u32) -> Option<&Control<AtomicU64>> {
        (cpu < self.rows).then(|| self.row_or_last(cpu))
    }

    fn row_or_last(&self, cpu: u32) -> &Control<AtomicU64> {
        let first: *const Control<AtomicU64> = self.mapping.as_ptr().cast();
        // SAFETY: there is at least one row, and the index is less than their number.
        let row = unsafe { first.add(cpu.min(self.rows - 1) as usize) };
        // SAFETY: inside the mapping, which lives as long as `self`; page-aligned, so that rows are aligned; atomics alone.
        unsafe { &*row }
    }
}

/// One CPU's buffer, mapped.
///
/// ```no_run
/// # use relay_common::{Geometry, Mode, Plain};
/// # use relay_channel::channel::Channel;
/// # let channel = Channel::create(Geometry::new(4096, 4)?, Mode::NoOverwrite, Plain)?;
/// let buffer = channel.buffer(0).unwrap();
/// buffer.store(100, b"text")?;
/// let mut copy = bytes::BytesMut::new();
/// buffer.copy_to(100, 4, &mut copy)?;
/// # Ok::<(), anyhow::Error>(())
/// ```
#[derive(Debug)]
#[doc(alias = "rchan_buf")]
pub struct MappedBuffer {
    control: Arc<ControlMapping>,
    cpu: u32,
    mapping: MmapRaw,
    geometry: Geometry,
}

impl MappedBuffer {
    /// Maps the buffer of `cpu`: the one element of an inner map.
    ///
    /// # Errors
    /// What `mmap` says, or that the control map has no row for the CPU.
    pub fn new(map: BorrowedFd<'_>, control: Arc<ControlMapping>, cpu: u32, geometry: Geometry) -> io::Result<Self> {
        if control.row(cpu).is_none() {
            return Err(io::Error::other(format!("no control row for cpu {cpu}")));
        }
        let len = usize::try_from(geometry.buffer_size() + MAX_RECORD).map_err(io::Error::other)?;
        let mapping = MmapOptions::new().len(len).map_raw(&map)?;
        Ok(Self { control, cpu, mapping, geometry })
    }

    /// The CPU whose buffer this is.
    #[must_use]
    pub fn cpu(&self) -> u32 {
        self.cpu
    }

    /// How the buffer is cut.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// A reader of this buffer. There must be one that takes sub-buffers; any number may look.
    #[must_use]
    pub fn reader(&self) -> Reader<'_, Self> {
        Reader { buffer: self, geometry: self.geometry }
    }

    /// What the reader of this buffer has taken, as it has last noted.
    #[must_use]
    pub fn taken(&self) -> Taken<u64> {
        let consumer = &self.control().consumer;
        let Taken { output, records, subbufs } = &consumer.taken[usize::from(consumer.consumed.peek() & 1 == 1)];
        Taken { output: output.peek(), records: records.peek(), subbufs: subbufs.peek() }
    }

    /// Notes that the output goes on from another length: for whoever reads this buffer next.
    pub fn note_output(&self, len: u64) {
        let consumer = &self.control().consumer;
        consumer.taken[usize::from(consumer.consumed.peek() & 1 == 1)].output.publish(len);
    }

    /// Writes `len` bytes at `place` to `file` at `offset`, all of them.
    ///
    /// # Errors
    /// What `pwrite` says; how much has been written is then unknown.
    pub fn write_to(&self, place: u64, len: u64, file: &File, offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < len {
            let (from, left) = (self.at(place + done, len - done)?, len - done);
            let to = libc::off_t::try_from(offset + done).map_err(io::Error::other)?;
            // SAFETY: `at` checked that `left` bytes from `from` are mapped; the kernel copies them, whatever they hold.
            let written = unsafe { libc::pwrite(file.as_raw_fd(), from.cast(), left as usize, to) };
            match u64::try_from(written) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => done += written,
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    /// Appends `len` bytes at `place` to `copy`.
    ///
    /// # Errors
    /// When they are not all inside the buffer.
    pub fn copy_to(&self, place: u64, len: u64, copy: &mut bytes::BytesMut) -> io::Result<()> {
        let from = self.at(place, len)?;
        let (start, len) = (copy.len(), usize::try_from(len).map_err(io::Error::other)?);
        copy.resize(start + len, 0);
        let to = copy[start..].as_mut_ptr();
        // SAFETY: `at` checked the source, `resize` made the room, and the two do not overlap. The kernel side may write
        // meanwhile: whoever calls decides afterwards whether the copy is good.
        unsafe { std::ptr::copy_nonoverlapping(from, to, len) };
        Ok(())
    }

    /// Stores bytes at `place`: what a client writes once into every sub-buffer, before any program is attached.
    ///
    /// # Errors
    /// When they are not all inside the buffer.
    pub fn store(&self, place: u64, bytes: &[u8]) -> io::Result<()> {
        let to = self.at(place, bytes.len() as u64)?.cast_mut();
        // SAFETY: `at` checked the destination; the two do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        Ok(())
    }

    /// The address of `len` bytes at `place`, if they are inside the buffer.
    fn at(&self, place: u64, len: u64) -> io::Result<*const u8> {
        if place.checked_add(len).is_none_or(|end| end > self.geometry.buffer_size()) {
            return Err(io::Error::other(format!("{len} bytes at {place} are outside the buffer of cpu {}", self.cpu)));
        }
        // SAFETY: inside the mapping, which is longer than the buffer.
        Ok(unsafe { self.mapping.as_ptr().add(place as usize) })
    }

    /// The address of a value at `place`, kept inside the buffer whatever `place` is.
    fn value<T>(&self, place: u64) -> *mut T {
        let place = self.geometry.place(place) & !(align_of::<T>() as u64 - 1);
        // SAFETY: less than the buffer's size, and a tail of MAX_RECORD bytes follows it in the mapping.
        unsafe { self.mapping.as_mut_ptr().add(place as usize) }.cast()
    }
}

impl Buffer for MappedBuffer {
    type Word = AtomicU64;

    fn control(&self) -> &Control<AtomicU64> {
        self.control.row_or_last(self.cpu)
    }

    fn committed(&self, place: u64) -> &AtomicU64 {
        // SAFETY: inside the mapping, aligned, and only ever accessed atomically once programs run.
        unsafe { &*self.value(place + COMMITTED_AT) }
    }

    fn load_u32(&self, place: u64) -> u32 {
        // SAFETY: inside the mapping and aligned.
        unsafe { self.value::<u32>(place).read_volatile() }
    }

    fn store_u32(&self, place: u64, value: u32) {
        // SAFETY: inside the mapping and aligned.
        unsafe { self.value::<u32>(place).write_volatile(value) }
    }

    fn store_u64(&self, place: u64, value: u64) {
        // SAFETY: inside the mapping and aligned.
        unsafe { self.value::<u64>(place).write_volatile(value) }
    }

    fn store_zero(&self, place: u64) {
        // SAFETY: inside the mapping.
        unsafe { self.value::<u8>(place).write_volatile(0) }
    }

    fn wake(&self) -> bool {
        // User space writes to a buffer only when its reader is not asleep.
        true
    }
}
