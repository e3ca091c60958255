-- How many sandboxes of a team run by now: those on lost nodes do not, as far as anybody knows. All of
-- one moment, at READ COMMITTED that of the call.
CREATE FUNCTION sandboxes_running(team TEXT) RETURNS BIGINT
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    -- Where they run is not in the index, so those on lost nodes are taken off, if there are any such
    -- nodes.
    RETURN (
        SELECT COUNT(*) - CASE WHEN EXISTS (SELECT 1 FROM nodes WHERE lost_at IS NOT NULL) THEN (
            SELECT COUNT(*) FROM nodes n JOIN sandboxes x ON x.node = n.id
            WHERE n.lost_at IS NOT NULL AND x.team_id = team AND x.state = 'running') ELSE 0 END
        FROM sandboxes WHERE team_id = team AND state = 'running'
    );
END
$$;

-- As sandbox_has_room, which older binaries ask, and beside it: the lock is the same. That one counts
-- those on lost nodes as well; what callers made up for that was of an earlier moment.
CREATE FUNCTION sandbox_has_place(team TEXT, running_max BIGINT) RETURNS BOOLEAN
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    lock_key CONSTANT BIGINT := hashtextextended('running sandboxes of ' || team, 0);
    margin CONSTANT BIGINT := current_setting('max_connections')::BIGINT;
BEGIN
    IF running_max IS NULL THEN
        RETURN TRUE;
    END IF;
    -- Which way to go; what is between the two counts is far less than the margin.
    IF sandboxes_running(team) + 2 * margin < running_max THEN
        PERFORM pg_advisory_xact_lock_shared(lock_key);
        IF sandboxes_running(team) + margin >= running_max THEN
            -- A lock that is shared must not become one that is not: two would wait for each other.
            RAISE EXCEPTION 'sandboxes of team % became many at once', team
                USING ERRCODE = 'serialization_failure';
        END IF;
        RETURN TRUE;
    END IF;
    PERFORM pg_advisory_xact_lock(lock_key);
    RETURN sandboxes_running(team) < running_max;
END
$$;

-- Whether a node is no less there at the end of the caller's transaction, as a foreign key would have it.
-- One machine's own is in no row.
CREATE FUNCTION node_stays(node TEXT) RETURNS BOOLEAN
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM 1 FROM nodes WHERE id = node FOR KEY SHARE;
    RETURN FOUND OR NOT EXISTS (SELECT 1 FROM nodes);
END
$$;

-- Removes a node with which no sandbox ends. Whoever lets one go on there holds it by node_stays: so those
-- are looked at that there are once it is ours. At READ COMMITTED, where each look is of its own moment.
CREATE FUNCTION node_remove_unused(node TEXT) RETURNS BOOLEAN
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM 1 FROM nodes WHERE id = node FOR UPDATE;
    DELETE FROM nodes n WHERE n.id = node AND NOT EXISTS (
        SELECT 1 FROM sandboxes s WHERE s.node = n.id AND s.state <> 'dead'
        AND NOT (n.standing = 'draining' AND s.state = 'paused' AND s.stored_files IS NOT NULL));
    RETURN FOUND;
END
$$;

-- Binaries before schema 6 let a paused sandbox go on, and leave what is stored of the pause before in its
-- row: it could go on from that later.
INSERT INTO schema_compat (version, oldest_binary_schema) VALUES (7, 6);
