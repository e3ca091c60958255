-- Builds of templates of which anything was logged.
CREATE TABLE build_subjects (
    number  INTEGER PRIMARY KEY,
    build   TEXT NOT NULL,
    team    TEXT NOT NULL,
    -- The number of its next line.
    next    INTEGER NOT NULL,
    -- About what its lines take.
    bytes   INTEGER NOT NULL,
    -- When its last line was written.
    last_at INTEGER NOT NULL,
    UNIQUE (build, team)
);

-- Its lines, counted from 0.
CREATE TABLE build_logs (
    subject INTEGER NOT NULL,
    number  INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    -- 0 debug, 1 info, 2 warn, 3 error
    level   INTEGER NOT NULL,
    step    TEXT,
    message TEXT NOT NULL,
    PRIMARY KEY (subject, number)
) WITHOUT ROWID;
CREATE INDEX build_logs_at ON build_logs (subject, at, number);
