-- Kept files of a paused sandbox that lie in the bucket, as they are since its pause; NULL otherwise.
ALTER TABLE sandboxes ADD COLUMN stored_files TEXT;
CREATE INDEX sandboxes_stored ON sandboxes (stored_files) WHERE stored_files IS NOT NULL;
