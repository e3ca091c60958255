//! [`Nodes`].

use async_trait::async_trait;
use casemate_sql::{Query, Sql, query, query_as, sql};

use super::{SqlStore, failed};
use crate::nodes::{FIRST_NODE_GENERATION, LABELS_BYTES_MAX, LABELS_MAX};
use crate::rows::{NodeRow, labels_text, node_standing_word, signed};
use crate::{Node, NodeJoin, NodeStanding, Nodes, StoreError};

const WHAT: &str = "node";

/// Of [`NodeRow`].
macro_rules! columns {
    () => {
        "id, address, labels, isolation, standing, generation, joined_at, lost_at"
    };
}

const JOIN: Sql = sql!(
    "INSERT INTO nodes (id, address, labels, isolation, standing, generation, joined_at) \
     VALUES ($1, $2, $3, $4, $5, $6, ",
    now(),
    ") ON CONFLICT (id) DO UPDATE SET address = excluded.address, labels = excluded.labels, \
     isolation = excluded.isolation RETURNING ",
    columns!()
);

/// SQLite writes for one at a time; PostgreSQL's function sees to it that nobody comes between.
const REMOVE_UNUSED: Sql = sql!(either(
    "DELETE FROM nodes WHERE id = $1 AND NOT EXISTS ( \
     SELECT 1 FROM sandboxes s WHERE s.node = nodes.id AND s.state <> 'dead' \
     AND NOT (nodes.standing = 'draining' AND s.state = 'paused' AND s.stored_files IS NOT NULL)) \
     RETURNING id",
    "SELECT $1 WHERE node_remove_unused($1)"
));

#[async_trait]
impl Nodes for SqlStore {
    async fn node_join(&self, node: &NodeJoin) -> Result<Node, StoreError> {
        let labels = labels_text(&node.labels);
        check("labels of a node", node.labels.len(), LABELS_MAX)?;
        check(
            "labels of a node, in bytes,",
            labels.len(),
            LABELS_BYTES_MAX,
        )?;
        let rows: Vec<NodeRow> = query_as(JOIN)
            .bind(&node.id)
            .bind(&node.address)
            .bind(labels)
            .bind(&node.isolation)
            .bind(node_standing_word(NodeStanding::Open))
            .bind(signed(FIRST_NODE_GENERATION))
            .fetch_all(&self.durable)
            .await
            .map_err(|error| failed(WHAT, &node.id, error))?;
        match rows.into_iter().next() {
            Some(row) => row.try_into(),
            None => Err(conflict(&node.id)),
        }
    }

    async fn node_list(&self) -> Result<Vec<Node>, StoreError> {
        let sql = concat!("SELECT ", columns!(), " FROM nodes ORDER BY id");
        let rows: Vec<NodeRow> = query_as(sql)
            .fetch_all(&self.readers)
            .await
            .map_err(|error| failed("table", "nodes", error))?;
        rows.into_iter().map(Node::try_from).collect()
    }

    async fn node_by_id(&self, id: &str) -> Result<Option<Node>, StoreError> {
        let sql = concat!("SELECT ", columns!(), " FROM nodes WHERE id = $1");
        let row: Option<NodeRow> = query_as(sql)
            .bind(id)
            .fetch_optional(&self.readers)
            .await
            .map_err(|error| failed(WHAT, id, error))?;
        row.map(Node::try_from).transpose()
    }

    async fn node_set_standing(
        &self,
        id: &str,
        standing: NodeStanding,
    ) -> Result<bool, StoreError> {
        let done = query("UPDATE nodes SET standing = $2 WHERE id = $1")
            .bind(id)
            .bind(node_standing_word(standing))
            .execute(&self.durable)
            .await
            .map_err(|error| failed(WHAT, id, error))?;
        Ok(done > 0)
    }

    async fn node_fence(&self, id: &str, generation: u64) -> Result<u64, StoreError> {
        let change = query(sql!(
            "UPDATE nodes SET generation = generation + 1, lost_at = ",
            now(),
            " WHERE id = $1 AND generation = $2"
        ));
        self.swap_node(id, generation, change).await?;
        Ok(generation + 1)
    }

    async fn node_return(&self, id: &str, generation: u64) -> Result<(), StoreError> {
        let change = query("UPDATE nodes SET lost_at = NULL WHERE id = $1 AND generation = $2");
        self.swap_node(id, generation, change).await
    }

    async fn node_remove(&self, id: &str) -> Result<bool, StoreError> {
        let gone = query("DELETE FROM nodes WHERE id = $1")
            .bind(id)
            .execute(&self.durable)
            .await
            .map_err(|error| failed(WHAT, id, error))?;
        Ok(gone > 0)
    }

    async fn node_remove_unused(&self, id: &str) -> Result<bool, StoreError> {
        let gone: Vec<(String,)> = query_as(REMOVE_UNUSED)
            .bind(id)
            .fetch_all(&self.durable)
            .await
            .map_err(|error| failed(WHAT, id, error))?;
        Ok(!gone.is_empty())
    }
}

impl SqlStore {
    /// Runs a change that touches the row only in the given generation.
    async fn swap_node(&self, id: &str, generation: u64, change: Query) -> Result<(), StoreError> {
        let done = change
            .bind(id)
            .bind(signed(generation))
            .execute(&self.durable)
            .await
            .map_err(|error| failed(WHAT, id, error))?;
        if done == 0 {
            return Err(conflict(id));
        }
        Ok(())
    }
}

fn conflict(id: &str) -> StoreError {
    StoreError::Conflict {
        what: WHAT,
        id: id.into(),
    }
}

fn check(what: &'static str, size: usize, max: usize) -> Result<(), StoreError> {
    if size > max {
        return Err(StoreError::TooLarge { what, size, max });
    }
    Ok(())
}
