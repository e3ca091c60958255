use std::collections::BTreeMap;

use casemate_types::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::de::{non_null, object, objects};

/// Body of `POST /v3/templates`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = TemplateBuildRequestV3)]
pub struct NewTemplateBuild {
    /// `[slug/]alias[:tag]`.
    #[serde(
        default,
        deserialize_with = "non_null",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false)]
    pub name: Option<String>,
    /// Deprecated: counts when there is no `name`.
    #[serde(
        default,
        deserialize_with = "non_null",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false)]
    pub alias: Option<String>,
    #[serde(
        default,
        deserialize_with = "non_null",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false)]
    pub tags: Option<Vec<String>>,
    #[serde(
        default,
        deserialize_with = "non_null",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false, minimum = 1)]
    pub cpu_count: Option<i32>,
    #[serde(
        default,
        rename = "memoryMB",
        deserialize_with = "non_null",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false, minimum = 128)]
    pub memory_mb: Option<i32>,
    #[serde(
        default,
        deserialize_with = "non_null",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false, minimum = 0)]
    pub min_free_disk_mb: Option<i32>,
}

/// Its answer: a build that waits for its recipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = TemplateRequestResponseV3)]
pub struct RequestedTemplateBuild {
    #[serde(rename = "templateID")]
    pub template_id: String,
    #[serde(rename = "buildID")]
    pub build_id: String,
    pub public: bool,
    pub aliases: Vec<String>,
    pub names: Vec<String>,
    pub tags: Vec<String>,
}

/// Answer of `GET /templates/{templateID}/files/{hash}`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = TemplateBuildFileUpload)]
pub struct TemplateFilesUpload {
    /// The archive is there already.
    pub present: bool,
    /// Where it can be put.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub url: Option<String>,
    /// What the client has to send along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub headers: Option<BTreeMap<String, String>>,
}

/// Body of `POST /v2/templates/{templateID}/builds/{buildID}`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = TemplateBuildStartV2)]
pub struct StartTemplateBuild {
    #[serde(
        default,
        deserialize_with = "non_null",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false)]
    pub from_image: Option<String>,
    #[serde(
        default,
        deserialize_with = "non_null",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false)]
    pub from_template: Option<String>,
    #[serde(
        default,
        deserialize_with = "object",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false)]
    pub from_archive: Option<ImageArchive>,
    #[serde(
        default,
        deserialize_with = "object",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false)]
    pub from_image_registry: Option<ImageRegistry>,
    /// Nothing is taken from the cache.
    #[serde(
        default,
        deserialize_with = "non_null",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false)]
    pub force: Option<bool>,
    #[serde(
        default,
        deserialize_with = "objects",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false)]
    pub steps: Option<Vec<TemplateStep>>,
    #[serde(
        default,
        deserialize_with = "non_null",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false)]
    pub start_cmd: Option<String>,
    #[serde(
        default,
        deserialize_with = "non_null",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false)]
    pub ready_cmd: Option<String>,
}

/// An image in an OCI archive that was uploaded like the files of a step. Ours, not E2B's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageArchive {
    /// The client's name of the upload, 64 hexadecimal characters.
    pub files_hash: String,
    /// Which image, where there are several: its tag or whole name in the archive.
    #[serde(
        default,
        rename = "ref",
        deserialize_with = "non_null",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false)]
    pub reference: Option<String>,
}

/// How to log in where the image lies.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
#[schema(as = FromImageRegistry)]
pub enum ImageRegistry {
    Registry {
        username: String,
        password: String,
    },
    #[serde(rename_all = "camelCase")]
    Aws {
        aws_access_key_id: String,
        aws_secret_access_key: String,
        aws_region: String,
    },
    #[serde(rename_all = "camelCase")]
    Gcp {
        service_account_json: String,
    },
}

/// One step; what else clients say in it is for themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateStep {
    /// `COPY`, `ENV`, `RUN`, `WORKDIR`, `USER`.
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(
        default,
        deserialize_with = "non_null",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false)]
    pub args: Option<Vec<String>>,
    /// Of a `COPY`.
    #[serde(
        default,
        deserialize_with = "non_null",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false)]
    pub files_hash: Option<String>,
    #[serde(
        default,
        deserialize_with = "non_null",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false)]
    pub force: Option<bool>,
}

