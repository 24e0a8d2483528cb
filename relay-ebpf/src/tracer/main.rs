//! The tracer's programs: what runs at every event, and what the daemon runs to control the recording.
//!
//! Events are written as `relay_common::trace` lays them out. The channel is `relay_ebpf::channel`. A tracepoint's own fields are
//! copied as they are; all else is done by recipe.
#![no_std]
#![no_main]
#![expect(clippy::cast_possible_truncation, reason = "usize has 64 bits in BPF; what is cut is bounded before")]

mod account;
mod calls;
mod choose;
mod pairs;
mod patterns;
mod recipe;
mod trigger;
mod waiting;

use aya_ebpf::{
    EbpfContext,
    programs::{FEntryContext, PerfEventContext, ProbeContext, RawTracePointContext, TracePointContext},
};
use aya_log_ebpf::warn;
use relay_common::{
    Lost, Word as _,
    recipe::{Recipe, choice, context, flag, input},
    trace::{COMMON_FIELDS, Clock, Cookie, MAX_PAYLOAD, Packets, RECORD_HEADER, RecordHeader, TracerRequest},
};
use relay_ebpf::{
    channel,
    channel::Record,
    license, program, request, setting,
    sys::{self, Address, BpfWord, KernelAddress, Workspace},
    tracepoint,
};

use crate::{
    account::{count, may_notice},
    calls::{Call, ENTRY_WORDS, EXIT_WORDS},
    choose::{BORN, CHOSEN, NOBODY, RECORDER, SINCE, born, is_chosen, is_paused, is_recorded},
    pairs::{TOLD, UNPAIRED},
};

channel!(EVENTS: Packets<KernelClock> = Packets { clock: KernelClock });
license!();

// Whether a program of this session can run in NMI context.
setting!(NMI: u32 = sys::UNSET);
// What stands before every payload: bits of `relay_common::recipe::context`.
setting!(CONTEXT: u32 = sys::UNSET);
// Words of the kernel's `struct pt_regs`: what lies behind them may be no memory.
setting!(REGISTERS: u32 = sys::UNSET);
// Where a task has its own number, and its process's.
setting!(TID_AT: u32 = sys::UNSET);
setting!(PID_AT: u32 = sys::UNSET);

/// The clock of the records.
#[derive(Clone, Copy)]
struct KernelClock;

impl Clock for KernelClock {
    #[inline(always)]
    fn now(&self) -> u64 {
        sys::clock()
    }
    #[inline(always)]
    fn steps_back(&self) -> bool {
        NMI.load() != 0
    }
}

tracepoint!(on_tracepoint, tracepoint_event);
tracepoint!(on_fields, fields_event);
tracepoint!(on_tp_recipe, tracepoint_by_recipe);
tracepoint!(on_call, call_event);
tracepoint!(on_call_recipe, call_by_recipe);
program!(on_enter("raw_tracepoint"): RawTracePointContext, entry_event);
program!(on_enter_recipe("raw_tracepoint"): RawTracePointContext, entry_by_recipe);
program!(on_leave("raw_tracepoint"): RawTracePointContext, exit_event);
program!(on_leave_recipe("raw_tracepoint"): RawTracePointContext, exit_by_recipe);
tracepoint!(on_exec, exec_event);
program!(on_raw_tracepoint("raw_tracepoint"): RawTracePointContext, raw_tracepoint_event);
program!(on_probe("kprobe"): ProbeContext, probe_event);
program!(on_entry("fentry"): FEntryContext, function_event);
program!(on_exit("fexit"): FEntryContext, function_event);
program!(on_sample("perf_event"): PerfEventContext, sample_event);
program!(on_fork("raw_tracepoint"): RawTracePointContext, task_begins);
program!(on_free("raw_tracepoint"): RawTracePointContext, task_ends);
request!(on_request, requested);

/// Words of a tracepoint's fields that recipes start from: a system call's number and arguments, or its number and what it returns.
const SYSTEM_CALL_WORDS: usize = 7;
/// Which of these is what it returns.
const SYSTEM_CALL_RESULT: u64 = 1;
/// Words of a raw tracepoint's arguments, and of a function's with what it returns (include/linux/bpf.h, `MAX_BPF_FUNC_ARGS`).
const ARGUMENT_WORDS: usize = 13;

