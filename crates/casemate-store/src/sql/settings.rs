//! [`Settings`].

use async_trait::async_trait;
use casemate_sql::{query, query_scalar};

use super::{SqlStore, failed};
use crate::settings::SETTING_BYTES_MAX;
use crate::{Settings, StoreError};

#[async_trait]
impl Settings for SqlStore {
    async fn setting_by_name(&self, name: &str) -> Result<Option<String>, StoreError> {
        query_scalar("SELECT value FROM settings WHERE name = $1")
            .bind(name)
            .fetch_optional(&self.readers)
            .await
            .map_err(|error| failed("setting", name, error))
    }

    async fn setting_put(&self, name: &str, value: &str) -> Result<(), StoreError> {
        check_size(value)?;
        query(
            "INSERT INTO settings (name, value) VALUES ($1, $2) \
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )
        .bind(name)
        .bind(value)
        .execute(&self.durable)
        .await
        .map_err(|error| failed("setting", name, error))?;
        Ok(())
    }

    async fn setting_claim(&self, name: &str, value: &str) -> Result<String, StoreError> {
        check_size(value)?;
        // An update to what it is makes RETURNING answer for a row that was there already.
        let values: Vec<String> = query_scalar(
            "INSERT INTO settings (name, value) VALUES ($1, $2) \
             ON CONFLICT (name) DO UPDATE SET value = settings.value RETURNING value",
        )
        .bind(name)
        .bind(value)
        .fetch_all(&self.durable)
        .await
        .map_err(|error| failed("setting", name, error))?;
        values
            .into_iter()
            .next()
            .ok_or_else(|| failed("setting", name, sqlx::Error::RowNotFound.into()))
    }
}

fn check_size(value: &str) -> Result<(), StoreError> {
    if value.len() <= SETTING_BYTES_MAX {
        return Ok(());
    }
    Err(StoreError::TooLarge {
        what: "setting",
        size: value.len(),
        max: SETTING_BYTES_MAX,
    })
}
