//! Whose events are recorded: the recorder itself, chosen tasks, users, cgroups and CPUs.

use aya_ebpf::{
    btf_maps::{Array, HashMap},
    macros::btf_map,
};
use relay_common::{Word as _, recipe::choice, rows::Cgroup};
use relay_ebpf::{
    setting,
    sys::{self, BpfWord, KernelAddress},
};

use crate::{account::count, patterns, trigger};

// Which choices there are: bits of `relay_common::recipe::choice`.
setting!(CHOICES: u32 = sys::UNSET);
// How many patterns of names.
setting!(NAMES: u32 = sys::UNSET);
// How many cgroups.
setting!(CHOSEN_CGROUPS: u32 = sys::UNSET);
// Where a task has its process's first thread, and when it began; zero where that is not known.
setting!(LEADER_AT: u32 = sys::UNSET);
setting!(BORN_AT: u32 = sys::UNSET);

/// Whose events are left out: a process, as the kernel numbers it (the request to start tells; in a container the recorder
/// itself does not know), [`NOBODY`], or zero for everybody's, while the session is not recording.
pub(crate) static RECORDER: BpfWord = BpfWord::zero();

/// When that process began: its number may be another's when it has been killed.
pub(crate) static BORN: BpfWord = BpfWord::zero();

/// When recording was started last, after a pause: what is older than that may have ended unseen.
pub(crate) static SINCE: BpfWord = BpfWord::zero();

/// No process has this number.
pub(crate) const NOBODY: u64 = u64::MAX;

/// Chosen processes, threads, users and CPUs: `choice::key`.
#[btf_map]
pub(crate) static CHOSEN: HashMap<u64, BpfWord, 1> = HashMap::new();

#[btf_map]
static CGROUPS: Array<Cgroup, { choice::MAX_CGROUPS as usize }> = Array::new();

/// Whether nobody's events are recorded now.
#[inline(always)]
pub(crate) fn is_paused() -> bool {
    RECORDER.peek() == 0 || trigger::has_ended()
}

/// Whether recording is under way, and the current task, `tgid << 32 | tid`, not the recorder. If not, that is counted.
#[inline(always)]
pub(crate) fn is_recorded(current: u64) -> bool {
    let recorder = RECORDER.peek();
    if recorder == 0 || trigger::has_ended() {
        count(|account| &account.outside);
        return false;
    }
    if recorder == current >> 32 && is_recorder() != 0 {
        count(|account| &account.own);
        return false;
    }
    true
}

relay_ebpf::subprogram! {
    /// Not zero when the current process, which has the recorder's number, is the recorder.
    fn is_recorder() -> u64 {
        u64::from(BORN.peek() == born())
    }
}

/// When the current process began; zero where that is not known.
#[inline(always)]
pub(crate) fn born() -> u64 {
    let member = |structure: u64, at: u32| sys::kernel_u64(KernelAddress::new(structure.wrapping_add(at.into())));
    if BORN_AT.load() == 0 { 0 } else { member(member(sys::task(), LEADER_AT.load()), BORN_AT.load()) }
}

/// Whether the current task and the CPU were chosen.
#[inline(always)]
pub(crate) fn is_chosen(current: u64) -> bool {
    CHOICES.load() == 0 || is_unwanted(current) == 0
}

relay_ebpf::subprogram! {
    /// Not zero when the current task, or the CPU, was not chosen.
    fn is_unwanted(current: u64) -> u64 {
        let choices = CHOICES.load();
        let lacks = |bit: u32, number: u64| choices & bit != 0 && sys::value(&CHOSEN, choice::key(bit, number)).is_none();
        let unwanted = lacks(choice::PID, current >> 32)
            || lacks(choice::TID, current & 0xffff_ffff)
            || lacks(choice::UID, sys::user() & 0xffff_ffff)
            || lacks(choice::CPU, u64::from(sys::cpu()))
            || choices & choice::CGROUP != 0 && !is_in_cgroup()
            || choices & choice::NAME != 0 && !has_name();
        u64::from(unwanted)
    }
}

#[inline(always)]
fn is_in_cgroup() -> bool {
    for index in 0..choice::MAX_CGROUPS {
        if index < CHOSEN_CGROUPS.load()
            && let Some(cgroup) = CGROUPS.get(index)
            && sys::cgroup_at(cgroup.level as u32) == cgroup.id
        {
            return true;
        }
    }
    false
}

#[inline(always)]
fn has_name() -> bool {
    let comm = sys::comm();
    for index in 0..choice::MAX_NAMES {
        if index < NAMES.load() && patterns::name_matches(index, &comm) {
            return true;
        }
    }
    false
}
