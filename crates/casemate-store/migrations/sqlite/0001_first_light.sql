-- Times are microseconds since 1970-01-01 UTC. Ids are text. JSON of ours carries a version "v".
-- A migration that was released never changes: its checksum is kept in every database.

CREATE TABLE teams (
    id TEXT PRIMARY KEY,
    slug TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    standing TEXT NOT NULL, -- good, blocked, banned
    blocked_reason TEXT,
    sandboxes_max INTEGER, -- NULL in a limit: the configured default
    life_hours_max INTEGER,
    vcpus_max INTEGER,
    memory_mib_max INTEGER,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE users (
    id TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE members (
    user_id TEXT NOT NULL REFERENCES users (id),
    team_id TEXT NOT NULL REFERENCES teams (id),
    is_default INTEGER NOT NULL,
    joined_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, team_id)
) STRICT;
CREATE UNIQUE INDEX members_default ON members (user_id) WHERE is_default <> 0;

CREATE TABLE api_keys (
    id TEXT PRIMARY KEY,
    team_id TEXT NOT NULL REFERENCES teams (id),
    name TEXT NOT NULL,
    hash TEXT NOT NULL UNIQUE,
    mask_prefix TEXT NOT NULL,
    mask_value_len INTEGER NOT NULL,
    mask_value_prefix TEXT NOT NULL,
    mask_value_suffix TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    created_by TEXT REFERENCES users (id),
    last_used INTEGER
) STRICT;
CREATE INDEX api_keys_team ON api_keys (team_id, created_at);

CREATE TABLE access_tokens (
    id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id),
    name TEXT NOT NULL,
    hash TEXT NOT NULL UNIQUE,
    mask_prefix TEXT NOT NULL,
    mask_value_len INTEGER NOT NULL,
    mask_value_prefix TEXT NOT NULL,
    mask_value_suffix TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE templates (
    id TEXT PRIMARY KEY,
    team_id TEXT REFERENCES teams (id), -- NULL: the platform's own
    public INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE template_aliases (
    namespace TEXT NOT NULL, -- '' is a promoted alias, found by every team
    alias TEXT NOT NULL,
    template_id TEXT NOT NULL REFERENCES templates (id),
    created_at INTEGER NOT NULL,
    PRIMARY KEY (namespace, alias)
) STRICT;
CREATE INDEX template_aliases_template ON template_aliases (template_id);

CREATE TABLE builds (
    id TEXT PRIMARY KEY,
    template_id TEXT NOT NULL REFERENCES templates (id),
    layers TEXT NOT NULL, -- {"v":1,"is":[names]}
    vcpus INTEGER NOT NULL,
    memory_mib INTEGER NOT NULL,
    disk_mib INTEGER NOT NULL,
    processes_max INTEGER NOT NULL,
    default_user TEXT NOT NULL,
    default_workdir TEXT,
    envd_version TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX builds_template ON builds (template_id);

-- The youngest assignment of a tag holds; the others are its history.
CREATE TABLE template_tags (
    template_id TEXT NOT NULL REFERENCES templates (id),
    tag TEXT NOT NULL,
    assigned_at INTEGER NOT NULL,
    build_id TEXT NOT NULL REFERENCES builds (id),
    PRIMARY KEY (template_id, tag, assigned_at)
) STRICT;

CREATE TABLE sandboxes (
    id TEXT PRIMARY KEY,
    team_id TEXT NOT NULL REFERENCES teams (id),
    template_id TEXT NOT NULL, -- may be gone before the sandbox is
    alias TEXT,
    build_id TEXT NOT NULL,
    node TEXT NOT NULL,
    envd_version TEXT NOT NULL,
    vcpus INTEGER NOT NULL,
    memory_mib INTEGER NOT NULL,
    disk_mib INTEGER NOT NULL,
    processes_max INTEGER NOT NULL,
    metadata TEXT NOT NULL, -- the owner's pairs, an object of strings
    secured INTEGER NOT NULL,
    network TEXT NOT NULL, -- {"v":1,"is":policy}
    timeout_us INTEGER NOT NULL,
    on_timeout TEXT NOT NULL, -- kill
    started_at INTEGER NOT NULL,
    ends_at INTEGER NOT NULL, -- the last promise, also of a dead one
    state TEXT NOT NULL, -- running, dead
    ended_at INTEGER,
    end_reason TEXT,
    generation INTEGER NOT NULL,
    CHECK ((state = 'dead') = (ended_at IS NOT NULL)),
    CHECK ((state = 'dead') = (end_reason IS NOT NULL))
) STRICT;
-- In the order of pages; the state is there so that counting needs no row.
CREATE INDEX sandboxes_alive ON sandboxes (team_id, started_at DESC, id, state)
WHERE state <> 'dead';
CREATE INDEX sandboxes_dead ON sandboxes (ended_at) WHERE state = 'dead';

CREATE TABLE idempotency_keys (
    team_id TEXT NOT NULL REFERENCES teams (id),
    key TEXT NOT NULL,
    request BLOB NOT NULL, -- digest of the body
    owner TEXT NOT NULL, -- the process that took the key
    state TEXT NOT NULL, -- in_progress, done, unknown
    answer TEXT,
    began_at INTEGER NOT NULL,
    PRIMARY KEY (team_id, key),
    CHECK ((state = 'done') = (answer IS NOT NULL))
) STRICT;
CREATE INDEX idempotency_keys_began ON idempotency_keys (began_at);

CREATE TABLE settings (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;
