-- Times are milliseconds since 1970. Every row that is read by a sandbox goes by its number here.
CREATE TABLE subjects (
    number  INTEGER PRIMARY KEY,
    sandbox TEXT NOT NULL UNIQUE,
    team    TEXT NOT NULL,
    -- No row of it is younger.
    last_at INTEGER NOT NULL
);
CREATE INDEX subjects_last_at ON subjects (last_at);

-- Samples as they came, all sandboxes of one moment in a row; see src/sqlite/tail.rs.
CREATE TABLE sample_batches (
    id      INTEGER PRIMARY KEY,
    samples BLOB NOT NULL
);

-- Samples of one sandbox over some minutes.
CREATE TABLE sample_chunks (
    subject INTEGER NOT NULL,
    from_at INTEGER NOT NULL,
    to_at   INTEGER NOT NULL,
    samples BLOB NOT NULL,
    PRIMARY KEY (subject, from_at, to_at)
) WITHOUT ROWID;
CREATE INDEX sample_chunks_to_at ON sample_chunks (to_at);

CREATE TABLE team_points (
    team       TEXT NOT NULL,
    at         INTEGER NOT NULL,
    span_ms    INTEGER NOT NULL,
    concurrent INTEGER NOT NULL,
    started    INTEGER NOT NULL,
    PRIMARY KEY (team, at)
) WITHOUT ROWID;
CREATE INDEX team_points_at ON team_points (at);

CREATE TABLE events (
    number    INTEGER PRIMARY KEY,
    id        TEXT NOT NULL UNIQUE,
    kind      TEXT NOT NULL,
    at        INTEGER NOT NULL,
    team      TEXT NOT NULL,
    sandbox   TEXT NOT NULL,
    execution TEXT NOT NULL,
    template  TEXT NOT NULL,
    build     TEXT,
    data      TEXT NOT NULL
);
CREATE INDEX events_team ON events (team, at);
CREATE INDEX events_sandbox ON events (sandbox, at);
CREATE INDEX events_at ON events (at);

CREATE TABLE logs (
    number  INTEGER PRIMARY KEY,
    subject INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    -- 0 debug, 1 info, 2 warn, 3 error
    level   INTEGER NOT NULL,
    message TEXT NOT NULL,
    fields  TEXT NOT NULL
);
CREATE INDEX logs_subject ON logs (subject, at);
CREATE INDEX logs_at ON logs (at);
