//! [`Builds`].

use std::time::Duration;

use async_trait::async_trait;
use casemate_sql::{Value, query, query_as, query_scalar, sql, transaction};
use casemate_types::{BuildFailure, TeamId, TemplateId, Timestamp};

use super::template_pages::{self, record_columns};
use super::{SqlStore, build_requests, failed, tags, trim};
use crate::builds::FORGET_BUILDS_MAX;
use crate::error::Cause;
use crate::rows::{
    Named, RecordRow, envs_text, failure_text, layers_text, length, micros, signed, startup_text,
};
use crate::{
    Build, BuildBegun, BuildId, BuildRecord, BuildRequested, Builds, CreatedCursor, NewBuild,
    StoreError, TagAssignment, TagEvent, TemplateOrder, TemplateSummary,
};

const WHAT: &str = "build";

/// The literals make the index of the open ones serve.
const FAIL_WAITING: &str = "\
    UPDATE builds SET status = 'error', failure = $2, updated_at = $3, finished_at = $3 \
    WHERE status IN ('waiting', 'building') AND status = 'waiting' AND created_at < $1 \
    RETURNING id";
const OLD_FAILED: &str = "\
    SELECT id FROM builds WHERE status = 'error' AND finished_at < $1 \
    ORDER BY finished_at LIMIT $2";