/// Answer of `GET /templates/{templateID}/builds/{buildID}/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateBuildInfo {
    #[serde(rename = "templateID")]
    pub template_id: String,
    #[serde(rename = "buildID")]
    pub build_id: String,
    /// `waiting`, `building`, `ready`, `error`.
    pub status: String,
    /// The oldest first.
    pub log_entries: Vec<BuildLogEntry>,
    /// Of a way of building that is gone: always empty.
    pub logs: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub reason: Option<BuildStatusReason>,
}

/// Why a build failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BuildStatusReason {
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub step: Option<String>,
    /// Warnings and errors of that step on this page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub log_entries: Option<Vec<BuildLogEntry>>,
}

/// One line of a build's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BuildLogEntry {
    #[schema(value_type = String, format = DateTime)]
    pub timestamp: Timestamp,
    pub message: String,
    /// `debug`, `info`, `warn`, `error`.
    pub level: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub step: Option<String>,
}

/// Answer of `GET /templates/{templateID}/builds/{buildID}/logs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = TemplateBuildLogsResponse)]
pub struct TemplateBuildLogs {
    pub logs: Vec<BuildLogEntry>,
}

/// Body of `POST /builds/gc`, which is ours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CollectBuilds {
    /// What was used within so many seconds stays; 0 when absent.
    #[serde(
        default,
        deserialize_with = "non_null",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false)]
    pub older_than_seconds: Option<u32>,
    /// Only says what would go; `false` when absent.
    #[serde(
        default,
        deserialize_with = "non_null",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false)]
    pub dry_run: Option<bool>,
}

/// Its answer: what went, or would go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CollectedBuilds {
    /// Builds to which neither tag nor sandbox leads, and that are not their template's newest.
    pub builds: u64,
    /// Results of steps.
    pub steps: u64,
    /// Read-only layers that only those had.
    pub layers: u64,
    pub uploads: u64,
    /// Of uploads and results of steps, as far as known; layers are not counted.
    pub bytes: u64,
}

/// What became of an order to cancel all builds of a team.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AdminBuildCancelResult)]
pub struct CancelledBuilds {
    pub cancelled_count: u32,
    pub failed_count: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_as_the_sdks_send_it_is_read() {
        let text = r#"{"fromImage":"python:3","force":false,"later":1,
            "fromImageRegistry":{"type":"aws","awsAccessKeyId":"a","awsSecretAccessKey":"b",
                "awsRegion":"c","more":null},
            "steps":[{"type":"COPY","args":["a","b","",""],"filesHash":"ab","force":true,
                "forceUpload":true,"resolveSymlinks":false,"gzip":true}],
            "startCmd":"x","readyCmd":"y"}"#;
        let read: StartTemplateBuild = serde_json::from_str(text).unwrap();
        let step = &read.steps.unwrap()[0];
        assert_eq!(
            (step.kind.as_str(), step.force, step.files_hash.as_deref()),
            ("COPY", Some(true), Some("ab"))
        );
        let login = read.from_image_registry.unwrap();
        assert!(matches!(login, ImageRegistry::Aws { aws_region, .. } if aws_region == "c"));
        for wrong in [
            r#"{"fromImageRegistry":{"type":"azure"}}"#,
            r#"{"fromImageRegistry":{"type":"registry","username":"u"}}"#,
            r#"{"fromImageRegistry":["registry","u","p"]}"#,
            r#"{"fromImageRegistry":null}"#,
            r#"{"fromArchive":null}"#,
            r#"{"fromArchive":"x"}"#,
            r#"{"fromArchive":{"ref":"x"}}"#,
            r#"{"steps":null}"#,
            r#"{"steps":[["RUN"]]}"#,
            r#"{"steps":[{}]}"#,
            r#"{"steps":[{"type":"RUN","args":null}]}"#,
            r#"{"steps":[{"type":"RUN","args":[1]}]}"#,
            r#"{"force":1}"#,
        ] {
            assert!(
                serde_json::from_str::<StartTemplateBuild>(wrong).is_err(),
                "{wrong}"
            );
        }
    }
}
