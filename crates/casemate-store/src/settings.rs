//! Settings of the instance that are made at run time: small texts under a name.

use async_trait::async_trait;

use crate::StoreError;

/// Largest value, bytes; beyond it [`StoreError::TooLarge`].
pub const SETTING_BYTES_MAX: usize = 64 * 1024;

#[async_trait]
pub trait Settings {
    async fn setting_by_name(&self, name: &str) -> Result<Option<String>, StoreError>;

    /// Sets or replaces.
    async fn setting_put(&self, name: &str, value: &str) -> Result<(), StoreError>;

    /// Sets it unless it is set; what it is afterwards. Of several callers all get one value.
    async fn setting_claim(&self, name: &str, value: &str) -> Result<String, StoreError>;
}