/// An event of any tracepoint, all of whose fields are recorded as they are: the cookie says which.
#[inline(always)]
fn tracepoint_event(ctx: &TracePointContext) {
    let current = sys::current();
    if is_recorded(current) {
        record_fields(ctx, Cookie::unpack(sys::cookie(ctx)), current);
    }
}

/// The same where the fields have a size that the program was made for.
#[inline(always)]
fn fields_event(ctx: &TracePointContext) {
    let current = sys::current();
    if !is_recorded(current) {
        return;
    }
    if !is_chosen(current) {
        count(|account| &account.unwanted);
        return;
    }
    let (id, len) = (Cookie::unpack(sys::cookie(ctx)).id, sys::fields_size());
    match EVENTS.reserve(RECORD_HEADER + len) {
        Ok(record) => {
            store_header(&record, id, len, current);
            record.copy_fields(RECORD_HEADER, ctx);
            record.commit();
        }
        Err(lost) => notice(ctx, lost),
    }
}

/// A system call: its number says which. The tracepoints of each call have the same fields at the same places.
#[inline(always)]
fn call_event(ctx: &TracePointContext) {
    let Some(event) = calls::event(ctx) else { return };
    let current = sys::current();
    if is_recorded(current) {
        record_fields(ctx, event, current);
    }
}

#[inline(always)]
fn record_fields(ctx: &TracePointContext, event: Cookie, current: u64) {
    if !is_chosen(current) {
        count(|account| &account.unwanted);
        return;
    }
    let len = payload_len(ctx, event);
    match EVENTS.reserve(RECORD_HEADER + len) {
        Ok(record) => {
            store_header(&record, event.id, len, current);
            record.copy_from_kernel(RECORD_HEADER, len, KernelAddress::in_context(ctx, COMMON_FIELDS));
            record.commit();
        }
        Err(lost) => notice(ctx, lost),
    }
}

#[inline(always)]
fn store_header(record: &Record<Packets<KernelClock>>, id: u16, len: u64, current: u64) {
    let (first, second, third) = RecordHeader::new(record.stamp(), id, len, current).words();
    record.store_word(0, first);
    record.store_word(8, second);
    record.store(16, third);
}

/// A system call that begins, where its registers are loads.
#[inline(always)]
fn entry_event(ctx: &RawTracePointContext) {
    record_call::<ENTRY_WORDS>(ctx);
}

/// One that returns.
#[inline(always)]
fn exit_event(ctx: &RawTracePointContext) {
    record_call::<EXIT_WORDS>(ctx);
}

#[inline(always)]
fn record_call<const WORDS: usize>(ctx: &RawTracePointContext) {
    let call = Call::<WORDS>::of(ctx);
    let Some(event) = call.event() else { return };
    let current = call.current;
    if !is_recorded(current) {
        return;
    }
    if !is_chosen(current) {
        count(|account| &account.unwanted);
        return;
    }
    if call.is_any() {
        record_words(ctx, &call, event.id, WORDS as u64 * 8, current);
    } else {
        record_words(ctx, &call, event.id, Call::<WORDS>::len(event), current);
    }
}

/// Inlined for a length that is known, and for one that is not.
#[inline(always)]
fn record_words<const WORDS: usize>(ctx: &RawTracePointContext, call: &Call<WORDS>, id: u16, len: u64, current: u64) {
    match EVENTS.reserve(RECORD_HEADER + len) {
        Ok(record) => {
            store_header(&record, id, len, current);
            store_call(&record, call, 0);
            record.commit();
        }
        Err(lost) => notice(ctx, lost),
    }
}

