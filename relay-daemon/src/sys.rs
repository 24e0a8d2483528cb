//! Everything unsafe in the daemon: system calls that no crate offers, and memory shared with the
//! kernel side.
//!
//! Shared memory may change under every read. It is never lent as a slice: single words are atomics, bytes are
//! copied or handed to `pwrite` by address.
#![expect(unsafe_code, reason = "the one file of the daemon that may")]
#![expect(clippy::cast_possible_truncation, reason = "addresses and lengths have 64 bits: asserted below")]

use std::{
    ffi::{CStr, c_int},
    fs::File,
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
    sync::{Arc, atomic::AtomicU64},
};

use aya::maps::{MapData, RingBuf};
use aya_log::EbpfLogger;
use aya_obj::generated::bpf_insn;
use memmap2::{Mmap, MmapOptions, MmapRaw};
use relay_common::{
    Buffer, COMMITTED_AT, Control, Geometry, MAX_RECORD, Reader, ReaderWord as _, Taken, Word as _,
    recipe::{Pattern, Recipe},
};
use tokio::io::{Interest, unix::AsyncFd};

const _: () = assert!(usize::BITS == 64, "relayd is for 64-bit machines");

const BPF_MAP_CREATE: c_int = 0;
const BPF_MAP_UPDATE_ELEM: c_int = 2;
const BPF_PROG_LOAD: c_int = 5;
const BPF_OBJ_PIN: c_int = 6;
const BPF_OBJ_GET: c_int = 7;
const BPF_PROG_TEST_RUN: c_int = 10;
const BPF_OBJ_GET_INFO_BY_FD: c_int = 15;
const BPF_RAW_TRACEPOINT_OPEN: c_int = 17;
const BPF_BTF_LOAD: c_int = 18;
const BPF_BTF_GET_FD_BY_ID: c_int = 19;
const BPF_BTF_GET_NEXT_ID: c_int = 23;
const BPF_MAP_UPDATE_BATCH: c_int = 26;
const BPF_LINK_CREATE: c_int = 28;
const BPF_PERF_EVENT: u32 = 41;
const BPF_TRACE_KPROBE_MULTI: u32 = 42;
const PERF_TYPE_TRACEPOINT: u32 = 2;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 1 << 3;

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
    bpf(BPF_MAP_CREATE, &mut attr).map(owned)
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
    bpf(BPF_OBJ_PIN, &mut Pin { path, fd: raw(object), ..Pin::default() }).map(drop)
}

/// Opens what has a name in the BPF file system: a map, a program or a link.
///
/// # Errors
/// What the kernel says.
pub fn open_pinned(path: &CStr) -> io::Result<OwnedFd> {
    let path = path.as_ptr().expose_provenance() as u64;
    bpf(BPF_OBJ_GET, &mut Pin { path, ..Pin::default() }).map(owned)
}

/// Puts the maps `inner[i].1` at the indexes `inner[i].0` of a map of maps. Where the kernel can, in one call: one at a time,
/// each waits for an RCU grace period.
///
/// # Errors
/// What the kernel says.
pub fn fill_map_of_maps(outer: BorrowedFd<'_>, inner: &[(u32, BorrowedFd<'_>)]) -> io::Result<()> {
    /// `ENOTSUPP`, which is the kernel's own: maps of maps have batches since Linux 5.19.
    const NO_BATCH: i32 = 524;
    let one_by_one = || inner.iter().try_for_each(|(key, map)| set_inner_map(outer, *key, *map));
    if inner.len() < 2 {
        return one_by_one();
    }
    match fill_in_one_call(outer, inner) {
        Err(error) if error.raw_os_error() == Some(NO_BATCH) => one_by_one(),
        other => other,
    }
}

fn set_inner_map(outer: BorrowedFd<'_>, key: u32, inner: BorrowedFd<'_>) -> io::Result<()> {
    set_value(outer, key, &raw(inner))
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
    bpf(BPF_MAP_UPDATE_BATCH, &mut attr).map(drop)
}

/// `struct perf_event_attr` up to `PERF_ATTR_SIZE_VER1`.
#[derive(Default)]
#[repr(C)]
struct PerfEventAttr {
    kind: u32,
    size: u32,
    config: u64,
    sample: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    config1: u64,
    config2: u64,
}

