-- no-transaction
-- What a node has is compared with its rows.
CREATE INDEX CONCURRENTLY IF NOT EXISTS sandboxes_node ON sandboxes (node, started_at) WHERE state <> 'dead';
