-- Rules of this folder:
-- - A migration that was released never changes: its checksum is kept in every database.
-- - A migration only adds: tables, columns with a default or NULL, indexes. Binaries from before it
--   go on beside it, and those must neither read nor write anything that is gone or means another
--   thing. What is to go is left unused first, and goes with a later version.
-- - A migration ends with its row in schema_compat: the oldest schema whose binaries still work.
-- - An index on a table that may be large is made CONCURRENTLY, in a file of its own that begins
--   with the line `-- no-transaction`.
--
-- Times are microseconds since 1970-01-01 UTC. Ids are text. JSON of ours carries a version "v".
-- Names, columns and indexes are those of migrations/sqlite. All texts are ordered by their bytes
-- (COLLATE "C"), as there, whatever the order of the database is.

CREATE TABLE schema_compat (
    version BIGINT PRIMARY KEY,
    oldest_binary_schema BIGINT NOT NULL
);

CREATE TABLE teams (
    id TEXT COLLATE "C" PRIMARY KEY,
    slug TEXT COLLATE "C" NOT NULL UNIQUE,
    name TEXT COLLATE "C" NOT NULL,
    standing TEXT COLLATE "C" NOT NULL, -- good, blocked, banned
    blocked_reason TEXT COLLATE "C",
    sandboxes_max BIGINT, -- NULL in a limit: the configured default
    life_hours_max BIGINT,
    vcpus_max BIGINT,
    memory_mib_max BIGINT,
    created_at BIGINT NOT NULL,
    paused_days BIGINT, -- that paused sandboxes and snapshots are kept; 0: for ever
    snapshot_days BIGINT
);

CREATE TABLE users (
    id TEXT COLLATE "C" PRIMARY KEY,
    created_at BIGINT NOT NULL
);

CREATE TABLE members (
    user_id TEXT COLLATE "C" NOT NULL REFERENCES users (id),
    team_id TEXT COLLATE "C" NOT NULL REFERENCES teams (id),
    is_default BOOLEAN NOT NULL,
    joined_at BIGINT NOT NULL,
    PRIMARY KEY (user_id, team_id)
);
CREATE UNIQUE INDEX members_default ON members (user_id) WHERE is_default;

CREATE TABLE api_keys (
    id TEXT COLLATE "C" PRIMARY KEY,
    team_id TEXT COLLATE "C" NOT NULL REFERENCES teams (id),
    name TEXT COLLATE "C" NOT NULL,
    hash TEXT COLLATE "C" NOT NULL UNIQUE,
    mask_prefix TEXT COLLATE "C" NOT NULL,
    mask_value_len BIGINT NOT NULL,
    mask_value_prefix TEXT COLLATE "C" NOT NULL,
    mask_value_suffix TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT COLLATE "C" REFERENCES users (id),
    last_used BIGINT
);
CREATE INDEX api_keys_team ON api_keys (team_id, created_at);

