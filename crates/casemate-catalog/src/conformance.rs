//! The contract of the ports as tests over any adapter. Each case uses names of its own, so that
//! cases may share a catalog. An adapter's tests call [`catalog_conformance!`].

pub mod events;
pub mod leases;
pub mod order;
pub mod rates;
pub mod routes;

use std::time::Duration;

use casemate_types::SandboxId;

/// Far longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// One test for each case. `$open` is an async function without arguments that gives `None`, after
/// saying that it skips, or a value which dereferences to an adapter of all ports.
#[macro_export]
macro_rules! catalog_conformance {
    ($open:path) => {
        $crate::catalog_conformance! { @ $open,
            routes::route_is_put_replaced_and_removed,
            routes::late_word_of_another_node_removes_nothing,
            routes::replacing_makes_the_routes_of_a_node_exact,
            routes::replacing_leaves_alone_what_is_unsure,
            routes::replacing_takes_over_from_another_node,
            routes::replacing_with_nothing_empties_the_node,
            routes::all_of_a_route_comes_back,
            order::older_words_change_nothing,
            order::a_removal_is_remembered,
            order::replacing_respects_what_is_newer,
            order::any_order_of_words_ends_with_the_newest,
            leases::a_lease_is_held_by_one,
            leases::a_lease_that_is_not_renewed_runs_out,
            leases::fences_rise,
            leases::whoever_waits_hears_of_the_end,
            leases::a_lease_past_its_limits_is_refused,
            leases::of_many_that_ask_at_once_one_has_it,
            rates::a_bucket_gives_its_burst_and_then_its_rate,
            rates::buckets_are_apart,
            rates::many_at_once_take_no_more_than_there_is,
            rates::a_rate_past_its_limits_is_refused,
            events::events_reach_those_that_listen,
            events::who_is_behind_is_told_of_a_gap,
            events::an_event_past_its_limits_is_refused,
            events::a_catalog_that_is_there_answers,
        }
    };
    (@ $open:path, $($group:ident::$case:ident,)+) => {
        $(
            #[tokio::test]
            async fn $case() {
                if let Some(catalog) = $open().await {
                    $crate::conformance::$group::$case(&*catalog).await;
                }
            }
        )+
    };
}

pub(crate) fn node() -> String {
    format!("node-{}", SandboxId::random())
}

/// A name that no other test has.
pub(crate) fn name() -> String {
    SandboxId::random().to_string()
}
