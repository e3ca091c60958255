use casemate_types::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::de::non_null;

/// Body of `POST /templates/tags`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = AssignTemplateTagsRequest)]
pub struct AssignTags {
    /// `[slug/]alias[:tag]`: of which build.
    pub target: String,
    #[serde(
        default,
        deserialize_with = "non_null",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false)]
    pub tags: Option<Vec<String>>,
}

/// Its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = AssignedTemplateTags)]
pub struct AssignedTags {
    /// Those that it got.
    pub tags: Vec<String>,
    #[serde(rename = "buildID")]
    pub build_id: String,
}

/// Body of `DELETE /templates/tags`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = DeleteTemplateTagsRequest)]
pub struct DeleteTags {
    /// `[slug/]alias`.
    pub name: String,
    #[serde(
        default,
        deserialize_with = "non_null",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false)]
    pub tags: Option<Vec<String>>,
}

/// A tag and the build that got it last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateTag {
    pub tag: String,
    #[serde(rename = "buildID")]
    pub build_id: String,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

/// One time that a ready build got a tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateTagAssignment {
    /// A UUID.
    pub assignment_id: String,
    pub build_id: String,
    #[schema(value_type = String, format = DateTime)]
    pub assigned_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub build_created_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub build_finished_at: Option<Timestamp>,
}

/// A tag and its latest assignments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateTagGroup {
    pub tag: String,
    /// The latest first.
    pub assignments: Vec<TemplateTagAssignment>,
    /// There are more than these.
    pub has_more: bool,
}

/// Answer of `GET /templates/{templateID}/tags/groups`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = TemplateTagGroupsResponse)]
pub struct TemplateTagGroups {
    pub tags: Vec<TemplateTagGroup>,
    pub next_cursor: Option<String>,
}

/// Answer of `GET /templates/{templateID}/tags/{tag}/assignments`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = TemplateTagAssignmentsResponse)]
pub struct TemplateTagAssignments {
    /// The latest first.
    pub data: Vec<TemplateTagAssignment>,
    pub next_cursor: Option<String>,
}

/// Answer of `GET /templates/{templateID}/tags/count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TemplateTagCount {
    pub total: u64,
}

/// Answer of `GET /templates/{templateID}/tags/exists`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateTagExists {
    /// With a build that is ready.
    pub exists: bool,
    pub normalized_tag: String,
}
