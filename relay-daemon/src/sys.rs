//! Everything unsafe in the tracer: system calls that no crate offers.
#![expect(unsafe_code, reason = "the one file of this crate that may")]
#![expect(clippy::cast_possible_truncation, reason = "addresses and lengths have 64 bits: asserted below")]

use std::{
    ffi::{CStr, c_int},
    io,
    os::fd::{AsFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

use aya::{
    Pod,
    maps::{MapData, MapType},
};
use aya_log::EbpfLogger;
use aya_obj::generated::{
    BPF_F_KPROBE_MULTI_RETURN, PERF_FLAG_FD_CLOEXEC, bpf_attach_type, bpf_cmd, bpf_insn, bpf_link_type,
    bpf_perf_event_type, bpf_prog_type, perf_sw_ids, perf_type_id,
};
use relay_channel::sys::{bpf, raw, result};
use relay_common::{
    recipe::{Pattern, Recipe},
    rows::{Account, Cgroup, Tally, Trigger},
};
use tokio::io::{Interest, unix::AsyncFd};

const _: () = assert!(usize::BITS == 64, "relayd is for 64-bit machines");

/// A row of a map, as aya reads and writes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Row<T>(pub T);
// SAFETY: words, of which any is one.
unsafe impl Pod for Row<Account<u64>> {}
// SAFETY: words.
unsafe impl Pod for Row<Tally<u64>> {}
// SAFETY: words.
unsafe impl Pod for Row<Trigger<u64>> {}
// SAFETY: words.
unsafe impl Pod for Row<Cgroup> {}
// SAFETY: words.
unsafe impl Pod for Row<Pattern> {}
// SAFETY: numbers, and its padding is spelt out as fields.
unsafe impl Pod for Row<Recipe> {}

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
        PerfEventAttr {
            kind: perf_type_id::PERF_TYPE_TRACEPOINT as u32,
            config: id,
            flags: PERF_DISABLED,
            ..PerfEventAttr::default()
        },
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
    let attr = PerfEventAttr {
        kind: perf_type_id::PERF_TYPE_SOFTWARE as u32,
        config: perf_sw_ids::PERF_COUNT_SW_CPU_CLOCK as u64,
        sample: hertz,
        flags: PERF_FREQ,
        ..PerfEventAttr::default()
    };
    open_perf_event(attr, cpu)
}

/// What a program is loaded with.
#[derive(Debug)]
pub struct ProgramLoad<'a> {
    /// What it is.
    pub kind: bpf_prog_type,
    /// How it will be attached, where it has to say so beforehand.
    pub attach: Option<bpf_attach_type>,
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
        prog_type: load.kind as u32,
        insn_cnt: u32::try_from(load.instructions.len()).map_err(io::Error::other)?,
        insns: load.instructions.as_ptr().expose_provenance() as u64,
        license: c"Dual MIT/GPL".as_ptr().expose_provenance() as u64,
        expected_attach_type: load.attach.map_or(0, |attach| attach as u32),
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
    let error = match call(bpf_cmd::BPF_PROG_LOAD, &mut attr) {
        Ok(fd) => return Ok(owned(fd)),
        Err(error) => error,
    };
    let mut log = vec![0u8; LOG];
    let mut again =
        Load { log_level: 1, log_size: LOG as u32, log_buf: log.as_mut_ptr().expose_provenance() as u64, ..attr };
    if let Ok(fd) = call(bpf_cmd::BPF_PROG_LOAD, &mut again) {
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
    open(bpf_cmd::BPF_BTF_LOAD, &mut Load { btf, size, ..Load::default() })
}

/// The first value of an array map.
///
/// # Errors
/// When it is not one, or what the kernel says.
pub fn first_value(map: &MapData) -> io::Result<Vec<u8>> {
    #[derive(Default)]
    #[repr(C)]
    struct LookUp {
        map: u32,
        unused: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let info = map.info().map_err(io::Error::other)?;
    if info.map_type().map_err(io::Error::other)? != MapType::Array {
        return Err(io::Error::other("this is not an array"));
    }
    let key = 0u32;
    let mut value = vec![0u8; info.value_size() as usize];
    let mut attr = LookUp {
        map: raw(map.fd().as_fd()),
        key: (&raw const key).expose_provenance() as u64,
        value: value.as_mut_ptr().expose_provenance() as u64,
        ..LookUp::default()
    };
    // SAFETY: the kernel reads a key of 4 bytes, and writes a value of the size that it says an array's values have.
    unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attr) }?;
    Ok(value)
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
    open(bpf_cmd::BPF_BTF_GET_FD_BY_ID, &mut ById { id, ..ById::default() })
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
    match call(bpf_cmd::BPF_BTF_GET_NEXT_ID, &mut attr) {
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
    call(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr).map(drop)
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
    let is = |kind: bpf_link_type| info.kind == kind as u32;
    let is_probe = |kind: bpf_perf_event_type| info.words[0] == kind as u64;
    if is(bpf_link_type::BPF_LINK_TYPE_KPROBE_MULTI) {
        return Ok(Some(info.words[2]));
    }
    let is_kprobe = is(bpf_link_type::BPF_LINK_TYPE_PERF_EVENT)
        && (is_probe(bpf_perf_event_type::BPF_PERF_EVENT_KPROBE)
            || is_probe(bpf_perf_event_type::BPF_PERF_EVENT_KRETPROBE));
    Ok(is_kprobe.then_some(info.words[4]))
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
    open(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &mut Open { name, prog_fd: raw(program), ..Open::default() })
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
        attach_type: bpf_attach_type::BPF_TRACE_KPROBE_MULTI as u32,
        multi_flags: if returns { BPF_F_KPROBE_MULTI_RETURN } else { 0 },
        count: u32::try_from(functions.len()).map_err(io::Error::other)?,
        symbols: symbols.as_ptr().expose_provenance() as u64,
        cookies: cookies.as_ptr().expose_provenance() as u64,
        ..LinkCreate::default()
    };
    open(bpf_cmd::BPF_LINK_CREATE, &mut attr)
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
        attach_type: bpf_attach_type::BPF_PERF_EVENT as u32,
        flags: 0,
        bpf_cookie: cookie,
    };
    open(bpf_cmd::BPF_LINK_CREATE, &mut attr)
}

/// From now on a file that has the size that this process may give it takes no more, and the process lives: `write` says so (`EFBIG`). What it runs does not
/// inherit that.
pub fn survive_file_limits() {
    extern "C" fn nothing(_: c_int) {}
    let handler: extern "C" fn(c_int) = nothing;
    // SAFETY: the handler does nothing, which any signal may interrupt.
    let _ = unsafe { libc::signal(libc::SIGXFSZ, handler as libc::sighandler_t) };
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

/// Lets tokio say when the kernel side's log has something.
///
/// # Errors
/// What `epoll` says.
pub fn watch_log<L>(log: EbpfLogger<L>) -> io::Result<AsyncFd<EbpfLogger<L>>> {
    // SAFETY: a log owns its map's file descriptor for as long as it lives, and always the same.
    let registered = unsafe { AsyncFd::register_with_interest(log, Interest::READABLE) };
    registered.map_err(|error| error.into_parts().1)
}

fn call<T>(command: bpf_cmd, attr: &mut T) -> io::Result<RawFd> {
    // SAFETY: `attr` is the part of `union bpf_attr` that the command reads; addresses in it are of memory that the callers keep alive.
    unsafe { bpf(command, attr) }
}

fn open<T>(command: bpf_cmd, attr: &mut T) -> io::Result<OwnedFd> {
    call(command, attr).map(owned)
}

fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: a system call has just returned it; nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
