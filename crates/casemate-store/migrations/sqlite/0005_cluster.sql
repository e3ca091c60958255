-- What several servers and nodes know of each other. On one machine these stay empty; the schema is
-- the same, so that its rows can move to PostgreSQL. Times are the database's own.
CREATE TABLE servers (
    id TEXT PRIMARY KEY, -- another one after each start of its process
    address TEXT,
    version TEXT NOT NULL,
    since INTEGER NOT NULL,
    seen_at INTEGER NOT NULL
) STRICT;

-- What one of them does for all.
CREATE TABLE leases (
    name TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    generation INTEGER NOT NULL, -- grows whenever it begins anew
    ends_at INTEGER NOT NULL
) STRICT;

CREATE TABLE nodes (
    id TEXT PRIMARY KEY,
    address TEXT NOT NULL, -- host:port
    labels TEXT NOT NULL, -- {"v":1,"is":{names: values}}
    isolation TEXT NOT NULL,
    standing TEXT NOT NULL, -- open, cordoned, draining
    generation INTEGER NOT NULL, -- grows when it is fenced
    joined_at INTEGER NOT NULL,
    lost_at INTEGER -- NULL while it is here
) STRICT;

CREATE TABLE join_tokens (
    id TEXT PRIMARY KEY,
    hash BLOB NOT NULL, -- SHA-256
    role TEXT NOT NULL, -- node, edge
    expires_at INTEGER NOT NULL,
    uses_left INTEGER -- NULL for any number
) STRICT;
