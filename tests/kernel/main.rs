//! The tests that need the running kernel, and root.
//!
//! Without root they fail: that is a mistake of whoever runs them. Without a program that a test compares with, the test is shown as
//! ignored with the reason before its name.
#![allow(clippy::unwrap_used, reason = "a test")]

mod account;
mod channel;
mod choices;
mod cli;
mod clients;
mod compare;
mod corrupt;
mod events;
mod examples;
mod list;
mod long;
mod overwrite;
mod probes;
mod trace;

use std::path::Path;

use libtest_mimic::{Arguments, Trial};

/// What a test needs beside root.
#[derive(Clone, Copy)]
enum Needs {
    Nothing,
    Babeltrace,
    BabeltraceAndPerf,
    BabeltraceAndHotplug,
    /// Three CPUs, of which the second can go offline.
    ThreeCpus,
    /// A kernel with kprobes, and with what fentry takes.
    Kprobes,
    BabeltraceAndBpftrace,
    BabeltraceAndKprobes,
    BabeltraceBpftraceAndKprobes,
    BabeltraceAndCompiler,
    /// A kernel without kprobes, or without what fentry takes.
    NoKprobes,
}

impl Needs {
    /// What is missing.
    fn missing(self) -> Option<String> {
        let programs: &[&str] = match self {
            Self::Nothing | Self::Kprobes | Self::NoKprobes | Self::ThreeCpus => &[],
            Self::Babeltrace | Self::BabeltraceAndHotplug | Self::BabeltraceAndKprobes => &["babeltrace2"],
            Self::BabeltraceAndBpftrace | Self::BabeltraceBpftraceAndKprobes => &["babeltrace2", "bpftrace"],
            Self::BabeltraceAndCompiler => &["babeltrace2", "cc"],
            Self::BabeltraceAndPerf => &["babeltrace2", "perf"],
        };
        let path = std::env::var_os("PATH").unwrap_or_default();
        let installed = |program: &&str| std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
        if let Some(program) = programs.iter().find(|program| !installed(program)) {
            return Some(format!("no {program}"));
        }
        let kprobes = Path::new("/sys/bus/event_source/devices/kprobe").exists();
        if matches!(self, Self::Kprobes | Self::BabeltraceAndKprobes | Self::BabeltraceBpftraceAndKprobes) {
            return (!kprobes).then(|| "a kernel without kprobes".to_owned());
        }
        if matches!(self, Self::NoKprobes) {
            return kprobes.then(|| "a kernel that has kprobes".to_owned());
        }
        if matches!(self, Self::ThreeCpus) {
            let three = Path::new("/sys/devices/system/cpu/cpu2").exists()
                && Path::new("/sys/devices/system/cpu/cpu1/online").exists();
            return (!three).then(|| "fewer than three CPUs, or none can go offline".to_owned());
        }
        // The first CPU often cannot go; the second can where any can.
        let can_go = Path::new("/sys/devices/system/cpu/cpu1/online").exists();
        (matches!(self, Self::BabeltraceAndHotplug) && !can_go).then(|| "no CPU can go offline".to_owned())
    }
}

/// Lists functions of a module as tests, each with what it needs.
macro_rules! tests {
    ($($module:ident: $($needs:ident $test:ident),+ $(,)?;)+) => {
        vec![$($(test(concat!(stringify!($module), "::", stringify!($test)), Needs::$needs, $module::$test)),+),+]
    };
}

fn test(name: &'static str, needs: Needs, run: fn()) -> Trial {
    let missing = needs.missing();
    let trial = Trial::test(name, move || {
        assert!(rustix::process::geteuid().is_root(), "needs root: cargo xtask test");
        run();
        Ok(())
    });
    match missing {
        Some(missing) => trial.with_kind(missing).with_ignored_flag(true),
        None => trial,
    }
}

