//! The tests that need the running kernel, and root.
//!
//! Without root they fail: that is a mistake of whoever runs them. Without a program that a test compares with, the test is shown as
//! ignored with the reason before its name.
#![allow(clippy::unwrap_used, reason = "a test")]

mod account;
mod calls;
mod cases;
mod channel;
mod choices;
mod cli;
mod clients;
mod compare;
mod container;
mod contexts;
mod corrupt;
mod environment;
mod events;
mod examples;
mod exports;
mod fields;
mod flight;
mod guards;
mod library;
mod list;
mod long;
mod others;
mod overwrite;
mod pieces;
mod probes;
mod reading;
mod recovery;
mod stacks;
mod trace;

use std::path::Path;

use libtest_mimic::{Arguments, Trial};
use relay_tests::machine::{Load, own_mounts};

/// What a test needs beside root.
#[derive(Clone, Copy)]
enum Need {
    /// A program, in a directory of `PATH`.
    Program(&'static str),
    Kprobes,
    NoKprobes,
    /// What kprobe.multi is made of.
    Fprobes,
    /// babeltrace2's library for Debian's Python.
    Bt2,
    /// The Python packages that decode exports.
    PythonPackages,
    /// The second CPU can go offline. The first often cannot; the second can where any can.
    Hotplug,
    ThreeCpus,
    /// The number of the next process can be told.
    LastPid,
    /// A kernel that is locked down.
    Lockdown,
    /// System calls of 32 bits, beside those of 64.
    Compat,
}

const BABELTRACE: Need = Need::Program("babeltrace2");
const PERF: Need = Need::Program("perf");
const BPFTRACE: Need = Need::Program("bpftrace");
const STRACE: Need = Need::Program("strace");
const SETPRIV: Need = Need::Program("setpriv");
const COMPILER: Need = Need::Program("cc");
const BT2: Need = Need::Bt2;
const PYTHON_PACKAGES: Need = Need::PythonPackages;
const KPROBES: Need = Need::Kprobes;
const FPROBES: Need = Need::Fprobes;
const NO_KPROBES: Need = Need::NoKprobes;
const HOTPLUG: Need = Need::Hotplug;
const THREE_CPUS: Need = Need::ThreeCpus;
const LAST_PID: Need = Need::LastPid;
const LOCKDOWN: Need = Need::Lockdown;
const COMPAT: Need = Need::Compat;

impl Need {
    /// What is missing.
    fn missing(self) -> Option<String> {
        let exists = |path: &str| Path::new(path).exists();
        let symbols = || std::fs::read_to_string("/proc/kallsyms").unwrap_or_default();
        let lockdown = || std::fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
        let kprobes = exists("/sys/bus/event_source/devices/kprobe");
        let (is_there, missing) = match self {
            Self::Program(program) => {
                let path = std::env::var_os("PATH").unwrap_or_default();
                let installed = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
                return (!installed).then(|| format!("no {program}"));
            }
            Self::Bt2 => (exists("/usr/lib/python3/dist-packages/bt2"), "no python3-bt2"),
            Self::PythonPackages => (
                std::env::var_os("RELAYD_TOOLS").is_some() && relay_tests::python_packages().join("installed").exists(),
                "no Python packages: cargo xtask kernel installs them",
            ),
            Self::Kprobes => (kprobes, "a kernel without kprobes"),
            Self::Fprobes => (symbols().contains(" register_fprobe_ips"), "a kernel without fprobes"),
            Self::NoKprobes => (!kprobes, "a kernel that has kprobes"),
            Self::Hotplug => (exists("/sys/devices/system/cpu/cpu1/online"), "no CPU can go offline"),
            Self::ThreeCpus => (exists("/sys/devices/system/cpu/cpu2"), "fewer than three CPUs"),
            Self::LastPid => (exists("/proc/sys/kernel/ns_last_pid"), "a kernel without CONFIG_CHECKPOINT_RESTORE"),
            Self::Compat => (symbols().contains(" __ia32_sys_getpid"), "a kernel without system calls of 32 bits"),
            Self::Lockdown => (lockdown().contains("[confidentiality]"), "a kernel that is not locked down"),
        };
        (!is_there).then(|| missing.to_owned())
    }
}

/// Lists functions of a module as tests, each with what it needs.
macro_rules! tests {
    ($($module:ident: $([$($needs:ident),*] $test:ident),+ $(,)?;)+) => {
        vec![$($(test(concat!(stringify!($module), "::", stringify!($test)), &[$($needs),*], $module::$test)),+),+]
    };
}

fn test(name: &'static str, needs: &[Need], run: fn()) -> Trial {
    let missing = needs.iter().find_map(|need| need.missing());
    let trial = Trial::test(name, move || {
        assert!(rustix::process::geteuid().is_root(), "needs root: cargo xtask test");
        let _told_by_failure = Load::watch();
        run();
        Ok(())
    });
    match missing {
        Some(missing) => trial.with_kind(missing).with_ignored_flag(true),
        None => trial,
    }
}

/// The tests without those that have finished already, where a file says which have: in a guest that was booted again.
fn left_over(mut tests: Vec<Trial>) -> Vec<Trial> {
    let finished = std::env::var_os("RELAY_TESTS_FINISHED").map(std::fs::read_to_string);
    let finished = finished.map(|names| names.expect("the file of the tests that have finished")).unwrap_or_default();
    tests.retain(|test| !finished.lines().any(|name| name == test.name()));
    tests
}

fn main() {
    if guards::was_load() || contexts::was_load() {
        return;
    }
    let tests = tests! {
        channel: [] the_kernel_writes_the_golden_vectors_to_the_byte,
            [] a_write_on_one_cpu_leaves_the_others_alone,
            [] a_closed_subbuf_ends_with_the_padding_its_header_says,
            [HOTPLUG] the_channel_s_program_closes_the_buffer_of_a_cpu_that_is_offline;
        clients: [] programs_that_interrupt_one_another_write_whole_records,
            [] programs_of_every_kind_write,
            [KPROBES] kprobes_and_fentry_write,
            [] callbacks_are_called_once_for_each_transition,
            [] a_program_sees_full_empty_and_what_was_lost,
            [] a_reset_channel_is_as_new,
            [] an_object_is_given_the_channels_that_it_declares,
            [] the_clock_of_a_cpu_does_not_fall;
        library: [] what_programs_write_is_in_the_files,
            [] a_new_channel_is_empty,
            [] bytes_are_stored_and_copied_inside_the_buffer_alone,
            [] a_consumer_takes_what_is_ready_and_a_reset_channel_has_nothing,
            [] readers_take_what_every_cpu_has,
            [] a_snapshot_of_nothing_has_nothing,
            [] a_channel_that_is_pinned_is_opened_again,
            [] klog_gives_lines_as_they_come_and_the_rest_at_its_end,
            [] the_file_systems_are_where_they_are_said_to_be;
        calls: [] system_calls_through_two_hooks_are_what_their_own_tracepoints_say,
            [] pairs_through_two_hooks_have_the_values_of_their_calls,
            [COMPAT] system_calls_of_32_bits_are_no_others,
            [] an_event_of_many_is_removed_from_a_session;
        cases: [PERF] a_thread_has_the_name_that_perf_shows_at_each_record,
            [] a_name_may_be_any_bytes_and_every_reader_has_it,
            [] notices_of_names_that_are_lost_are_said_to_be,
            [STRACE, COMPAT] a_program_of_32_bits_makes_the_calls_that_strace_shows,
            [COMPAT] the_execve_of_a_program_of_32_bits_returns,
            [STRACE, COMPILER] an_execve_of_a_thread_is_one_call_that_returns,
            [COMPILER] every_entry_has_returned_or_is_told_why_not,
            [STRACE] an_execve_has_the_arguments_that_strace_shows,
            [STRACE, COMPILER] an_execveat_has_what_strace_shows,
            [COMPILER] a_list_that_just_fits_is_not_said_to_be_cut,
            [PERF, COMPILER] signals_are_those_that_perf_shows,
            [COMPILER] a_function_has_its_name_however_long_it_is,
            [BABELTRACE, BPFTRACE, COMPILER] arguments_of_a_program_are_those_that_bpftrace_shows,
            [COMPILER] static_probes_of_a_library_have_its_variables,
            [COMPILER] code_in_no_file_has_the_names_that_it_has_told,
            [COMPILER] code_of_a_process_that_has_ended_has_its_names;
        contexts: [] every_call_is_accounted_for_by_kind,
            [KPROBES] every_call_of_a_function_of_the_kernel_is_accounted_for,
            [] every_call_of_a_raw_tracepoint_is_accounted_for_without_statistics,
            [] every_pass_of_a_static_probe_is_accounted_for,
            [] every_sample_is_accounted_for,
            [] all_kinds_at_once_account_for_every_call,
            [] snapshots_of_all_kinds_are_sound;
        overwrite: [] live_snapshots_are_consistent,
            [] snapshots_that_are_overtaken_count_what_they_miss,
            [BABELTRACE] sigusr1_writes_a_snapshot_and_recording_goes_on,
            [] a_snapshot_without_overwrite_is_refused_and_recording_goes_on;
        corrupt: [] writers_stay_inside_their_subbufs_whatever_the_reader_s_words_hold,
            [] readers_report_a_consumed_count_that_is_not_theirs,
            [BABELTRACE] relayd_stops_in_order_when_its_control_page_is_scribbled_on,
            [] relayd_reports_a_corrupt_padding_by_cpu_and_subbuf;
        trace: [BABELTRACE] every_record_is_read_by_babeltrace2,
            [BABELTRACE] dynamic_strings_show_the_right_file_names,
            [BABELTRACE] the_file_is_the_packets_and_nothing_else,
            [BABELTRACE] the_commands_own_system_calls_are_all_there,
            [BABELTRACE] relayds_own_events_are_left_out_and_counted,
            [BABELTRACE] overwrite_keeps_the_newest_records,
            [] session_json_has_what_the_format_says,
            [BABELTRACE, HOTPLUG] a_cpu_that_goes_offline_is_drained_all_the_same,
            [BABELTRACE, HOTPLUG] a_cpu_that_comes_online_gets_a_buffer_and_a_file,
            [HOTPLUG, THREE_CPUS] cpu_numbers_may_have_gaps,
            [] the_end_does_not_wait_for_the_kernel_to_detach,
            [] a_second_interrupt_does_not_wait_for_the_end;
        long: [] every_run_is_recorded_or_lost,
            [] every_record_is_read_or_overrun;
        examples: [] klog_shows_what_programs_log_in_the_order_of_time,
            [] klog_runs_the_object_that_it_is_given,
            [] kleak_lists_what_was_not_freed_by_call_site;
        account: [BABELTRACE] a_storm_in_no_overwrite_mode_adds_up,
            [BABELTRACE] a_storm_in_overwrite_mode_adds_up,
            [] a_reader_among_many_tasks_loses_nothing,
            [BABELTRACE] losses_are_placed_in_time,
            [BABELTRACE] the_last_loss_is_told_by_a_packet_of_its_own;
        compare: [BABELTRACE, PERF] perf_saw_the_same_context_switches,
            [BABELTRACE, PERF] perf_saw_the_same_system_calls,
            [BABELTRACE, PERF] perf_saw_the_same_sides_of_a_call;
        probes: [BABELTRACE] system_calls_have_their_arguments_results_and_durations,
            [BABELTRACE] a_call_that_does_not_return_is_recorded_at_its_entry,
            [] a_call_whose_return_never_comes_is_counted,
            [] samples_that_fall_into_another_program_are_counted,
            [BABELTRACE] an_execve_shows_the_program_that_was_run,
            [BABELTRACE] a_raw_tracepoint_has_the_arguments_of_the_kernel,
            [BABELTRACE] samples_come_at_their_rate_from_every_cpu,
            [BABELTRACE, BPFTRACE] bpftrace_saw_the_same_calls_of_a_library,
            [BABELTRACE, BPFTRACE] bpftrace_saw_the_same_returns_of_a_library,
            [BABELTRACE, BPFTRACE, KPROBES] bpftrace_saw_the_same_kprobes,
            [BABELTRACE, BPFTRACE, KPROBES] bpftrace_saw_the_same_kretprobes,
            [BABELTRACE, BPFTRACE, KPROBES] bpftrace_saw_the_same_functions_of_a_pattern,
            [FPROBES] the_functions_of_a_pattern_are_attached_at_once,
            [BABELTRACE, KPROBES] kprobes_and_trampolines_of_one_function_agree,
            [BABELTRACE, KPROBES] a_duration_is_the_time_between_entry_and_return,
            [KPROBES] durations_of_one_thread_do_not_overlap,
            [BABELTRACE, KPROBES] returns_that_the_kernel_had_no_room_for_are_counted,
            [BABELTRACE] a_system_call_takes_as_long_as_it_slept,
            [BABELTRACE, COMPILER] calls_inside_calls_are_paired_each_with_its_own,
            [BABELTRACE, COMPILER] static_probes_have_their_arguments,
            [BABELTRACE, COMPILER] static_probes_have_arguments_in_memory_and_those_left_out_are_named,
            [] an_address_in_an_integer_is_followed,
            [BABELTRACE] a_string_that_cannot_be_read_is_recorded_as_a_fault,
            [] what_is_wrong_with_an_event_is_said,
            [KPROBES] what_is_wrong_with_a_function_is_said,
            [NO_KPROBES] a_kind_that_the_kernel_lacks_is_refused_with_one_that_works;
        guards: [] a_function_that_many_threads_call_is_recorded_each_time,
            [KPROBES] a_function_of_a_process_and_functions_of_the_kernel_have_programs_of_their_own,
            [] tracepoints_of_system_calls_have_programs_of_their_own,
            [] hooks_that_are_not_preempted_skip_few,
            [] calls_that_are_skipped_are_counted,
            [] much_that_is_skipped_is_warned_of_with_the_way_out;
        choices: [BABELTRACE] one_process_is_recorded_and_the_rest_is_counted,
            [BABELTRACE] a_command_is_followed_to_the_processes_that_it_starts,
            [BABELTRACE] names_users_and_cpus_choose_events,
            [BABELTRACE] a_cgroup_and_those_below_it_choose_events,
            [BABELTRACE] a_condition_keeps_what_it_says_and_nothing_else,
            [BABELTRACE] a_limit_is_kept_and_what_is_over_it_is_counted,
            [BABELTRACE] context_is_that_of_the_task,
            [] a_return_takes_its_entry_along_even_when_it_is_not_wanted,
            [BABELTRACE] a_pair_has_all_its_bytes,
            [COMPILER] the_recorder_and_the_reader_agree_on_texts_of_any_length;
        reading: [BT2] print_shows_what_babeltrace_reads,
            [] a_trace_is_followed_while_it_is_recorded,
            [] a_trace_in_pieces_is_followed_to_its_end,
            [] times_before_now_are_of_a_trace_that_is_being_recorded,
            [] what_a_killed_recorder_has_left_is_saved;
        recovery: [] what_was_recorded_survives_kills,
            [LAST_PID] the_number_of_a_killed_recorder_is_no_reason_to_leave_events_out,
            [] names_of_what_is_gone_are_kept,
            [] what_cannot_be_recovered_is_said;
        flight: [] a_session_records_without_a_process,
            [] a_snapshot_is_cut_at_one_instant_on_all_cpus,
            [] a_record_stops_the_recording_and_what_led_to_it_stays,
            [BABELTRACE] a_running_sessions_events_change_and_the_trace_says_so,
            [] calls_that_return_while_it_is_stopped_have_no_return_later,
            [] added_events_are_recorded_of_followed_processes,
            [] processes_that_have_ended_are_no_longer_chosen,
            [LAST_PID] the_number_of_an_ended_process_is_chosen_for_no_other,
            [] sessions_that_cannot_be_used_are_told_apart,
            [] a_snapshot_that_fills_the_disk_leaves_nothing_and_the_session_goes_on,
            [] a_snapshot_that_is_killed_is_whole_or_not_there,
            [KPROBES] a_slow_call_stops_the_recording,
            [SETPRIV] a_session_needs_no_more_capabilities_than_its_unit_names;
        others: [] a_trace_that_is_recorded_is_not_replaced,
            [] a_directory_that_is_renamed_is_followed,
            [] what_is_removed_ends_the_recording,
            [] what_is_cut_off_ends_the_recording,
            [] a_limit_of_files_ends_the_recording_as_a_full_disk_does,
            [] following_ends_when_the_recorder_is_killed;
        pieces: [BABELTRACE] pieces_are_whole_traces_and_lose_nothing_between_them,
            [BABELTRACE] the_oldest_pieces_give_way_to_the_newest,
            [] a_disk_that_fills_faster_than_pieces_end_ends_no_recording,
            [BABELTRACE] a_full_disk_ends_no_recording_that_has_old_pieces,
            [] pieces_share_the_kernels_symbols,
            [] pieces_are_whole_with_one_sub_buffer,
            [BABELTRACE] a_compressed_piece_is_the_piece,
            [BABELTRACE] a_recorder_that_is_killed_while_it_compresses_leaves_whole_pieces,
            [BABELTRACE] a_recorder_that_is_killed_between_pieces_loses_nothing,
            [BABELTRACE] what_stands_where_a_piece_would_is_told_apart,
            [] what_makes_no_pieces_is_refused;
        exports: [PYTHON_PACKAGES] perfetto_decodes_every_event,
            [PYTHON_PACKAGES] perfetto_is_told_of_losses_and_machines,
            [PYTHON_PACKAGES] duckdb_reads_every_record,
            [PYTHON_PACKAGES] spans_are_the_same_to_perfetto_and_duckdb,
            [] a_full_disk_leaves_nothing_behind;
        stacks: [BABELTRACE, COMPILER, PERF] perf_saw_the_same_stacks,
            [COMPILER] a_stack_has_as_many_frames_as_there_is_room_for,
            [BABELTRACE, COMPILER] a_program_that_is_gone_is_known_by_its_build_id,
            [BABELTRACE, COMPILER] functions_of_a_file_that_is_not_at_its_path_are_kept,
            [] what_cannot_be_symbolized_is_said;
        events: [BABELTRACE] babeltrace2_accepts_the_metadata_of_every_tracepoint,
            [BABELTRACE] every_tracepoint_that_can_be_attached_is_and_is_detached,
            [] most_words_of_print_formats_are_known;
        fields: [] ftrace_shows_the_same_fields,
            [] constant_texts_of_the_kernel_are_shown,
            [COMPILER, STRACE] strace_has_the_same_words,
            [] system_calls_without_tracepoints_of_their_own_are_named;
        list: [] every_tracepoint_is_listed,
            [] arguments_are_listed_as_they_can_be_written,
            [] what_is_listed_can_be_recorded,
            [] a_word_finds_every_kind_that_there_is,
            [] a_wrong_pattern_offers_the_nearest,
            [] a_reader_that_has_seen_enough_is_no_error,
            [] kinds_that_the_kernel_lacks_are_refused_with_what_would_work,
            [KPROBES] functions_are_listed_with_their_parameters,
            [] a_structure_has_members_with_offsets,
            [] calls_of_32_bits_are_listed,
            [] probes_that_others_have_made_are_no_tracepoints,
            [COMPILER] functions_in_files_of_any_name_are_listed_and_recorded,
            [] one_version_of_a_function_is_recorded;
        container: [] processes_have_the_numbers_that_the_host_gives_them,
            [] numbers_that_mean_other_processes_are_refused,
            [] paths_that_mean_other_cgroups_are_refused,
            [] a_container_that_comes_and_goes_is_named,
            [SETPRIV] the_smallest_rights_are_enough;
        environment: [SETPRIV] without_capabilities_the_error_says_so,
            [SETPRIV] a_container_without_capabilities_is_told_of_them,
            [] root_of_a_user_namespace_is_told_so,
            [] a_seccomp_filter_is_named,
            [SETPRIV] file_systems_that_are_missing_are_named,
            [] a_read_only_bpf_file_system_is_named,
            [BABELTRACE] a_read_only_tracefs_is_enough,
            [BABELTRACE] file_systems_that_are_not_mounted_are_mounted,
            [LOCKDOWN] a_kernel_in_lockdown_is_named,
            [SETPRIV] what_stands_in_the_way_is_only_said_where_something_does;
        cli: [] frequent_errors_are_said_to_the_letter,
            [] an_unknown_event_offers_the_nearest_name,
            [] a_glob_that_matches_nothing_is_an_error,
            [] sizes_that_cannot_be_are_refused,
            [] sizes_are_rounded_up_and_that_is_said,
            [] a_directory_that_cannot_be_made_is_an_error,
            [] an_existing_trace_is_replaced_only_by_force,
            [] a_command_that_does_not_exist_is_an_error,
            [] the_commands_exit_status_is_passed_on,
            [BABELTRACE] a_full_disk_stops_recording_and_the_trace_stays_valid,
            [BABELTRACE] a_signal_ends_the_recording_in_order,
            [BABELTRACE] a_second_signal_loses_nothing,
            [] check_says_what_the_machine_has,
            [] nothing_stays_behind_in_the_bpf_file_system;
    };
    let mut arguments = Arguments::from_args();
    let tests = if arguments.list { tests } else { left_over(tests) };
    arguments.test_threads = Some(1);
    if !arguments.list && rustix::process::geteuid().is_root() {
        own_mounts().expect("mounts of the tests' own");
    }
    libtest_mimic::run(&arguments, tests).exit();
}