/// Stores a call's words, as many as fit, behind what stands before every payload.
#[inline(always)]
fn store_call<const WORDS: usize>(record: &Record<Packets<KernelClock>>, call: &Call<WORDS>, before: u64) {
    // Not a loop, and no closures: the compiler unrolls and inlines those after it has asked what is a constant.
    macro_rules! arguments {
        ($is_of_32_bits:literal, [$($index:literal)*]) => {
            let _ = true $(&& {
                let word = call.argument($index, $is_of_32_bits);
                record.store_word_after(before, RECORD_HEADER + 8 + $index * 8, word)
            })*;
        };
    }
    if !record.store_word_after(before, RECORD_HEADER, call.number) {
        // A call without arguments has no more than its number, of 4 bytes.
        record.store(RECORD_HEADER + before, call.number as u32);
    } else if WORDS == EXIT_WORDS {
        record.store_word_after(before, RECORD_HEADER + 8, call.result);
    } else if call.is_compat {
        arguments!(true, [0 1 2 3 4 5]);
    } else {
        arguments!(false, [0 1 2 3 4 5]);
    }
}

#[inline(always)]
fn entry_by_recipe(ctx: &RawTracePointContext) {
    call_with_recipe::<ENTRY_WORDS>(ctx);
}

#[inline(always)]
fn exit_by_recipe(ctx: &RawTracePointContext) {
    call_with_recipe::<EXIT_WORDS>(ctx);
}

#[inline(always)]
fn call_with_recipe<const WORDS: usize>(ctx: &RawTracePointContext) {
    let call = Call::<WORDS>::of(ctx);
    let Some(event) = call.event() else { return };
    let current = call.current;
    if !is_recorded(current) {
        return;
    }
    let start = |workspace: &Workspace, recipe: &Recipe| {
        if recipe.n_fetches != 0 {
            call.each(|index, word| workspace.inputs.set(index, word));
            return None;
        }
        // The tests look there.
        call.each(|index, word| workspace.store_number(index * 8, 8, word));
        Some(Call::<WORDS>::len(event))
    };
    // A system call has no frame: the inputs are not looked at before they are copied.
    with_recipe(ctx, event, current, KernelAddress::new(0), start, |record, before, _| {
        store_call(record, &call, before);
    });
}

/// One with a recipe. A program of its own: in the same one it would take the registers that the plain copy needs.
#[inline(always)]
fn tracepoint_by_recipe(ctx: &TracePointContext) {
    let current = sys::current();
    if is_recorded(current) {
        fields_by_recipe(ctx, Cookie::unpack(sys::cookie(ctx)), current);
    }
}

#[inline(always)]
fn call_by_recipe(ctx: &TracePointContext) {
    let Some(event) = calls::event(ctx) else { return };
    let current = sys::current();
    if is_recorded(current) {
        fields_by_recipe(ctx, event, current);
    }
}

/// A program has been executed in the place of another. Where that is one of 32 bits, the kernel does not show that the call returns
/// (kernel/trace/trace_syscalls.c, `trace_get_syscall_nr`): it does so here. So does on x86-64 one that the kernel shows as the return of another call.
#[inline(always)]
fn exec_event(ctx: &TracePointContext) {
    let event = Cookie::unpack(sys::cookie(ctx));
    let current = sys::current();
    if !is_recorded(current) {
        return;
    }
    let id = event.id.into();
    let (is_of_32_bits, recipe) = (calls::is_of_32_bits(), recipe::recipe(id));
    let returns_here = |recipe: &&Recipe| is_of_32_bits || recipe.flags & flag::AT_EXEC != 0;
    let Some(recipe) = recipe.filter(returns_here).filter(|recipe| waiting::is_in(id, recipe)) else {
        count(|account| &account.other_calls);
        return;
    };
    let start = |workspace: &Workspace, _: &Recipe| {
        workspace.inputs.set(SYSTEM_CALL_RESULT, 0);
        None
    };
    with_recipe(ctx, event, current, KernelAddress::in_context(ctx, COMMON_FIELDS), start, |_, _, _| ());
    if !is_of_32_bits {
        waiting::expect_again(recipe);
    }
}

#[inline(always)]
fn fields_by_recipe(ctx: &TracePointContext, event: Cookie, current: u64) {
    let fields = KernelAddress::in_context(ctx, COMMON_FIELDS);
    let start = |workspace: &Workspace, recipe: &Recipe| {
        if recipe.n_fetches != 0 {
            workspace.inputs.copy_from(0, SYSTEM_CALL_WORDS as u64 * 8, fields);
            return None;
        }
        let len = payload_len(ctx, event);
        if recipe.n_tests != 0 {
            let _ = workspace.fetch(0, len, Address::Kernel(fields));
        }
        Some(len)
    };
    with_recipe(ctx, event, current, fields, start, |record, before, len| {
        record.copy_from_kernel(RECORD_HEADER + before, len, fields);
    });
}

