-- What of the nodes' layers and kept files lies in the bucket.
CREATE TABLE artifacts (
    name TEXT COLLATE "C" PRIMARY KEY, -- of the layer or of the kept files
    team_id TEXT COLLATE "C" NOT NULL, -- whose it was when it was stored
    artifact TEXT COLLATE "C" NOT NULL, -- the bucket's reference
    bytes BIGINT NOT NULL
);
CREATE INDEX artifacts_team ON artifacts (team_id);
-- NULL: only the server that took it has it.
ALTER TABLE uploads ADD COLUMN artifact TEXT COLLATE "C";

INSERT INTO schema_compat (version, oldest_binary_schema) VALUES (5, 1);