fn main() {
    let tests = tests! {
        channel: Nothing the_kernel_writes_the_golden_vectors_to_the_byte,
            Nothing a_write_on_one_cpu_leaves_the_others_alone,
            Nothing a_closed_subbuf_ends_with_the_padding_its_header_says;
        clients: Nothing programs_that_interrupt_one_another_write_whole_records,
            Nothing programs_of_every_kind_write,
            Kprobes kprobes_and_fentry_write,
            Nothing callbacks_are_called_once_for_each_transition,
            Nothing a_program_sees_full_empty_and_what_was_lost,
            Nothing a_reset_channel_is_as_new,
            Nothing an_object_is_given_the_channels_that_it_declares;
        overwrite: Nothing a_thousand_live_snapshots_are_consistent,
            Nothing snapshots_that_are_overtaken_count_what_they_miss,
            Babeltrace sigusr1_writes_a_snapshot_and_recording_goes_on,
            Nothing a_snapshot_without_overwrite_is_refused_and_recording_goes_on;
        corrupt: Nothing writers_stay_inside_their_subbufs_whatever_the_reader_s_words_hold,
            Nothing readers_report_a_consumed_count_that_is_not_theirs,
            Babeltrace relayd_stops_in_order_when_its_control_page_is_scribbled_on,
            Nothing relayd_reports_a_corrupt_padding_by_cpu_and_subbuf;
        trace: Babeltrace every_record_is_read_by_babeltrace2,
            Babeltrace dynamic_strings_show_the_right_file_names,
            Babeltrace the_file_is_the_packets_and_nothing_else,
            Babeltrace the_commands_own_system_calls_are_all_there,
            Babeltrace relayds_own_events_are_left_out_and_counted,
            Babeltrace overwrite_keeps_the_newest_records,
            Nothing session_json_has_what_the_format_says,
            BabeltraceAndHotplug a_cpu_that_goes_offline_is_drained_all_the_same,
            BabeltraceAndHotplug a_cpu_that_comes_online_gets_a_buffer_and_a_file,
            ThreeCpus cpu_numbers_may_have_gaps;
        long: Nothing every_run_is_recorded_or_lost,
            Nothing every_record_is_read_or_overrun;
        examples: Nothing klog_shows_what_programs_log_in_the_order_of_time,
            Nothing klog_runs_the_object_that_it_is_given,
            Nothing kleak_lists_what_was_not_freed_by_call_site;
        account: Babeltrace a_storm_in_no_overwrite_mode_adds_up,
            Babeltrace a_storm_in_overwrite_mode_adds_up,
            Nothing a_reader_among_many_tasks_loses_nothing,
            Babeltrace losses_are_placed_in_time,
            Babeltrace the_last_loss_is_told_by_a_packet_of_its_own;
        compare: BabeltraceAndPerf perf_saw_the_same_context_switches,
            BabeltraceAndPerf perf_saw_the_same_system_calls;
        probes: Babeltrace system_calls_have_their_arguments_results_and_durations,
            Babeltrace an_execve_shows_the_program_that_was_run,
            Babeltrace a_raw_tracepoint_has_the_arguments_of_the_kernel,
            Babeltrace samples_come_at_their_rate_from_every_cpu,
            BabeltraceAndBpftrace bpftrace_saw_the_same_calls_of_a_library,
            BabeltraceAndBpftrace bpftrace_saw_the_same_returns_of_a_library,
            BabeltraceBpftraceAndKprobes bpftrace_saw_the_same_kprobes,
            BabeltraceBpftraceAndKprobes bpftrace_saw_the_same_kretprobes,
            BabeltraceBpftraceAndKprobes bpftrace_saw_the_same_functions_of_a_pattern,
            BabeltraceAndKprobes kprobes_and_trampolines_of_one_function_agree,
            BabeltraceAndKprobes a_duration_is_the_time_between_entry_and_return,
            Babeltrace a_system_call_takes_as_long_as_it_slept,
            BabeltraceAndCompiler static_probes_have_their_arguments,
            Babeltrace a_string_that_cannot_be_read_is_recorded_as_a_fault,
            Nothing what_is_wrong_with_an_event_is_said,
            Kprobes what_is_wrong_with_a_function_is_said,
            NoKprobes a_kind_that_the_kernel_lacks_is_refused_with_one_that_works;
        choices: Babeltrace one_process_is_recorded_and_the_rest_is_counted,
            Babeltrace a_command_is_followed_to_the_processes_that_it_starts,
            Babeltrace names_users_and_cpus_choose_events,
            Babeltrace a_cgroup_and_those_below_it_choose_events,
            Babeltrace a_condition_keeps_what_it_says_and_nothing_else,
            Babeltrace a_limit_is_kept_and_what_is_over_it_is_counted,
            Babeltrace context_is_that_of_the_task;
        events: Babeltrace babeltrace2_accepts_the_metadata_of_every_tracepoint,
            Babeltrace every_tracepoint_that_can_be_attached_is_and_is_detached;
        list: Nothing every_tracepoint_is_listed,
            Nothing arguments_are_listed_as_they_can_be_written,
            Nothing what_is_listed_can_be_recorded,
            Nothing a_word_finds_every_kind_that_there_is,
            Nothing a_wrong_pattern_offers_the_nearest,
            Nothing a_reader_that_has_seen_enough_is_no_error,
            Nothing kinds_that_the_kernel_lacks_are_refused_with_what_would_work,
            Kprobes functions_are_listed_with_their_parameters,
            Nothing a_structure_has_members_with_offsets;
        cli: Nothing an_unknown_event_offers_the_nearest_name,
            Nothing a_glob_that_matches_nothing_is_an_error,
            Nothing sizes_that_cannot_be_are_refused,
            Nothing sizes_are_rounded_up_and_that_is_said,
            Nothing a_directory_that_cannot_be_made_is_an_error,
            Nothing an_existing_trace_is_replaced_only_by_force,
            Nothing a_command_that_does_not_exist_is_an_error,
            Nothing the_commands_exit_status_is_passed_on,
            Nothing without_capabilities_the_error_says_so,
            Babeltrace a_full_disk_stops_recording_and_the_trace_stays_valid,
            Babeltrace a_signal_ends_the_recording_in_order,
            Babeltrace a_second_signal_loses_nothing,
            Babeltrace file_systems_that_are_not_mounted_are_mounted,
            Nothing check_says_what_the_machine_has,
            Nothing nothing_stays_behind_in_the_bpf_file_system;
    };
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, tests).exit();
}
