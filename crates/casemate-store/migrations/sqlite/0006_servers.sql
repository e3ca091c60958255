-- Which server builds it; NULL for builds that older versions began.
ALTER TABLE builds ADD COLUMN owner TEXT;
-- A team's running ones are counted before each new one, the sandboxes of a node compared with it.
CREATE INDEX sandboxes_running ON sandboxes (team_id) WHERE state = 'running';
CREATE INDEX sandboxes_node ON sandboxes (node, started_at) WHERE state <> 'dead';
-- What of the nodes' layers and kept files lies in the bucket.
CREATE TABLE artifacts (
    name TEXT PRIMARY KEY NOT NULL, -- of the layer or of the kept files
    team_id TEXT NOT NULL, -- whose it was when it was stored
    artifact TEXT NOT NULL, -- the bucket's reference
    bytes INTEGER NOT NULL
) STRICT;
CREATE INDEX artifacts_team ON artifacts (team_id);
-- NULL: only the server that took it has it.
ALTER TABLE uploads ADD COLUMN artifact TEXT;