/// With the index that each goes along; for the test of their plans.
#[cfg(test)]
pub(super) fn sweeps() -> [(casemate_sql::Sql, &'static str); 3] {
    [
        (FAIL_WAITING.into(), "builds_open"),
        (OLD_FAILED.into(), "builds_failed"),
        (build_requests::COUNT_OPEN, "builds_open"),
    ]
}

#[async_trait]
impl Builds for SqlStore {
    async fn build_request(&self, new: &NewBuild) -> Result<BuildRequested, StoreError> {
        build_requests::request(self, new).await
    }

    async fn build_record(&self, id: &BuildId) -> Result<Option<BuildRecord>, StoreError> {
        let sql = concat!(
            "SELECT ",
            record_columns!(),
            " FROM builds b JOIN templates t ON t.id = b.template_id \
             WHERE b.id = $1 AND t.deleted = 0"
        );
        let row: Option<RecordRow> = query_as(sql)
            .bind(id.to_string())
            .fetch_optional(&self.readers)
            .await
            .map_err(|error| failed(WHAT, id, error))?;
        row.map(BuildRecord::try_from).transpose()
    }

    async fn build_begin(
        &self,
        id: &BuildId,
        owner: &str,
        at: Timestamp,
    ) -> Result<BuildBegun, StoreError> {
        build_requests::begin(self, *id, owner, at).await
    }

    async fn build_finish(
        &self,
        build: &Build,
        disk_size_mib: u32,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        let done = query(
            "UPDATE builds SET status = 'ready', layers = $2, default_user = $3, \
             default_workdir = $4, envd_version = $5, startup = $6, distribution = $7, \
             disk_size_mib = $8, updated_at = $9, finished_at = $9, envs = $10 \
             WHERE id = $1 AND (status = 'building' OR (status = 'ready' AND finished_at = $9))",
        )
        .bind(build.id.to_string())
        .bind(layers_text(&build.layers))
        .bind(&build.default_user)
        .bind(build.default_workdir.as_deref())
        .bind(&build.envd_version)
        .bind(build.startup.as_ref().map(startup_text))
        .bind(build.distribution.word())
        .bind(i64::from(disk_size_mib))
        .bind(micros(at))
        .bind(envs_text(&build.envs))
        .execute(&self.durable)
        .await
        .map_err(|error| failed(WHAT, build.id, error))?;
        Ok(done > 0)
    }

    async fn build_fail(
        &self,
        id: &BuildId,
        failure: &BuildFailure,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        let done = query(
            "UPDATE builds SET status = 'error', failure = $2, updated_at = $3, finished_at = $3 \
             WHERE id = $1 AND status IN ('waiting', 'building')",
        )
        .bind(id.to_string())
        .bind(failure_text(failure))
        .bind(micros(at))
        .execute(&self.durable)
        .await
        .map_err(|error| failed(WHAT, id, error))?;
        Ok(done > 0)
    }

    async fn build_fail_waiting(
        &self,
        before: Timestamp,
        failure: &BuildFailure,
        at: Timestamp,
    ) -> Result<Vec<BuildId>, StoreError> {
        let failed_ids: Vec<String> = query_scalar(FAIL_WAITING)
            .bind(micros(before))
            .bind(failure_text(failure))
            .bind(micros(at))
            .fetch_all(&self.durable)
            .await
            .map_err(|error| failed("table", "builds", error))?;
        read_ids(&failed_ids)
    }

    async fn build_fail_building(
        &self,
        caller: &str,
        seen_within: Duration,
        failure: &BuildFailure,
        at: Timestamp,
    ) -> Result<Vec<BuildId>, StoreError> {
        let failed_ids: Vec<String> = query_scalar(sql!(
            "UPDATE builds SET status = 'error', failure = $3, updated_at = $4, finished_at = $4 \
             WHERE status IN ('waiting', 'building') AND status = 'building' \
             AND (owner IS NULL OR owner <> $1) \
             AND NOT EXISTS (SELECT 1 FROM servers s WHERE s.id <> $1 \
                 AND (builds.owner IS NULL OR s.id = builds.owner) AND s.seen_at >= ",
            now(),
            " - $2) RETURNING id"
        ))
        .bind(caller)
        .bind(length(seen_within))
        .bind(failure_text(failure))
        .bind(micros(at))
        .fetch_all(&self.durable)
        .await
        .map_err(|error| failed("table", "builds", error))?;
        read_ids(&failed_ids)
    }

    async fn build_has_others(&self, caller: &str) -> Result<bool, StoreError> {
        let found: Option<String> = query_scalar(
            "SELECT id FROM builds \
             WHERE status IN ('waiting', 'building') AND status = 'building' \
             AND (owner IS NULL OR owner <> $1) LIMIT 1",
        )
        .bind(caller)
        .fetch_optional(&self.readers)
        .await
        .map_err(|error| failed("table", "builds", error))?;
        Ok(found.is_some())
    }

    async fn build_list_open(&self, team: &TeamId) -> Result<Vec<BuildId>, StoreError> {
        let open: Vec<String> = query_scalar(
            "SELECT b.id FROM builds b JOIN templates t ON t.id = b.template_id \
             WHERE b.status IN ('waiting', 'building') AND t.team_id = $1 \
             ORDER BY b.created_at, b.id",
        )
        .bind(team.as_str())
        .fetch_all(&self.readers)
        .await
        .map_err(|error| failed("builds of team", team, error))?;
        read_ids(&open)
    }

    async fn build_known(&self, ids: &[BuildId]) -> Result<Vec<BuildId>, StoreError> {
        let asked: Vec<String> = ids.iter().map(BuildId::to_string).collect();
        let found: Vec<String> = query_scalar(sql!("SELECT id FROM builds WHERE id", is_in("$1")))
            .bind(Value::texts(asked))
            .fetch_all(&self.readers)
            .await
            .map_err(|error| failed("table", "builds", error))?;
        read_ids(&found)
    }

    async fn build_forget_failed(&self, before: Timestamp) -> Result<u64, StoreError> {
        let refused = |error| failed("table", "builds", error);
        transaction!(self.durable, refused, async |tx| {
            let old: Vec<String> = query_scalar(OLD_FAILED)
                .bind(micros(before))
                .bind(i64::from(FORGET_BUILDS_MAX))
                .fetch_all(&mut *tx)
                .await
                .map_err(refused)?;
            let old = Value::texts(old);
            query(sql!(
                "DELETE FROM template_tags WHERE build_id",
                is_in("$1")
            ))
            .bind(&old)
            .execute(&mut *tx)
            .await
            .map_err(refused)?;
            let gone = query(sql!("DELETE FROM builds WHERE id", is_in("$1")))
                .bind(&old)
                .execute(&mut *tx)
                .await
                .map_err(refused)?;
            Ok(gone)
        })
    }

    async fn build_forget_unused(&self, before: Timestamp) -> Result<u64, StoreError> {
        trim::forget_unused(self, before).await
    }

    async fn build_page(
        &self,
        template: &TemplateId,
        after: Option<&CreatedCursor>,
        rows_max: u32,
    ) -> Result<Vec<BuildRecord>, StoreError> {
        template_pages::builds(self, template, after, rows_max).await
    }

    async fn template_page(
        &self,
        team: &TeamId,
        order: TemplateOrder,
        after: Option<&CreatedCursor>,
        rows_max: u32,
    ) -> Result<Vec<TemplateSummary>, StoreError> {
        template_pages::templates(self, team, order, after, rows_max).await
    }

    async fn template_summary(
        &self,
        id: &TemplateId,
    ) -> Result<Option<TemplateSummary>, StoreError> {
        template_pages::summary(self, id).await
    }

    async fn template_set_public(
        &self,
        id: &TemplateId,
        public: bool,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        let done = query(
            "UPDATE templates SET public = $2, updated_at = $3 \
             WHERE id = $1 AND source = 'template' AND deleted = 0",
        )
        .bind(id.as_str())
        .bind(public)
        .bind(micros(at))
        .execute(&self.durable)
        .await
        .map_err(|error| failed("template", id, error))?;
        Ok(done > 0)
    }

    async fn template_spawned(
        &self,
        spawned: &[(TemplateId, u64, Timestamp)],
    ) -> Result<(), StoreError> {
        let refused = |error| failed("table", "templates", error);
        transaction!(self.notes(), refused, async |tx| {
            for (id, count, at) in spawned {
                query(
                    "UPDATE templates SET spawn_count = spawn_count + $2, \
                     last_spawned_at = CASE WHEN last_spawned_at > $3 THEN last_spawned_at \
                         ELSE $3 END WHERE id = $1",
                )
                .bind(id.as_str())
                .bind(signed(*count))
                .bind(micros(*at))
                .execute(&mut *tx)
                .await
                .map_err(refused)?;
            }
            Ok(())
        })
    }

    async fn tags_assign(
        &self,
        template: &TemplateId,
        build: &BuildId,
        tags: &[String],
        at: Timestamp,
    ) -> Result<(), StoreError> {
        tags::assign(self, template, *build, tags, at).await
    }

    async fn tags_remove(&self, template: &TemplateId, tags: &[String]) -> Result<(), StoreError> {
        tags::remove(self, template, tags).await
    }

    async fn template_list_stock(&self) -> Result<Vec<TemplateSummary>, StoreError> {
        template_pages::stock(self).await
    }

    async fn tags_latest(
        &self,
        template: &TemplateId,
    ) -> Result<Vec<(String, Timestamp)>, StoreError> {
        tags::latest(self, template).await
    }

    async fn tags_history(
        &self,
        template: &TemplateId,
        tags: &[String],
        before: Option<Timestamp>,
        rows_max: u32,
    ) -> Result<Vec<TagEvent>, StoreError> {
        tags::history(self, template, tags, before, rows_max).await
    }

    async fn tags_list(&self, template: &TemplateId) -> Result<Vec<TagAssignment>, StoreError> {
        tags::list(self, template).await
    }
}

/// Ids as they are kept.
pub(super) fn read_ids(ids: &[String]) -> Result<Vec<BuildId>, StoreError> {
    let parse = |id: &String| BuildId::parse(id).map_err(Cause::from).named(WHAT, id);
    ids.iter().map(parse).collect()
}
