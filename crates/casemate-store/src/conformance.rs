//! The contract of every port as tests over any adapter.
//!
//! Each case makes its own teams and ids, so that cases may share a database; those that look at
//! everything only look for their own. An adapter's tests call [`store_conformance!`].

mod artifacts;
mod build_cache;
mod builds;
mod cluster;
mod idempotency;
mod keys;
mod lost_nodes;
mod sandboxes;
mod settings;
mod snapshots;
mod sql_rows;
mod teams;
mod templates;
mod trim;

use casemate_types::{TeamId, Timestamp, UserId};

use crate::{KeyId, LimitOverrides, Standing, Store, StoreError, Team, User};

pub use artifacts::*;
pub use build_cache::*;
pub use builds::*;
pub use cluster::*;
pub use idempotency::*;
pub use keys::*;
pub use lost_nodes::*;
pub use sandboxes::*;
pub use settings::*;
pub use snapshots::*;
pub use sql_rows::*;
pub use teams::*;
pub use templates::*;
pub use trim::*;

/// One test for each case. `$open` is an async function without arguments that gives `Some` value
/// which dereferences to a [`Store`], or `None` (and says so) where such tests cannot run.
#[macro_export]
macro_rules! store_conformance {
    ($open:path) => {
        $crate::store_conformance! { @ $open,
            ping_answers,
            team_is_found_by_id_and_slug,
            team_update_keeps_id_slug_and_creation,
            team_list_is_oldest_first,
            user_has_one_default_team,
            member_of_nothing_is_dangling,
            key_is_found_by_hash_with_its_team,
            key_hash_and_id_are_unique,
            key_belongs_to_its_team_only,
            key_touch_is_coalesced_and_goes_forward,
            token_is_found_by_hash,
            promoted_template_resolves_for_every_team,
            reported_template_is_idempotent,
            reported_build_takes_new_values,
            youngest_reported_build_wins,
            youngest_reported_template_takes_the_alias,
            unknown_references_stay_unknown,
            sandbox_comes_back_as_it_went_in,
            sandbox_id_is_never_reused,
            sandbox_of_no_team_is_dangling,
            sandbox_changes_by_compare_and_set,
            sandbox_race_has_one_winner,
            a_teams_last_place_is_given_once,
            a_paused_sandbox_has_no_deadline_until_it_is_resumed,
            a_paused_sandbox_dies_for_good,
            dead_sandbox_stays_dead,
            a_snapshot_is_found_by_its_name_tag_and_id,
            a_tag_that_moves_gives_up_files_that_nothing_names,
            snapshots_are_paged_and_filtered,
            what_sandboxes_use_is_not_deleted,
            old_snapshots_go_but_for_those_in_use,
            the_long_paused_are_listed,
            a_snapshot_is_written_once_and_for_a_team,
            a_build_goes_from_waiting_to_ready,
            a_failed_build_leaves_the_tag_where_it_was,
            a_new_request_supersedes_those_that_wait_for_its_tags,
            builds_at_once_are_bounded_for_each_team,
            a_name_belongs_to_one_template_of_its_team,
            builds_that_nobody_builds_fail_together,
            failed_builds_are_forgotten_and_ready_ones_kept,
            tags_are_given_moved_and_taken,
            the_history_of_tags_tells_of_ready_builds,
            a_summary_tells_the_build_of_the_default_tag,
            sandboxes_of_a_template_are_counted,
            a_template_is_published_and_taken_back,
            templates_are_paged_in_both_orders,
            builds_of_a_template_are_paged_newest_first,
            a_report_leaves_what_is_counted,
            a_cached_layer_is_its_teams_alone,
            a_lost_layer_is_forgotten_unless_it_was_made_again,
            cached_layers_expire_by_their_last_use,
            cached_layers_beyond_their_number_go_least_used_first,
            bytes_beyond_a_teams_bound_go_least_used_first,
            contexts_beyond_a_teams_bound_go_least_used_first,
            files_are_wanted_as_long_as_somebody_names_them,
            layers_are_wanted_by_builds_and_by_the_cache,
            what_other_teams_run_from_outlives_a_deletion,
            a_snapshot_without_a_tag_expires_like_others,
            uploads_are_found_counted_and_expired,
            uploads_of_a_team_are_bounded,
            builds_that_nothing_refers_to_are_forgotten,
            a_trim_takes_what_costs_room_and_nothing_that_is_needed,
            a_trim_spares_what_builds_rest_on_and_other_teams,
            a_trim_takes_old_builds_with_what_they_kept,
            a_trim_counts_contents_of_uploads_once,
            pages_are_ordered_and_complete,
            page_goes_on_after_a_row_that_is_gone,
            page_filters_all_hold,
            metadata_matches_exactly,
            counts_are_of_running_ones,
            a_node_is_removed_once_nothing_ends_with_it,
            what_is_left_of_a_removed_node_is_listed,
            what_runs_on_a_lost_node_is_left_out,
            alive_ones_are_listed,
            forgetting_takes_the_long_dead,
            idempotency_key_is_taken_once,
            idempotency_race_has_one_winner,
            idempotency_answer_is_replayed,
            idempotency_other_request_is_a_mismatch,
            idempotency_abandoned_key_is_free,
            idempotency_word_of_a_former_claim_changes_nothing,
            idempotency_of_the_dead_is_unknown,
            idempotency_purge_keeps_what_runs,
            setting_is_replaced,
            setting_claim_keeps_the_first,
            setting_size_is_bounded,
            a_server_is_there_while_it_says_so,
            a_lease_has_one_holder,
            a_lease_that_ran_out_is_taken_over,
            leases_are_listed_with_how_long_nobody_has_them,
            a_lease_race_has_one_winner,
            a_node_joins_again_under_its_id,
            a_fenced_node_returns_with_its_generation_only,
            labels_of_a_node_are_bounded,
            a_join_token_is_used_as_often_as_it_may_be,
            an_expired_join_token_is_worth_nothing,
            what_ready_builds_need_is_due_until_it_is_stored,
            files_of_snapshots_are_due_as_well,
            what_is_stored_of_a_pause_counts_until_it_is_over,
            pauses_that_are_not_stored_are_listed,
            metadata_may_hold_any_text,
            texts_are_data_not_sql,
        }
    };
    (@ $open:path, $($case:ident,)+) => {
        $(
            #[tokio::test]
            async fn $case() {
                if let Some(store) = $open().await {
                    $crate::conformance::$case(&*store).await;
                }
            }
        )+
    };
}

