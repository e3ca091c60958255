-- Which server builds it; NULL for builds that older versions began.
ALTER TABLE builds ADD COLUMN owner TEXT COLLATE "C";

-- Whether one more sandbox of a team may run beside those that do, which holds until the end of the
-- caller's transaction. At READ COMMITTED, where each count sees what was committed before it.
--
-- Far below the limit callers go side by side: no more than there are connections can be between
-- their count and their commit. Near it they go one after the other, and behind those.
CREATE FUNCTION sandbox_has_room(team TEXT, running_max BIGINT) RETURNS BOOLEAN
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    lock_key CONSTANT BIGINT := hashtextextended('running sandboxes of ' || team, 0);
    margin CONSTANT BIGINT := current_setting('max_connections')::BIGINT;
    running BIGINT;
BEGIN
    IF running_max IS NULL THEN
        RETURN TRUE;
    END IF;
    -- Which way to go; what is between the two counts is far less than the margin.
    SELECT COUNT(*) INTO running FROM sandboxes WHERE team_id = team AND state = 'running';
    IF running + 2 * margin < running_max THEN
        PERFORM pg_advisory_xact_lock_shared(lock_key);
        SELECT COUNT(*) INTO running FROM sandboxes WHERE team_id = team AND state = 'running';
        IF running + margin >= running_max THEN
            -- A lock that is shared must not become one that is not: two would wait for each other.
            RAISE EXCEPTION 'sandboxes of team % became many at once', team
                USING ERRCODE = 'serialization_failure';
        END IF;
        RETURN TRUE;
    END IF;
    PERFORM pg_advisory_xact_lock(lock_key);
    SELECT COUNT(*) INTO running FROM sandboxes WHERE team_id = team AND state = 'running';
    RETURN running < running_max;
END
$$;

-- Versions 3 and 4 are one index each, and can say nothing more.
INSERT INTO schema_compat (version, oldest_binary_schema) VALUES (2, 1), (3, 1), (4, 1);
