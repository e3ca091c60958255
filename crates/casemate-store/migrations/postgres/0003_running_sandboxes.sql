-- no-transaction
-- A team's running sandboxes are counted before each new one.
CREATE INDEX CONCURRENTLY IF NOT EXISTS sandboxes_running ON sandboxes (team_id) WHERE state = 'running';
