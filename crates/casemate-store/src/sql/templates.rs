//! [`Templates`].

use async_trait::async_trait;
use casemate_sql::{On, Tx, query, query_as, query_scalar, transaction};
use casemate_types::template::{DEFAULT_TAG, TemplateRef};
use casemate_types::{TemplateId, Timestamp};

use super::build_rows::{assign_tag, build_by_id, build_by_tag, put_build, same};
use super::{SqlStore, failed};
use crate::rows::{MatchRow, TemplateRow, micros};
use crate::{Build, BuildId, NodeReport, Resolution, StoreError, Template, Templates};

/// Of [`TemplateRow`], from `templates t`.
macro_rules! template_columns {
    () => {
        "t.id, t.team_id, t.public, t.source, t.created_at, \
         (SELECT a.alias FROM template_aliases a WHERE a.template_id = t.id \
          ORDER BY a.created_at, a.namespace, a.alias LIMIT 1) AS alias"
    };
}

pub(super) use template_columns;

/// `$1` a namespace, `$2` a name, `$3` whether the name may also be a promoted alias or an id.
const RESOLVE: &str = concat!(
    "SELECT m.identifier, ",
    template_columns!(),
    " FROM (SELECT 1 AS step, n.template_id AS id, n.namespace || '/' || n.alias AS identifier \
            FROM template_aliases n WHERE n.namespace = $1 AND n.alias = $2 AND $1 <> '' \
      UNION ALL SELECT 2, p.template_id, p.alias \
            FROM template_aliases p WHERE p.namespace = '' AND p.alias = $2 AND $3 \
      UNION ALL SELECT 3, i.id, i.id FROM templates i WHERE i.id = $2 AND i.deleted = 0 AND $3) m \
     JOIN templates t ON t.id = m.id ORDER BY m.step LIMIT 1"
);

#[async_trait]
impl Templates for SqlStore {
    async fn template_resolve(
        &self,
        home: &str,
        reference: &TemplateRef,
    ) -> Result<Resolution, StoreError> {
        let explicit = reference.namespace.as_deref();
        let row: Option<MatchRow> = query_as(RESOLVE)
            .bind(explicit.unwrap_or(home))
            .bind(&reference.name)
            .bind(explicit.is_none())
            .fetch_optional(&self.readers)
            .await
            .map_err(|error| failed("template", &reference.name, error))?;
        let Some(MatchRow {
            template,
            identifier,
        }) = row
        else {
            return Ok(Resolution::Unknown);
        };
        let template = Template::try_from(template)?;
        let build = build_by_tag(&self.readers, &template.id, &reference.tag).await?;
        Ok(match build {
            Some(build) => Resolution::Found {
                template,
                identifier,
                build,
            },
            None => Resolution::NoBuild {
                template,
                identifier,
            },
        })
    }

    async fn build_by_id(&self, id: &BuildId) -> Result<Option<Build>, StoreError> {
        build_by_id(&self.readers, *id).await
    }

    async fn template_by_id(&self, id: &TemplateId) -> Result<Option<Template>, StoreError> {
        template_by_id(&self.readers, id).await
    }

    async fn template_report(
        &self,
        report: &NodeReport,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        if self.is_current(report).await? {
            return Ok(false);
        }
        let refused = |error| failed("template", &report.build.template, error);
        transaction!(self.durable, refused, async |tx| {
            let mut changed = put_template(tx, &report.build, now).await?;
            changed |= put_build(tx, &report.build, now).await?;
            changed |= move_tag(tx, &report.build, now).await?;
            changed |= move_alias(tx, report, now).await?;
            Ok(changed)
        })
    }
}

impl SqlStore {
    /// Whether the report says only what is known: the usual case, answered without the writer.
    async fn is_current(&self, report: &NodeReport) -> Result<bool, StoreError> {
        let Some(alias) = alias_target(&self.readers, &report.alias).await? else {
            return Ok(false);
        };
        if alias != report.build.template.as_str() {
            return Ok(false);
        }
        let tagged = build_by_tag(&self.readers, &report.build.template, DEFAULT_TAG).await?;
        Ok(tagged.is_some_and(|kept| same(&kept, &report.build)))
    }
}

