-- Configuration as documents: whose it is, and what it has been.

-- Who looks after it, for whoever prunes; empty: nobody in particular.
ALTER TABLE policies ADD COLUMN owner TEXT NOT NULL DEFAULT '';
ALTER TABLE roles ADD COLUMN owner TEXT NOT NULL DEFAULT '';
ALTER TABLE grants ADD COLUMN owner TEXT NOT NULL DEFAULT '';

-- What each resource was from one change to the next, also of those that are gone.
CREATE TABLE manifest_versions (
    -- Of the change.
    revision BIGINT PRIMARY KEY,
    -- `Check`, `Role`, `Grant`.
    kind TEXT NOT NULL,
    -- Of a grant its id.
    name TEXT NOT NULL,
    at BIGINT NOT NULL,
    -- As in the audit log; empty: not known.
    caller TEXT NOT NULL,
    -- `create`, `update`, `delete`.
    action TEXT NOT NULL,
    -- JSON of the Manifest; empty for a deletion.
    manifest TEXT NOT NULL
);
CREATE INDEX manifest_versions_by_name ON manifest_versions (kind, name, revision);
CREATE INDEX manifest_versions_deleted ON manifest_versions (at) WHERE action = 'delete';
