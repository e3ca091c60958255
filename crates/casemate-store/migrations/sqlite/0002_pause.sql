-- A paused sandbox: state 'paused', ends_at is when that was, kept says what of it.
ALTER TABLE sandboxes ADD COLUMN kept TEXT; -- memory, files; NULL unless paused
ALTER TABLE sandboxes ADD COLUMN auto_resume INTEGER NOT NULL DEFAULT 0; -- traffic wakes it
ALTER TABLE sandboxes ADD COLUMN ingress TEXT NOT NULL DEFAULT '{"v":1,"is":{}}';
ALTER TABLE sandboxes ADD COLUMN envs BLOB; -- sealed: what it is started anew with