/// Bytes of an event's fields, from the end of the common ones to the end of the dynamic ones.
#[inline(always)]
fn payload_len(ctx: &TracePointContext, event: Cookie) -> u64 {
    let mut end = u64::from(event.size);
    if event.last_loc != 0 {
        let loc = sys::context_u32(ctx, event.last_loc);
        let base = if event.relative { u64::from(event.last_loc) + 4 } else { 0 };
        // Never less than the fixed part, whatever the word holds: the readers count on that.
        end = end.max(base + u64::from(loc & 0xffff) + u64::from(loc >> 16));
    }
    end.saturating_sub(COMMON_FIELDS).min(MAX_PAYLOAD)
}

/// An event of a tracepoint, with its arguments as the kernel passes them.
#[inline(always)]
fn raw_tracepoint_event(ctx: &RawTracePointContext) {
    arguments_event(ctx, |_, _| ());
}

/// A function's entry or exit.
#[inline(always)]
fn function_event(ctx: &FEntryContext) {
    arguments_event(ctx, |workspace, arguments| workspace.inputs.set(input::FRAME.into(), arguments.address()));
}

#[inline(always)]
fn arguments_event(ctx: &impl EbpfContext, more: impl FnOnce(&Workspace, KernelAddress)) {
    let current = sys::current();
    if is_recorded(current) {
        let arguments = KernelAddress::in_context(ctx, 0);
        let start = |workspace: &Workspace, _: &Recipe| {
            workspace.inputs.copy_from(0, ARGUMENT_WORDS as u64 * 8, arguments);
            more(workspace, arguments);
            None
        };
        with_recipe(ctx, Cookie::unpack(sys::cookie(ctx)), current, arguments, start, |_, _, _| ());
    }
}

/// A kprobe, a kretprobe, or the same in a process.
#[inline(always)]
fn probe_event(ctx: &ProbeContext) {
    registers_event(ctx, KernelAddress::in_context(ctx, 0));
}

/// A sample of what runs. Its context is not what programs are shown: it begins with the registers' address
/// (include/linux/perf_event.h, `struct bpf_perf_event_data_kern`).
#[inline(always)]
fn sample_event(ctx: &PerfEventContext) {
    recipe::sampled(Cookie::unpack(sys::cookie(ctx)).id.into());
    registers_event(ctx, KernelAddress::new(sys::context_u64(ctx, 0)));
}

#[inline(always)]
fn registers_event(ctx: &impl EbpfContext, registers: KernelAddress) {
    let current = sys::current();
    if is_recorded(current) {
        let start = |workspace: &Workspace, _: &Recipe| {
            workspace.inputs.copy_from(0, u64::from(REGISTERS.load()) * 8, registers);
            None
        };
        with_recipe(ctx, Cookie::unpack(sys::cookie(ctx)), current, registers, start, |_, _, _| ());
    }
}

/// Makes up a record as the event's recipe says. `start` fills in the inputs, which are at `inputs`; where the payload is not to be fetched it says how many
/// bytes it has, and `store` stores them behind so many others.
#[inline(always)]
fn with_recipe<C: EbpfContext>(
    ctx: &C,
    event: Cookie,
    current: u64,
    inputs: KernelAddress,
    start: impl FnOnce(&Workspace, &Recipe) -> Option<u64>,
    store: impl FnOnce(&Record<Packets<KernelClock>>, u64, u64),
) {
    let Some(recipe) = recipe::recipe(event.id.into()) else { return };
    let is_chosen = is_chosen(current);
    // A return takes its entry along even when it is not wanted itself, and an entry gives up what the thread has left: what is left behind,
    // another call's return would take.
    if !is_chosen && (event.entry || recipe.flags & flag::PAIR == 0) {
        if event.entry {
            pairs::forget(event.id.into(), current, inputs.unknown_address());
        }
        count(|account| &account.unwanted);
        return;
    }
    let Some((level, workspace)) = recipe::claim() else {
        EVENTS.count_nested();
        return;
    };
    let given = start(workspace, recipe);
    if let Some(len) = payload(recipe, event, (level, current, is_chosen), given) {
        let time = write(ctx, workspace, event.id, current, len, |record, before| {
            if given.is_some() {
                store(record, before, len);
            } else {
                record.copy_from_kernel(RECORD_HEADER + before, len, workspace.payload());
            }
        });
        if recipe.flags & flag::TRIGGER != 0 {
            trigger::fire(event.id, time);
        }
    }
    workspace.release();
}

