-- Which server builds it; NULL for builds that older versions began.
ALTER TABLE builds ADD COLUMN owner TEXT;
-- A team's running ones are counted before each new one, the sandboxes of a node compared with it.
CREATE INDEX sandboxes_running ON sandboxes (team_id) WHERE state = 'running';
CREATE INDEX sandboxes_node ON sandboxes (node, started_at) WHERE state <> 'dead';
