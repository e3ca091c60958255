-- A build is asked for, built and ends. Those from before were all made at once of what a node has.
ALTER TABLE builds ADD COLUMN status TEXT NOT NULL DEFAULT 'ready'; -- waiting, building, ready, error
ALTER TABLE builds ADD COLUMN failure TEXT; -- {"v":1,"is":{"message","step"}}; NULL unless 'error'
ALTER TABLE builds ADD COLUMN envs TEXT; -- {"v":1,"is":{names: values}}; NULL for none
ALTER TABLE builds ADD COLUMN startup TEXT; -- {"v":1,"is":commands}; NULL for none
ALTER TABLE builds ADD COLUMN distribution TEXT NOT NULL DEFAULT 'debian:bookworm';
ALTER TABLE builds ADD COLUMN disk_size_mib INTEGER; -- of the whole root; NULL: not known
ALTER TABLE builds ADD COLUMN updated_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE builds ADD COLUMN finished_at INTEGER; -- NULL while it waits or is built
UPDATE builds SET updated_at = created_at, finished_at = created_at;
-- In the order of pages.
DROP INDEX builds_template;
CREATE INDEX builds_page ON builds (template_id, created_at, id);
CREATE INDEX builds_open ON builds (status, created_at) WHERE status IN ('waiting', 'building');
CREATE INDEX builds_failed ON builds (finished_at) WHERE status = 'error';
CREATE INDEX template_tags_build ON template_tags (build_id);

ALTER TABLE templates ADD COLUMN updated_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE templates ADD COLUMN build_count INTEGER NOT NULL DEFAULT 0; -- ever asked for
ALTER TABLE templates ADD COLUMN spawn_count INTEGER NOT NULL DEFAULT 0;
ALTER TABLE templates ADD COLUMN last_spawned_at INTEGER;
-- Gone for everybody; kept with the builds that sandboxes of other teams still run from.
ALTER TABLE templates ADD COLUMN deleted INTEGER NOT NULL DEFAULT 0;
UPDATE templates SET updated_at = created_at,
    build_count = (SELECT COUNT(*) FROM builds b WHERE b.template_id = templates.id);
CREATE INDEX templates_page ON templates (team_id, created_at, id)
WHERE source = 'template' AND deleted = 0;
CREATE INDEX templates_deleted ON templates (id) WHERE deleted = 1;

-- Ids that templates had: no name may be one of them again.
CREATE TABLE spent_template_ids (
    id TEXT PRIMARY KEY
) STRICT;

-- States of file systems that builds left, by the hash of what led to them.
CREATE TABLE cached_layers (
    team_id TEXT NOT NULL REFERENCES teams (id),
    key TEXT NOT NULL,
    layers TEXT NOT NULL, -- {"v":1,"is":[names]}
    files TEXT, -- kept files above them
    context TEXT NOT NULL, -- {"v":1,"is":user, folder and variables}
    distribution TEXT NOT NULL,
    size_mib INTEGER NOT NULL, -- of all its files; 0: nobody looked
    used_at INTEGER NOT NULL, -- to the minute
    PRIMARY KEY (team_id, key)
) STRICT;
CREATE INDEX cached_layers_used ON cached_layers (used_at);
CREATE INDEX cached_layers_order ON cached_layers (team_id, used_at, key);
CREATE INDEX cached_layers_files ON cached_layers (files);

-- Archives that clients sent, by the client's name for them.
CREATE TABLE uploads (
    team_id TEXT NOT NULL REFERENCES teams (id),
    key TEXT NOT NULL,
    sha256 TEXT NOT NULL, -- of the content: its name on the disk
    bytes INTEGER NOT NULL,
    used_at INTEGER NOT NULL, -- to the minute
    PRIMARY KEY (team_id, key)
) STRICT;
CREATE INDEX uploads_used ON uploads (used_at);
CREATE INDEX uploads_content ON uploads (team_id, sha256, bytes);
