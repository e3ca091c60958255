//! Placeholder until the adapter is there.
use super::SqliteStore;
use crate::build_cache::*;
use crate::builds::*;
use crate::*;
use async_trait::async_trait;
use casemate_types::*;
#[async_trait]
#[allow(unused)]
impl Builds for SqliteStore {
    async fn build_request(&self, new: &NewBuild) -> Result<BuildRequested, StoreError> {
        todo!()
    }

    async fn build_record(&self, id: &BuildId) -> Result<Option<BuildRecord>, StoreError> {
        todo!()
    }

    async fn build_begin(&self, id: &BuildId, at: Timestamp) -> Result<BuildBegun, StoreError> {
        todo!()
    }

    async fn build_finish(
        &self,
        build: &Build,
        disk_size_mib: u32,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        todo!()
    }

    async fn build_fail(
        &self,
        id: &BuildId,
        failure: &BuildFailure,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        todo!()
    }

    async fn build_fail_waiting(
        &self,
        before: Timestamp,
        failure: &BuildFailure,
        at: Timestamp,
    ) -> Result<Vec<BuildId>, StoreError> {
        todo!()
    }

    async fn build_fail_building(
        &self,
        failure: &BuildFailure,
        at: Timestamp,
    ) -> Result<Vec<BuildId>, StoreError> {
        todo!()
    }

    async fn build_list_open(&self, team: &TeamId) -> Result<Vec<BuildId>, StoreError> {
        todo!()
    }

    async fn build_page(
        &self,
        template: &TemplateId,
        after: Option<&CreatedCursor>,
        rows_max: u32,
    ) -> Result<Vec<BuildRecord>, StoreError> {
        todo!()
    }

    async fn template_page(
        &self,
        team: &TeamId,
        order: TemplateOrder,
        after: Option<&CreatedCursor>,
        rows_max: u32,
    ) -> Result<Vec<TemplateSummary>, StoreError> {
        todo!()
    }

    async fn template_summary(
        &self,
        id: &TemplateId,
    ) -> Result<Option<TemplateSummary>, StoreError> {
        todo!()
    }

    async fn template_set_public(
        &self,
        id: &TemplateId,
        public: bool,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        todo!()
    }

    async fn template_spawned(
        &self,
        spawned: &[(TemplateId, u64, Timestamp)],
    ) -> Result<(), StoreError> {
        todo!()
    }

    async fn tags_assign(
        &self,
        template: &TemplateId,
        build: &BuildId,
        tags: &[String],
        at: Timestamp,
    ) -> Result<(), StoreError> {
        todo!()
    }

    async fn tags_remove(&self, template: &TemplateId, tags: &[String]) -> Result<(), StoreError> {
        todo!()
    }

    async fn tags_list(&self, template: &TemplateId) -> Result<Vec<TagAssignment>, StoreError> {
        todo!()
    }
}
#[async_trait]
#[allow(unused)]
impl BuildCache for SqliteStore {
    async fn layer_find(
        &self,
        team: &TeamId,
        key: &CacheKey,
        at: Timestamp,
    ) -> Result<Option<CachedLayer>, StoreError> {
        todo!()
    }

    async fn layer_put(
        &self,
        team: &TeamId,
        key: &CacheKey,
        layer: &CachedLayer,
        at: Timestamp,
    ) -> Result<Dropped, StoreError> {
        todo!()
    }

    async fn layer_expire(&self, before: Timestamp, rows_max: u32) -> Result<Dropped, StoreError> {
        todo!()
    }

    async fn layer_wanted(&self, layers: &[LayerId]) -> Result<Vec<LayerId>, StoreError> {
        todo!()
    }

    async fn upload_find(
        &self,
        team: &TeamId,
        key: &CacheKey,
        at: Timestamp,
    ) -> Result<Option<Upload>, StoreError> {
        todo!()
    }

    async fn upload_put(
        &self,
        team: &TeamId,
        key: &CacheKey,
        upload: &Upload,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        todo!()
    }

    async fn upload_expire(&self, before: Timestamp) -> Result<u64, StoreError> {
        todo!()
    }

    async fn upload_wanted(
        &self,
        team: &TeamId,
        sha256: &[String],
    ) -> Result<Vec<String>, StoreError> {
        todo!()
    }

    async fn upload_bytes(&self, team: &TeamId) -> Result<u64, StoreError> {
        todo!()
    }
}
