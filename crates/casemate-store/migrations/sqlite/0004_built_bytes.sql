-- What a team's builds made at a node, read-only layers and kept files, and what each takes there.
-- Of those from before nothing is known.
CREATE TABLE built_bytes (
    name TEXT PRIMARY KEY, -- a layer's, or that of kept files
    team_id TEXT NOT NULL REFERENCES teams (id),
    bytes INTEGER NOT NULL, -- that none before it takes
    holds INTEGER NOT NULL, -- with what it shares
    noted_at INTEGER NOT NULL
) STRICT;
CREATE INDEX built_bytes_team ON built_bytes (team_id, bytes);