async fn put_template(tx: &mut Tx, build: &Build, now: Timestamp) -> Result<bool, StoreError> {
    match template_by_id(&mut *tx, &build.template).await? {
        Some(kept) if kept.owner.is_some() => Err(exists("template", &build.template)),
        Some(_) => Ok(false),
        None => {
            query(
                "INSERT INTO templates (id, team_id, public, created_at, updated_at) \
                 VALUES ($1, NULL, $2, $3, $3)",
            )
            .bind(build.template.as_str())
            .bind(true)
            .bind(micros(now))
            .execute(&mut *tx)
            .await
            .map_err(|error| failed("template", &build.template, error))?;
            Ok(true)
        }
    }
}

/// Points the default tag to the build unless it points to one as young.
async fn move_tag(tx: &mut Tx, build: &Build, now: Timestamp) -> Result<bool, StoreError> {
    let kept = build_by_tag(&mut *tx, &build.template, DEFAULT_TAG).await?;
    if kept.is_some_and(|kept| !is_younger(build, &kept)) {
        return Ok(false);
    }
    assign_tag(tx, &build.template, build.id, DEFAULT_TAG, now).await?;
    Ok(true)
}

/// Points the promoted alias to the template unless it leads to a build as young.
async fn move_alias(tx: &mut Tx, report: &NodeReport, now: Timestamp) -> Result<bool, StoreError> {
    let build = &report.build;
    if let Some(target) = alias_target(&mut *tx, &report.alias).await? {
        if target == build.template.as_str() {
            return Ok(false);
        }
        let corrupt = |source| StoreError::Corrupt {
            what: "alias",
            id: report.alias.clone(),
            source,
        };
        let target = TemplateId::parse(&target).map_err(|error| corrupt(error.into()))?;
        let kept = template_by_id(&mut *tx, &target).await?;
        if kept.is_some_and(|kept| kept.owner.is_some()) {
            return Err(exists("alias", &report.alias));
        }
        let kept = build_by_tag(&mut *tx, &target, DEFAULT_TAG).await?;
        if kept.is_some_and(|kept| !is_younger(build, &kept)) {
            return Ok(false);
        }
    }
    query(
        "INSERT INTO template_aliases (namespace, alias, template_id, created_at) \
         VALUES ('', $1, $2, $3) \
         ON CONFLICT (namespace, alias) DO UPDATE SET template_id = excluded.template_id",
    )
    .bind(&report.alias)
    .bind(build.template.as_str())
    .bind(micros(now))
    .execute(&mut *tx)
    .await
    .map_err(|error| failed("alias", &report.alias, error))?;
    Ok(true)
}

/// By creation, as far as it is kept; of two as old, the one with the greater id, so that nodes
/// which report both do not take turns.
fn is_younger(build: &Build, kept: &Build) -> bool {
    (micros(build.created_at), build.id) > (micros(kept.created_at), kept.id)
}

fn exists(what: &'static str, id: impl ToString) -> StoreError {
    StoreError::Exists {
        what,
        id: id.to_string(),
    }
}

async fn alias_target(db: impl Into<On<'_>>, alias: &str) -> Result<Option<String>, StoreError> {
    query_scalar("SELECT template_id FROM template_aliases WHERE namespace = '' AND alias = $1")
        .bind(alias)
        .fetch_optional(db)
        .await
        .map_err(|error| failed("alias", alias, error))
}

async fn template_by_id(
    db: impl Into<On<'_>>,
    id: &TemplateId,
) -> Result<Option<Template>, StoreError> {
    let sql = concat!(
        "SELECT ",
        template_columns!(),
        " FROM templates t WHERE t.id = $1 AND t.deleted = 0"
    );
    let row: Option<TemplateRow> = query_as(sql)
        .bind(id.as_str())
        .fetch_optional(db)
        .await
        .map_err(|error| failed("template", id, error))?;
    row.map(Template::try_from).transpose()
}