pub async fn ping_answers(store: &dyn Store) {
    store.ping().await.unwrap();
}

fn random_uuid() -> String {
    KeyId::random().to_string()
}

/// Kept times have no more than microseconds; neither have these.
fn at(seconds: i64, micros: i64) -> Timestamp {
    Timestamp::from_microsecond(1_800_000_000_000_000 + seconds * 1_000_000 + micros).unwrap()
}

async fn new_team(store: &dyn Store) -> TeamId {
    let team = a_team(0);
    store.team_insert(&team).await.unwrap();
    team.id
}

fn a_team(created: i64) -> Team {
    let id = random_uuid();
    Team {
        id: TeamId::parse(&id).unwrap(),
        slug: format!("team-{id}"),
        name: "A team".into(),
        standing: Standing::Good,
        limits: LimitOverrides::default(),
        created_at: at(created, 7),
    }
}

async fn new_user(store: &dyn Store) -> UserId {
    let user = User {
        id: UserId::parse(&random_uuid()).unwrap(),
        created_at: at(0, 0),
    };
    store.user_insert(&user).await.unwrap();
    user.id
}

#[track_caller]
fn check_exists<T: std::fmt::Debug>(result: Result<T, StoreError>) {
    assert!(
        matches!(result, Err(StoreError::Exists { .. })),
        "{result:?}"
    );
}

#[track_caller]
fn check_dangling<T: std::fmt::Debug>(result: Result<T, StoreError>) {
    assert!(
        matches!(result, Err(StoreError::Dangling { .. })),
        "{result:?}"
    );
}

#[track_caller]
fn check_conflict<T: std::fmt::Debug>(result: Result<T, StoreError>) {
    assert!(
        matches!(result, Err(StoreError::Conflict { .. })),
        "{result:?}"
    );
}

#[track_caller]
fn check_too_large<T: std::fmt::Debug>(result: Result<T, StoreError>) {
    assert!(
        matches!(result, Err(StoreError::TooLarge { .. })),
        "{result:?}"
    );
}