/// On one CPU, for whatever runs there.
fn open_perf_event(mut attr: PerfEventAttr, cpu: u32) -> io::Result<OwnedFd> {
    attr.size = size_of::<PerfEventAttr>() as u32;
    let (any_process, no_group) = (-1, -1);
    // SAFETY: `attr` is a perf_event_attr of the size it says and outlives the call; the texts that it points to are kept alive by the
    // callers.
    let fd = unsafe {
        libc::syscall(libc::SYS_perf_event_open, &raw const attr, any_process, cpu, no_group, PERF_FLAG_FD_CLOEXEC)
    };
    result(fd).map(owned)
}

/// `perf_event_attr.disabled`: the event itself counts nothing, and costs its CPU nothing.
const PERF_DISABLED: u64 = 1;
/// `perf_event_attr.freq`: samples are given by their number in a second.
const PERF_FREQ: u64 = 1 << 10;

/// Opens the perf event of a tracepoint, by its id in tracefs. It belongs to one CPU and no task; a program linked to it runs
/// on every CPU all the same, since the program hangs on the tracepoint, not on the event (kernel/trace/bpf_trace.c,
/// `perf_event_attach_bpf_prog`).
///
/// # Errors
/// What the kernel says.
pub fn open_tracepoint(id: u64) -> io::Result<OwnedFd> {
    open_perf_event(
        PerfEventAttr { kind: PERF_TYPE_TRACEPOINT, config: id, flags: PERF_DISABLED, ..PerfEventAttr::default() },
        0,
    )
}

/// Opens the perf event of a kprobe or uprobe: `kind` and `config` as sysfs has them for `kprobe` and `uprobe`, the name of a function or
/// the path of a file, and an offset in it. As with tracepoints, one serves all CPUs.
///
/// # Errors
/// What the kernel says.
pub fn open_probe(kind: u32, config: u64, name: &CStr, offset: u64) -> io::Result<OwnedFd> {
    let attr = PerfEventAttr {
        kind,
        config,
        flags: PERF_DISABLED,
        config1: name.as_ptr().expose_provenance() as u64,
        config2: offset,
        ..PerfEventAttr::default()
    };
    open_perf_event(attr, 0)
}

/// Opens a perf event that samples a CPU so many times a second, by its clock.
///
/// # Errors
/// What the kernel says.
pub fn open_sampler(hertz: u64, cpu: u32) -> io::Result<OwnedFd> {
    const PERF_TYPE_SOFTWARE: u32 = 1;
    const PERF_COUNT_SW_CPU_CLOCK: u64 = 0;
    let attr = PerfEventAttr {
        kind: PERF_TYPE_SOFTWARE,
        config: PERF_COUNT_SW_CPU_CLOCK,
        sample: hertz,
        flags: PERF_FREQ,
        ..PerfEventAttr::default()
    };
    open_perf_event(attr, cpu)
}

