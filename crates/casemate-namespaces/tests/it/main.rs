//! Sandboxes for real: needs root, btrfs-progs, nftables and busybox-static, and says so when it
//! skips (`CASEMATE_TEST_ROOT=1` runs it).
//!
//! A harness of its own, because this program is also what its runtimes start as launchers, and
//! what is killed in the tests of adoption.

mod dead;
mod host;
mod world;

mod adoption;
mod boundary;
mod creation;
mod debian;
mod freezing;
mod limits;
mod machine;
mod sealing;
mod snapshots;
mod speed;

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Instant;

type Test = (&'static str, fn() -> Pin<Box<dyn Future<Output = ()>>>);

macro_rules! tests {
    ($($module:ident :: $name:ident),* $(,)?) => {
        &[$((concat!(stringify!($module), "::", stringify!($name)), || Box::pin($module::$name()))),*]
    };
}

const TESTS: &[Test] = tests![
    creation::a_sandbox_runs_commands_in_its_own_root,
    creation::what_the_agent_is_told_may_be_long,
    creation::upper_layers_win_and_folders_of_lower_ones_can_be_renamed,
    creation::sixteen_layers_fit_and_more_are_refused,
    creation::layers_outside_the_data_directory_are_refused,
    creation::an_id_exists_once,
    creation::an_agent_that_ends_is_undone_and_quoted,
    creation::an_agent_that_never_reports_is_undone_in_time,
    creation::stopping_is_idempotent_and_an_end_from_inside_is_reported,
    creation::creates_at_once_beyond_the_stock_all_come,
    creation::a_launcher_that_dies_is_replaced,
    creation::kernels_that_take_layers_by_path_only_do_as_well,
    creation::the_contract_of_the_port_holds,
    creation::the_real_agent_serves,
    limits::memory_beyond_the_limit_ends_the_process_and_not_the_sandbox,
    limits::shared_memory_ends_before_memory_does,
    limits::processes_beyond_the_limit_are_not_made,
    limits::processor_time_is_throttled,
    limits::disk_beyond_the_limit_is_refused_and_the_pool_lives_on,
    limits::many_small_files_are_no_way_around_the_disk_limit,
    limits::terminals_have_a_number_of_their_own,
    limits::layers_made_while_others_go_keep_their_limits,
    limits::a_used_layer_comes_back_empty_and_one_that_holds_much_is_deleted,
    limits::a_sandbox_finds_nothing_of_who_had_its_layer_before,
    limits::blocks_behind_the_pool_s_end_are_given_back_at_the_next_start,
    limits::programs_find_their_limits_in_control_groups,
    limits::what_a_sandbox_consumes_is_counted,
    limits::output_of_the_first_process_fills_nothing,
    limits::without_a_pool_each_file_is_bounded_and_the_ability_says_so,
    boundary::root_inside_is_nobody_outside,
    boundary::nothing_lies_below_a_root,
    boundary::mounts_of_a_sandbox_are_no_peers_of_the_host_s,
    boundary::forbidden_calls_are_refused,
    boundary::the_filter_and_not_the_kernel_refuses,
    boundary::nothing_of_the_host_shows,
    boundary::what_is_shared_cannot_be_written,
    boundary::ordinary_work_is_not_in_the_way,
    boundary::ports_on_either_loopback_are_reached_and_closed_ones_say_so,
    machine::programs_see_the_limits_as_their_machine,
    machine::figures_follow_what_is_used,
    machine::each_has_a_boot_of_its_own,
    machine::the_host_s_machine_is_not_there,
    machine::nobody_inside_changes_what_is_shown,
    machine::what_a_sandbox_saw_goes_with_it,
    adoption::sandboxes_run_on_and_are_taken_over,
    adoption::a_log_is_one_s_own_and_takes_what_it_can,
    adoption::a_sweep_ends_what_nobody_keeps,
    adoption::what_ended_while_nobody_looked_says_how_often_its_memory_was_full,
    adoption::a_sweep_ends_what_was_taken_over_and_is_not_kept,
    adoption::what_does_not_end_keeps_nobody_from_starting,
    adoption::nothing_is_left_after_a_purge,
    adoption::controllers_of_the_host_stay_as_they_were_found,
    adoption::down_without_purge_keeps_the_pool_for_the_next_start,
    freezing::programs_stand_still_and_go_on,
    freezing::a_connection_held_over_it_answers_afterwards,
    freezing::a_frozen_one_stops_and_its_slot_is_not_frozen,
    freezing::a_frozen_one_is_taken_over_as_it_is,
    freezing::what_ends_meanwhile_keeps_nobody_waiting,
    snapshots::the_contract_of_the_port_holds,
    snapshots::everything_a_sandbox_wrote_is_in_it_and_nothing_later,
    snapshots::plain_folders_do_as_well,
    snapshots::a_disk_limit_counts_what_a_sandbox_began_with,
    snapshots::kept_ones_survive_sweeps_and_starts,
    snapshots::what_a_crash_cuts_off_happened_or_left_nothing,
    snapshots::what_ran_when_the_host_went_is_salvaged_before_the_sweep,
    snapshots::an_image_that_cannot_be_reached_is_no_empty_pool,
    snapshots::plain_folders_that_hold_something_are_not_left_for_an_image,
    snapshots::what_is_acknowledged_survives_a_power_loss,
    snapshots::many_cycles_leave_nothing,
    snapshots::a_refused_one_leaves_the_sandbox_as_it_was,
    snapshots::a_full_pool_is_said_and_harms_nobody,
    snapshots::how_long_it_takes,
    sealing::what_one_wrote_lies_below_others_as_it_was,
    sealing::plain_folders_are_sealed_as_well,
    sealing::a_full_disk_is_said_and_nothing_is_left,
    sealing::several_share_a_disk_that_gets_full,
    sealing::what_a_crash_left_half_made_goes_with_the_next_start,
    debian::what_people_do_as_root_and_as_user_works,
    speed::creation_in_a_row_and_at_once,
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["internal", "launcher"] => {
            return ExitCode::from(u8::try_from(casemate_namespaces::launcher::run()).unwrap_or(1));
        }
        ["internal", "hold", folder, instance] => {
            run(adoption::hold(folder, instance));
            return ExitCode::SUCCESS;
        }
        ["internal", "keep", folder, instance, what] => {
            run(snapshots::hold(folder, instance, what));
            return ExitCode::SUCCESS;
        }
        ["internal", "shared"] => {
            run(boundary::in_a_namespace_of_shared_mounts());
            return ExitCode::SUCCESS;
        }
        ["internal", "below", pid] => {
            boundary::list_below(pid).expect("what lies below a root is listed");
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    if args.iter().any(|arg| arg == "--list") {
        TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    if std::env::var_os("CASEMATE_TEST_ROOT").is_none_or(|value| value != "1") {
        println!("skipped: set CASEMATE_TEST_ROOT=1 to run these tests as root");
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<_> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    run(dead::sweep());
    let mut failed = Vec::new();
    for (name, test) in TESTS {
        if !wanted.is_empty() && !wanted.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        let begun = Instant::now();
        // On a thread of its own: a failed assertion ends the test and not the run.
        let outcome = std::thread::spawn(move || run(test())).join();
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!(
            "test {name} ... {word} ({} ms)",
            begun.elapsed().as_millis()
        );
        if outcome.is_err() {
            failed.push(*name);
        }
    }
    world::forget_agent();
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("failed: {}", failed.join(", "));
    ExitCode::FAILURE
}

fn run(future: impl Future<Output = ()>) {
    let _ = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .try_init();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime starts")
        .block_on(future);
}
