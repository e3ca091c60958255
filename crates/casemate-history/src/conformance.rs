//! The contract of every port as tests over any adapter.
//!
//! Each case makes its own teams and sandboxes, so that cases may share a history; those about
//! trimming want one of their own. An adapter's tests call [`history_conformance!`].

mod activity;
mod build_logs;
mod events;
mod logs;
mod samples;
mod trim;

use std::time::Duration;

use casemate_types::{SandboxId, TeamId, Timestamp};

pub use activity::*;
pub use build_logs::*;
pub use events::*;
pub use logs::*;
pub use samples::*;
pub use trim::*;

/// One test for each case. `$open` is an async function without arguments that gives a value
/// which dereferences to a [`crate::History`], or `None` where tests have none of its kind.
#[macro_export]
macro_rules! history_conformance {
    ($open:path) => {
        $crate::history_conformance! { @ $open,
            samples_come_back_in_order_and_in_range,
            samples_of_one_moment_are_one,
            samples_are_aggregated_by_step,
            samples_of_many_minutes_read_like_those_of_one,
            samples_of_a_sandbox_are_its_teams_alone,
            latest_samples_leave_out_who_has_none,
            activity_adds_up_by_step,
            activity_is_its_teams_alone,
            events_come_back_as_they_went_in,
            events_are_paged_both_ways,
            an_event_is_kept_once,
            events_are_their_teams_alone,
            logs_are_read_forward_and_backward,
            logs_are_filtered_by_level_and_letters,
            logs_of_a_sandbox_are_its_teams_alone,
            log_texts_are_data,
            build_logs_are_paged_in_the_order_in_which_they_came,
            build_logs_are_paged_within_their_levels,
            build_logs_are_read_around_a_moment,
            build_logs_are_their_teams_alone,
            build_logs_are_listed_and_removed,
            who_logs_much_forgets_its_own,
            build_log_texts_are_data,
            what_is_too_old_is_forgotten_and_the_rest_kept,
            what_is_too_much_goes_oldest_first,
            logs_of_builds_have_no_age,
            logs_of_builds_go_last_but_leave_half,
        }
    };
    (@ $open:path, $($case:ident,)+) => {
        $(
            #[tokio::test]
            async fn $case() {
                let Some(history) = $open().await else {
                    return;
                };
                $crate::conformance::$case(&*history).await;
            }
        )+
    };
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).expect("a time within years")
}

fn team() -> TeamId {
    TeamId::parse(&uuid::Uuid::new_v4().to_string()).expect("a UUID is a team's id")
}

fn sandbox() -> SandboxId {
    SandboxId::random()
}

const SECOND: Duration = Duration::from_secs(1);
