-- A paused sandbox: state 'paused', ends_at is when that was, kept says what of it.
ALTER TABLE sandboxes ADD COLUMN kept TEXT; -- memory, files; NULL unless paused
ALTER TABLE sandboxes ADD COLUMN auto_resume INTEGER NOT NULL DEFAULT 0; -- traffic wakes it
ALTER TABLE sandboxes ADD COLUMN ingress TEXT NOT NULL DEFAULT '{"v":1,"is":{}}';
ALTER TABLE sandboxes ADD COLUMN envs BLOB; -- sealed: what it is started anew with

-- Templates that teams made of sandboxes: 'snapshot'; all others 'template'.
ALTER TABLE templates ADD COLUMN source TEXT NOT NULL DEFAULT 'template';
-- Builds whose files a node keeps.
CREATE TABLE snapshots (
    build_id TEXT PRIMARY KEY REFERENCES builds (id),
    files TEXT NOT NULL UNIQUE, -- their name at the node
    node TEXT NOT NULL,
    sandbox_id TEXT NOT NULL, -- whose they were
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX snapshots_sandbox ON snapshots (sandbox_id);
CREATE INDEX templates_team ON templates (team_id, source);
CREATE INDEX sandboxes_template ON sandboxes (template_id) WHERE state <> 'dead';

-- Days that paused sandboxes and snapshots are kept; 0: for ever.
ALTER TABLE teams ADD COLUMN paused_days INTEGER;
ALTER TABLE teams ADD COLUMN snapshot_days INTEGER;