/// What a program is loaded with.
#[derive(Debug)]
pub struct ProgramLoad<'a> {
    /// `enum bpf_prog_type`.
    pub kind: u32,
    /// `enum bpf_attach_type`.
    pub attach: u32,
    /// As `bpftool prog` shows it.
    pub name: &'a str,
    /// Instructions, 8 bytes each.
    pub instructions: &'a [bpf_insn],
    /// The program's own BTF.
    pub btf: BorrowedFd<'a>,
    /// `struct bpf_func_info`s, and the bytes of each.
    pub functions: (&'a [u8], usize),
    /// A kernel function by its BTF id, and the module's BTF that has it; for programs of functions.
    pub target: Option<(u32, Option<BorrowedFd<'a>>)>,
}

/// Loads a program.
///
/// # Errors
/// What the kernel says; the verifier's last words too, where there are any.
pub fn load_program(load: &ProgramLoad<'_>) -> io::Result<OwnedFd> {
    #[derive(Clone, Copy, Default)]
    #[repr(C)]
    struct Load {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log_buf: u64,
        kern_version: u32,
        prog_flags: u32,
        prog_name: [u8; 16],
        prog_ifindex: u32,
        expected_attach_type: u32,
        prog_btf_fd: u32,
        func_info_rec_size: u32,
        func_info: u64,
        func_info_cnt: u32,
        line_info_rec_size: u32,
        line_info: u64,
        line_info_cnt: u32,
        attach_btf_id: u32,
        attach_btf_obj_fd: u32,
        zero: u32,
    }
    const LOG: usize = 1 << 24;
    let (functions, record) = load.functions;
    let mut attr = Load {
        prog_type: load.kind,
        insn_cnt: u32::try_from(load.instructions.len()).map_err(io::Error::other)?,
        insns: load.instructions.as_ptr().expose_provenance() as u64,
        license: c"Dual MIT/GPL".as_ptr().expose_provenance() as u64,
        expected_attach_type: load.attach,
        prog_btf_fd: raw(load.btf),
        func_info_rec_size: record as u32,
        func_info: functions.as_ptr().expose_provenance() as u64,
        func_info_cnt: (functions.len() / record.max(1)) as u32,
        attach_btf_id: load.target.map_or(0, |(id, _)| id),
        attach_btf_obj_fd: load.target.and_then(|(_, module)| module).map_or(0, raw),
        ..Load::default()
    };
    // One less, so that a NUL stays.
    for (to, from) in attr.prog_name.iter_mut().take(15).zip(load.name.bytes()) {
        *to = from;
    }
    let error = match bpf(BPF_PROG_LOAD, &mut attr) {
        Ok(fd) => return Ok(owned(fd)),
        Err(error) => error,
    };
    let mut log = vec![0u8; LOG];
    let mut again =
        Load { log_level: 1, log_size: LOG as u32, log_buf: log.as_mut_ptr().expose_provenance() as u64, ..attr };
    if let Ok(fd) = bpf(BPF_PROG_LOAD, &mut again) {
        return Ok(owned(fd));
    }
    log.truncate(log.iter().position(|byte| *byte == 0).unwrap_or(0));
    let log = String::from_utf8_lossy(&log);
    log::debug!("the verifier on {}:\n{log}", load.name);
    // What it says last is statistics, or of the state of registers.
    let words = log.lines().rev().find(|line| {
        !line.is_empty()
            && !["processed ", "verification time", "stack depth", "max_states"]
                .iter()
                .any(|start| line.starts_with(start))
    });
    match words {
        Some(words) => Err(io::Error::new(error.kind(), format!("{error}: {words}"))),
        None => Err(error),
    }
}

/// Loads BTF.
///
/// # Errors
/// What the kernel says.
pub fn load_btf(bytes: &[u8]) -> io::Result<OwnedFd> {
    #[derive(Default)]
    #[repr(C)]
    struct Load {
        btf: u64,
        log: u64,
        size: u32,
        log_size: u32,
        log_level: u32,
        zero: u32,
    }
    let (btf, size) =
        (bytes.as_ptr().expose_provenance() as u64, u32::try_from(bytes.len()).map_err(io::Error::other)?);
    bpf(BPF_BTF_LOAD, &mut Load { btf, size, ..Load::default() }).map(owned)
}

/// The BTF that the kernel has under an id.
///
/// # Errors
/// What the kernel says.
pub fn btf_by_id(id: u32) -> io::Result<OwnedFd> {
    #[derive(Default)]
    #[repr(C)]
    struct ById {
        id: u32,
        next_id: u32,
        open_flags: u32,
    }
    bpf(BPF_BTF_GET_FD_BY_ID, &mut ById { id, ..ById::default() }).map(owned)
}

/// The next BTF id after this one, if there is one.
///
/// # Errors
/// What the kernel says.
pub fn next_btf_id(id: u32) -> io::Result<Option<u32>> {
    #[derive(Default)]
    #[repr(C)]
    struct ById {
        id: u32,
        next_id: u32,
        open_flags: u32,
    }
    let mut attr = ById { id, ..ById::default() };
    match bpf(BPF_BTF_GET_NEXT_ID, &mut attr) {
        Ok(_) => Ok(Some(attr.next_id)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What the kernel tells of a program or a BTF, in a structure that it fills from the start.
fn information<T>(fd: BorrowedFd<'_>, information: &mut T) -> io::Result<()> {
    #[derive(Default)]
    #[repr(C)]
    struct GetInfo {
        bpf_fd: u32,
        info_len: u32,
        info: u64,
    }
    let mut attr = GetInfo {
        bpf_fd: raw(fd),
        info_len: size_of::<T>() as u32,
        info: (&raw mut *information).expose_provenance() as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr).map(drop)
}

/// The name under which the kernel has a BTF: of a module, or `vmlinux`.
///
/// # Errors
/// What the kernel says.
pub fn btf_name(btf: BorrowedFd<'_>) -> io::Result<String> {
    #[derive(Default)]
    #[repr(C)]
    struct Info {
        btf: u64,
        btf_size: u32,
        id: u32,
        name: u64,
        name_len: u32,
        kernel_btf: u32,
    }
    let mut name = [0u8; 64];
    let mut info =
        Info { name: name.as_mut_ptr().expose_provenance() as u64, name_len: name.len() as u32, ..Info::default() };
    information(btf, &mut info)?;
    Ok(name.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect())
}

/// How many hits of a link's kprobes the kernel has passed over: inside another probe, or without room to watch for the return. `None` for
/// links of other kinds. Before Linux 6.7 the kernel does not tell: zero, or `None`.
///
/// # Errors
/// What the kernel says.
pub fn link_missed(link: BorrowedFd<'_>) -> io::Result<Option<u64>> {
    const BPF_LINK_TYPE_PERF_EVENT: u32 = 7;
    const BPF_LINK_TYPE_KPROBE_MULTI: u32 = 8;
    const BPF_PERF_EVENT_KPROBE: u64 = 3;
    const BPF_PERF_EVENT_KRETPROBE: u64 = 4;
    /// `struct bpf_link_info` (include/uapi/linux/bpf.h); the words are what depends on the kind.
    #[derive(Default)]
    #[repr(C)]
    struct Info {
        kind: u32,
        id: u32,
        program: u32,
        padding: u32,
        words: [u64; 8],
    }
    let mut info = Info::default();
    information(link, &mut info)?;
    Ok(match (info.kind, info.words[0]) {
        (BPF_LINK_TYPE_KPROBE_MULTI, _) => Some(info.words[2]),
        (BPF_LINK_TYPE_PERF_EVENT, BPF_PERF_EVENT_KPROBE | BPF_PERF_EVENT_KRETPROBE) => Some(info.words[4]),
        _ => None,
    })
}

/// Attaches a program of a raw tracepoint, or, without a name, one that was loaded for a certain function. Closing the link detaches.
///
/// # Errors
/// What the kernel says.
pub fn attach_raw(program: BorrowedFd<'_>, tracepoint: Option<&CStr>) -> io::Result<OwnedFd> {
    #[derive(Default)]
    #[repr(C)]
    struct Open {
        name: u64,
        prog_fd: u32,
        zero: u32,
        cookie: u64,
    }
    let name = tracepoint.map_or(0, |name| name.as_ptr().expose_provenance() as u64);
    bpf(BPF_RAW_TRACEPOINT_OPEN, &mut Open { name, prog_fd: raw(program), ..Open::default() }).map(owned)
}

/// Attaches a program to the entries, or returns, of many functions at once, each with a cookie.
///
/// # Errors
/// What the kernel says; `EINVAL` before 5.18, `EOPNOTSUPP` where it was built without.
pub fn link_functions(
    program: BorrowedFd<'_>,
    functions: &[&CStr],
    cookies: &[u64],
    returns: bool,
) -> io::Result<OwnedFd> {
    #[derive(Default)]
    #[repr(C)]
    struct LinkCreate {
        prog_fd: u32,
        target_fd: u32,
        attach_type: u32,
        flags: u32,
        multi_flags: u32,
        count: u32,
        symbols: u64,
        addresses: u64,
        cookies: u64,
    }
    if functions.len() != cookies.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let symbols: Vec<u64> = functions.iter().map(|name| name.as_ptr().expose_provenance() as u64).collect();
    let mut attr = LinkCreate {
        prog_fd: raw(program),
        attach_type: BPF_TRACE_KPROBE_MULTI,
        multi_flags: u32::from(returns),
        count: u32::try_from(functions.len()).map_err(io::Error::other)?,
        symbols: symbols.as_ptr().expose_provenance() as u64,
        cookies: cookies.as_ptr().expose_provenance() as u64,
        ..LinkCreate::default()
    };
    bpf(BPF_LINK_CREATE, &mut attr).map(owned)
}

/// What a map's value can be made of: any bytes of it mean something, and there are none that mean nothing.
///
/// # Safety
/// No padding, no references.
pub unsafe trait Plain: Copy {}
// SAFETY: their padding is spelt out as fields.
unsafe impl Plain for Recipe {}
// SAFETY: words.
unsafe impl Plain for Pattern {}
// SAFETY: words.
unsafe impl Plain for [u64; 2] {}
// SAFETY: a word.
unsafe impl Plain for u64 {}
// SAFETY: a word.
unsafe impl Plain for u32 {}

/// Sets the value of a key. The types have the sizes that the map was made with.
///
/// # Errors
/// What the kernel says.
pub fn set_value<K: Plain, V: Plain>(map: BorrowedFd<'_>, key: K, value: &V) -> io::Result<()> {
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
        value: (&raw const *value).expose_provenance() as u64,
        ..Element::default()
    };
    bpf(BPF_MAP_UPDATE_ELEM, &mut attr).map(drop)
}

/// Attaches a program to a perf event, with a cookie that `bpf_get_attach_cookie` returns to it. Dropping the link detaches.
///
/// # Errors
/// What the kernel says; `EINVAL` on a kernel before 5.15.
pub fn link_perf_event(program: BorrowedFd<'_>, event: BorrowedFd<'_>, cookie: u64) -> io::Result<OwnedFd> {
    #[derive(Default)]
    #[repr(C)]
    struct LinkCreate {
        prog_fd: u32,
        target_fd: u32,
        attach_type: u32,
        flags: u32,
        bpf_cookie: u64,
    }
    let mut attr = LinkCreate {
        prog_fd: raw(program),
        target_fd: raw(event),
        attach_type: BPF_PERF_EVENT,
        flags: 0,
        bpf_cookie: cookie,
    };
    bpf(BPF_LINK_CREATE, &mut attr).map(owned)
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
    const RUN_ON_CPU: u32 = 1;
    let mut attr = TestRun {
        prog_fd: raw(program),
        ctx_size_in: size_of_val(&arguments) as u32,
        ctx_in: arguments.as_ptr().expose_provenance() as u64,
        flags: if cpu.is_some() { RUN_ON_CPU } else { 0 },
        cpu: cpu.unwrap_or(0),
        ..TestRun::default()
    };
    match bpf(BPF_PROG_TEST_RUN, &mut attr) {
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

/// From now on what this thread, and those that it starts, make in file systems belongs to this group. What they run does not inherit that.
///
/// # Errors
/// `EPERM` without CAP_SETGID.
pub fn make_files_of_group(gid: u32) -> io::Result<()> {
    // SAFETY: a number in, a number out.
    let _before = unsafe { libc::setfsgid(gid) };
    // It fails without saying so: a number that is none changes nothing and tells what it is now.
    // SAFETY: as above.
    let now = unsafe { libc::setfsgid(libc::gid_t::MAX) };
    if i64::from(now) == i64::from(gid) { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

/// What reads a BPF ring buffer: it owns the map's file descriptor for as long as it lives, and always the same.
trait RingBufferOwner: AsRawFd {}
impl RingBufferOwner for RingBuf<MapData> {}
impl<L> RingBufferOwner for EbpfLogger<L> {}

/// Lets tokio say when a waker has something.
///
/// # Errors
/// What `epoll` says.
pub fn watch_waker(ring: RingBuf<MapData>) -> io::Result<AsyncFd<RingBuf<MapData>>> {
    watch(ring)
}

/// Lets tokio say when the kernel side's log has something.
///
/// # Errors
/// What `epoll` says.
pub fn watch_log<L>(log: EbpfLogger<L>) -> io::Result<AsyncFd<EbpfLogger<L>>> {
    watch(log)
}

fn watch<T: RingBufferOwner>(ring: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: see `RingBufferOwner`.
    let registered = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
    registered.map_err(|error| error.into_parts().1)
}

fn bpf<T>(command: c_int, attr: &mut T) -> io::Result<RawFd> {
    // SAFETY: `attr` is the part of `union bpf_attr` that the command reads, of the size given; addresses in it are of memory
    // that the callers keep alive.
    result(unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) })
}

fn result(value: libc::c_long) -> io::Result<RawFd> {
    if value < 0 { Err(io::Error::last_os_error()) } else { RawFd::try_from(value).map_err(io::Error::other) }
}

fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: a system call has just returned it; nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// Maps `len` bytes of a trace's file, `offset` bytes from its start, to be read.
///
/// # Errors
/// What `mmap` says.
pub fn map_file(file: &File, offset: u64, len: usize) -> io::Result<Mmap> {
    // SAFETY: whoever writes a trace adds to its files and never changes what is there. Who does so all the same may have a reader see bytes
    // change or, when the file is cut, end it by SIGBUS: every length is checked on a copy, and a reader changes nothing that it could
    // leave half done.
    unsafe { MmapOptions::new().offset(offset).len(len).populate().map(file) }
}

/// The control map, mapped: a row for every possible CPU.
///
/// ```no_run
/// # use relay_common::{Geometry, Mode, Plain, Word};
/// # use relay_daemon::channel::Channel;
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
/// # use relay_daemon::channel::Channel;
/// # let channel = Channel::create(Geometry::new(4096, 4)?, Mode::NoOverwrite, Plain)?;
/// let buffer = channel.buffer(0).unwrap();
/// buffer.store(100, b"text")?;
/// let mut copy = bytes::BytesMut::new();
/// buffer.copy_to(100, 4, &mut copy)?;
/// # Ok::<(), anyhow::Error>(())
/// ```
#[derive(Debug)]
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
    pub(crate) fn note_output(&self, len: u64) {
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