/// Writes a record of an event, with what stands before every payload, of which `store` stores `len` bytes; returns its time.
#[inline(always)]
fn write(
    ctx: &impl EbpfContext,
    workspace: &Workspace,
    id: u16,
    current: u64,
    len: u64,
    store: impl FnOnce(&Record<Packets<KernelClock>>, u64),
) -> u64 {
    let before = if CONTEXT.load() == 0 { 0 } else { store_context(ctx, workspace) };
    // A task that is preempted in here keeps a sub-buffer from its reader.
    sys::record_begins();
    match EVENTS.reserve(RECORD_HEADER + before + len) {
        Ok(record) => {
            let time = record.stamp();
            store_header(&record, id, before + len, current);
            if CONTEXT.load() != 0 {
                record.copy_from_kernel(RECORD_HEADER, before, workspace.context());
            }
            store(&record, before);
            record.commit();
            sys::record_ends();
            time
        }
        Err(lost) => {
            sys::record_ends();
            notice(ctx, lost);
            sys::clock()
        }
    }
}

/// Bytes of the payload, when it is to be recorded. When not, that is counted.
#[inline(always)]
fn payload(
    recipe: &Recipe,
    event: Cookie,
    (level, current, is_chosen): (u32, u64, bool),
    given: Option<u64>,
) -> Option<u64> {
    let id = u32::from(event.id);
    let (first, last) = (recipe.n_entry, recipe.n_fetches);
    let is_pair = recipe.flags & flag::PAIR != 0;
    if event.entry {
        let end = recipe::gather(level, id, 0, first, recipe.size.into());
        pairs::enter(level, id, current, end);
        count(|account| &account.entries);
        return None;
    }
    let mut end = u64::from(recipe.size);
    if is_pair {
        let kept = pairs::leave(level, id, current, sys::clock());
        if !is_chosen {
            count(|account| &account.unwanted);
            return None;
        }
        if kept == TOLD {
            count(|account| &account.other_calls);
            return None;
        }
        if kept == UNPAIRED {
            count(|account| &account.unpaired);
            return None;
        }
        // Without a value of the entry nothing was kept, and all lie as the recipe says.
        if first != 0 {
            end = kept;
        }
    }
    if last != 0 {
        end = recipe::gather(level, id, if is_pair { first } else { 0 }, last, end);
    }
    if recipe.n_tests != 0 && !recipe::holds(level, id, recipe) {
        count(|account| &account.unwanted);
        return None;
    }
    let len = given.unwrap_or(end).min(MAX_PAYLOAD);
    recipe::is_within_limit(recipe, id).then_some(len)
}

/// Stores what stands before every payload; returns how many bytes.
#[inline(always)]
fn store_context(ctx: &impl EbpfContext, workspace: &Workspace) -> u64 {
    let wanted = CONTEXT.load();
    let mut at = 0;
    if wanted & context::CGROUP != 0 {
        let cgroup = sys::cgroup();
        workspace.store_context(at, cgroup as u32);
        workspace.store_context(at + 4, (cgroup >> 32) as u32);
        at += 8;
    }
    if wanted & context::COMM != 0 {
        for bytes in sys::comm().as_chunks().0 {
            workspace.store_context(at, u32::from_le_bytes(*bytes));
            at += 4;
        }
    }
    if wanted & context::UID != 0 {
        workspace.store_context(at, sys::user() as u32);
        at += 4;
    }
    if wanted & (context::KSTACK | context::USTACK) != 0 {
        // How many frames; the frames follow.
        let counts = at;
        at += 4;
        let (mut kernel, mut user) = (0, 0);
        if wanted & context::KSTACK != 0 {
            kernel = workspace.store_stack::<{ context::ADDRESS as usize }>(ctx, at, 0);
            at += kernel;
        }
        if wanted & context::USTACK != 0 {
            user = workspace.store_stack::<{ context::FRAME as usize }>(ctx, at, sys::USER_STACK_WITH_BUILD_IDS);
            at += user;
        }
        workspace.store_context(counts, (kernel / context::ADDRESS) as u32 | ((user / context::FRAME) as u32) << 16);
    }
    at
}