CREATE TABLE access_tokens (
    id TEXT COLLATE "C" PRIMARY KEY,
    user_id TEXT COLLATE "C" NOT NULL REFERENCES users (id),
    name TEXT COLLATE "C" NOT NULL,
    hash TEXT COLLATE "C" NOT NULL UNIQUE,
    mask_prefix TEXT COLLATE "C" NOT NULL,
    mask_value_len BIGINT NOT NULL,
    mask_value_prefix TEXT COLLATE "C" NOT NULL,
    mask_value_suffix TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE templates (
    id TEXT COLLATE "C" PRIMARY KEY,
    team_id TEXT COLLATE "C" REFERENCES teams (id), -- NULL: the platform's own
    public BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    source TEXT COLLATE "C" NOT NULL DEFAULT 'template', -- of a recipe; 'snapshot': of a sandbox
    updated_at BIGINT NOT NULL DEFAULT 0,
    build_count BIGINT NOT NULL DEFAULT 0, -- ever asked for
    spawn_count BIGINT NOT NULL DEFAULT 0,
    last_spawned_at BIGINT,
    -- 1: gone for everybody; kept with the builds that sandboxes of other teams still run from. A
    -- number, so that statements say the same here and where SQLite's indexes must serve.
    deleted SMALLINT NOT NULL DEFAULT 0 CHECK (deleted IN (0, 1))
);
CREATE INDEX templates_team ON templates (team_id, source);
CREATE INDEX templates_page ON templates (team_id, created_at, id)
WHERE source = 'template' AND deleted = 0;
CREATE INDEX templates_deleted ON templates (id) WHERE deleted = 1;

-- Ids that templates had: no name may be one of them again.
CREATE TABLE spent_template_ids (
    id TEXT COLLATE "C" PRIMARY KEY
);

CREATE TABLE template_aliases (
    namespace TEXT COLLATE "C" NOT NULL, -- '' is a promoted alias, found by every team
    alias TEXT COLLATE "C" NOT NULL,
    template_id TEXT COLLATE "C" NOT NULL REFERENCES templates (id),
    created_at BIGINT NOT NULL,
    PRIMARY KEY (namespace, alias)
);
CREATE INDEX template_aliases_template ON template_aliases (template_id);

-- A build is asked for, built and ends.
CREATE TABLE builds (
    id TEXT COLLATE "C" PRIMARY KEY,
    template_id TEXT COLLATE "C" NOT NULL REFERENCES templates (id),
    layers TEXT COLLATE "C" NOT NULL, -- {"v":1,"is":[names]}
    vcpus BIGINT NOT NULL,
    memory_mib BIGINT NOT NULL,
    disk_mib BIGINT NOT NULL,
    processes_max BIGINT NOT NULL,
    default_user TEXT COLLATE "C" NOT NULL,
    default_workdir TEXT COLLATE "C",
    envd_version TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    status TEXT COLLATE "C" NOT NULL DEFAULT 'ready', -- waiting, building, ready, error
    failure TEXT COLLATE "C", -- {"v":1,"is":{"message","step"}}; NULL unless 'error'
    envs TEXT COLLATE "C", -- {"v":1,"is":{names: values}}; NULL for none
    startup TEXT COLLATE "C", -- {"v":1,"is":commands}; NULL for none
    distribution TEXT COLLATE "C" NOT NULL DEFAULT 'debian:bookworm',
    disk_size_mib BIGINT, -- of the whole root; NULL: not known
    updated_at BIGINT NOT NULL DEFAULT 0,
    finished_at BIGINT -- NULL while it waits or is built
);
-- In the order of pages.
CREATE INDEX builds_page ON builds (template_id, created_at, id);
CREATE INDEX builds_open ON builds (status, created_at) WHERE status IN ('waiting', 'building');
CREATE INDEX builds_failed ON builds (finished_at) WHERE status = 'error';

-- The youngest assignment of a tag holds; the others are its history.
CREATE TABLE template_tags (
    template_id TEXT COLLATE "C" NOT NULL REFERENCES templates (id),
    tag TEXT COLLATE "C" NOT NULL,
    assigned_at BIGINT NOT NULL,
    build_id TEXT COLLATE "C" NOT NULL REFERENCES builds (id),
    PRIMARY KEY (template_id, tag, assigned_at)
);
CREATE INDEX template_tags_build ON template_tags (build_id);

-- Builds whose files a node keeps.
CREATE TABLE snapshots (
    build_id TEXT COLLATE "C" PRIMARY KEY REFERENCES builds (id),
    files TEXT COLLATE "C" NOT NULL UNIQUE, -- their name at the node
    node TEXT COLLATE "C" NOT NULL,
    sandbox_id TEXT COLLATE "C" NOT NULL, -- whose they were
    created_at BIGINT NOT NULL
);
CREATE INDEX snapshots_sandbox ON snapshots (sandbox_id);

CREATE TABLE sandboxes (
    id TEXT COLLATE "C" PRIMARY KEY,
    team_id TEXT COLLATE "C" NOT NULL REFERENCES teams (id),
    template_id TEXT COLLATE "C" NOT NULL, -- may be gone before the sandbox is
    alias TEXT COLLATE "C",
    build_id TEXT COLLATE "C" NOT NULL,
    node TEXT COLLATE "C" NOT NULL,
    envd_version TEXT COLLATE "C" NOT NULL,
    vcpus BIGINT NOT NULL,
    memory_mib BIGINT NOT NULL,
    disk_mib BIGINT NOT NULL,
    processes_max BIGINT NOT NULL,
    metadata TEXT COLLATE "C" NOT NULL, -- the owner's pairs, an object of strings
    -- The same to look into: each pair the text of a JSON array. JSONB cannot hold all that a pair
    -- may be, such as a NUL.
    metadata_pairs TEXT[] COLLATE "C" NOT NULL,
    secured BOOLEAN NOT NULL,
    network TEXT COLLATE "C" NOT NULL, -- {"v":1,"is":policy}
    timeout_us BIGINT NOT NULL,
    on_timeout TEXT COLLATE "C" NOT NULL, -- kill, pause, pause_files
    started_at BIGINT NOT NULL,
    -- The last promise, also of a dead one; of a paused one when that was.
    ends_at BIGINT NOT NULL,
    state TEXT COLLATE "C" NOT NULL, -- running, paused, dead
    ended_at BIGINT,
    end_reason TEXT COLLATE "C",
    generation BIGINT NOT NULL,
    kept TEXT COLLATE "C", -- memory, files; NULL unless paused
    auto_resume BOOLEAN NOT NULL DEFAULT FALSE, -- traffic wakes it
    ingress TEXT COLLATE "C" NOT NULL DEFAULT '{"v":1,"is":{}}',
    envs BYTEA, -- sealed: what it is started anew with
    CHECK ((state = 'dead') = (ended_at IS NOT NULL)),
    CHECK ((state = 'dead') = (end_reason IS NOT NULL))
);
-- In the order of pages; the state is there so that counting needs no row.
CREATE INDEX sandboxes_alive ON sandboxes (team_id, started_at DESC, id, state)
WHERE state <> 'dead';
CREATE INDEX sandboxes_dead ON sandboxes (ended_at) WHERE state = 'dead';
CREATE INDEX sandboxes_template ON sandboxes (template_id) WHERE state <> 'dead';

CREATE TABLE idempotency_keys (
    team_id TEXT COLLATE "C" NOT NULL REFERENCES teams (id),
    key TEXT COLLATE "C" NOT NULL,
    request BYTEA NOT NULL, -- digest of the body
    owner TEXT COLLATE "C" NOT NULL, -- the process that took the key
    state TEXT COLLATE "C" NOT NULL, -- in_progress, done, unknown
    answer TEXT COLLATE "C",
    began_at BIGINT NOT NULL,
    PRIMARY KEY (team_id, key),
    CHECK ((state = 'done') = (answer IS NOT NULL))
);
CREATE INDEX idempotency_keys_began ON idempotency_keys (began_at);

CREATE TABLE settings (
    name TEXT COLLATE "C" PRIMARY KEY,
    value TEXT COLLATE "C" NOT NULL
);

-- States of file systems that builds left, by the hash of what led to them.
CREATE TABLE cached_layers (
    team_id TEXT COLLATE "C" NOT NULL REFERENCES teams (id),
    key TEXT COLLATE "C" NOT NULL,
    layers TEXT COLLATE "C" NOT NULL, -- {"v":1,"is":[names]}
    files TEXT COLLATE "C", -- kept files above them
    context TEXT COLLATE "C" NOT NULL, -- {"v":1,"is":user, folder and variables}
    distribution TEXT COLLATE "C" NOT NULL,
    size_mib BIGINT NOT NULL, -- of all its files; 0: nobody looked
    used_at BIGINT NOT NULL, -- to the minute
    PRIMARY KEY (team_id, key)
);
CREATE INDEX cached_layers_used ON cached_layers (used_at);
CREATE INDEX cached_layers_order ON cached_layers (team_id, used_at, key);
CREATE INDEX cached_layers_files ON cached_layers (files);

-- Archives that clients sent, by the client's name for them.
CREATE TABLE uploads (
    team_id TEXT COLLATE "C" NOT NULL REFERENCES teams (id),
    key TEXT COLLATE "C" NOT NULL,
    sha256 TEXT COLLATE "C" NOT NULL, -- of the content: its name on the disk
    bytes BIGINT NOT NULL,
    used_at BIGINT NOT NULL, -- to the minute
    PRIMARY KEY (team_id, key)
);
CREATE INDEX uploads_used ON uploads (used_at);
CREATE INDEX uploads_content ON uploads (team_id, sha256, bytes);

-- What a team's builds made at a node, read-only layers and kept files, and what each takes there.
CREATE TABLE built_bytes (
    name TEXT COLLATE "C" PRIMARY KEY, -- a layer's, or that of kept files
    team_id TEXT COLLATE "C" NOT NULL REFERENCES teams (id),
    bytes BIGINT NOT NULL, -- that none before it takes
    holds BIGINT NOT NULL, -- with what it shares
    noted_at BIGINT NOT NULL
);
CREATE INDEX built_bytes_team ON built_bytes (team_id, bytes);

-- What several servers and nodes know of each other. Times are the database's own.
CREATE TABLE servers (
    id TEXT COLLATE "C" PRIMARY KEY, -- another one after each start of its process
    address TEXT COLLATE "C",
    version TEXT COLLATE "C" NOT NULL,
    since BIGINT NOT NULL,
    seen_at BIGINT NOT NULL
);

-- What one of them does for all.
CREATE TABLE leases (
    name TEXT COLLATE "C" PRIMARY KEY,
    holder TEXT COLLATE "C" NOT NULL,
    generation BIGINT NOT NULL, -- grows whenever it begins anew
    ends_at BIGINT NOT NULL
);

CREATE TABLE nodes (
    id TEXT COLLATE "C" PRIMARY KEY,
    address TEXT COLLATE "C" NOT NULL, -- host:port
    labels TEXT COLLATE "C" NOT NULL, -- {"v":1,"is":{names: values}}
    isolation TEXT COLLATE "C" NOT NULL,
    standing TEXT COLLATE "C" NOT NULL, -- open, cordoned, draining
    generation BIGINT NOT NULL, -- grows when it is fenced
    joined_at BIGINT NOT NULL,
    lost_at BIGINT -- NULL while it is here
);

CREATE TABLE join_tokens (
    id TEXT COLLATE "C" PRIMARY KEY,
    hash BYTEA NOT NULL, -- SHA-256
    role TEXT COLLATE "C" NOT NULL, -- node, edge
    expires_at BIGINT NOT NULL,
    uses_left BIGINT -- NULL for any number
);

INSERT INTO schema_compat (version, oldest_binary_schema) VALUES (1, 1);