/// A chosen process has made another, or a thread: whatever process that is in is chosen too. One that others make is not, although the last that had
/// its number may have ended unseen.
///
/// These two are on raw tracepoints, where the kernel skips a program only while the same one runs on the CPU: on others it does while any
/// does, and a process that ends in an interrupt would stay chosen.
#[inline(always)]
fn task_begins(ctx: &RawTracePointContext) {
    let child = number(ctx.arg(1), PID_AT.load());
    let key = choice::key(choice::PID, child.into());
    if sys::value(&CHOSEN, choice::key(choice::PID, sys::current() >> 32)).is_none() {
        if sys::value(&CHOSEN, key).is_some() {
            sys::remove(&CHOSEN, key);
        }
    } else if !sys::insert(&CHOSEN, key, &BpfWord::zero()) && may_notice() {
        warn!(ctx, "too many processes to follow: the events of process {} are not recorded", child);
    }
}

/// The task is gone, and a process with it when it was the process's last.
#[inline(always)]
fn task_ends(ctx: &RawTracePointContext) {
    // Of a thread that was not its process's first, no process has the number.
    sys::remove(&CHOSEN, choice::key(choice::PID, number(ctx.arg(0), TID_AT.load()).into()));
}

/// A number of a task.
#[inline(always)]
fn number(task: u64, at: u32) -> u32 {
    sys::kernel_u32(KernelAddress::new(task.wrapping_add(at.into())))
}

/// Run by the daemon, by BPF_PROG_TEST_RUN, in its own context: so the kernel says who that is.
#[inline(always)]
fn requested(ctx: &RawTracePointContext) {
    let request: u64 = ctx.arg(0);
    let argument: u64 = ctx.arg(1);
    let current = sys::current();
    let (event, request) = (request >> 32, request & 0xffff_ffff);
    if request == TracerRequest::Follow as u64 {
        let _ = sys::insert(&CHOSEN, choice::key(choice::PID, current >> 32), &BpfWord::zero());
    } else if request == TracerRequest::Note as u64 {
        count(|account| &account.notes);
        if let Some((_, workspace)) = recipe::claim() {
            let len = size_of_val(&argument) as u64;
            let _ = write(ctx, workspace, event as u16, current, len, |record, before| {
                record.copy_from_kernel(RECORD_HEADER + before, len, KernelAddress::of(&argument));
            });
            workspace.release();
        } else {
            EVENTS.count_nested();
        }
    } else {
        let _ = BORN.swap(born());
        let recorder = if argument == 0 { current >> 32 } else { NOBODY };
        if is_paused() {
            // Before anything is recorded again: that is newer.
            let _ = SINCE.swap(sys::clock());
        }
        let _ = RECORDER.swap(if request == TracerRequest::Start as u64 { recorder } else { 0 });
    }
}

#[inline(always)]
fn notice(ctx: &impl EbpfContext, lost: Lost) {
    match lost {
        Lost::Full => notice_full(ctx),
        Lost::NoBuffer => notice_no_buffer(ctx),
        Lost::TooBig | Lost::Nested => {}
    }
}

#[inline(never)]
fn notice_full(ctx: &impl EbpfContext) {
    if may_notice() {
        warn!(ctx, "cpu {}: buffer full, records are being lost", sys::cpu());
    }
}

#[inline(never)]
fn notice_no_buffer(ctx: &impl EbpfContext) {
    if may_notice() {
        warn!(ctx, "cpu {}: no buffer, records are being lost", sys::cpu());
    }
}
