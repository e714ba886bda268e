-- Who may do what: roles, what is granted to whom, keys for scripts; and the log of what was done.

CREATE TABLE roles (
    name TEXT PRIMARY KEY,
    description TEXT NOT NULL,
    -- JSON array of names.
    permissions TEXT NOT NULL,
    creator TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    revision BIGINT NOT NULL
);

CREATE TABLE grants (
    -- Made of the subject, the role and the scope.
    id TEXT PRIMARY KEY,
    -- `user` by name, `apikey` by id.
    subject_kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    role TEXT NOT NULL,
    -- A selector in its shortest form; empty: everything.
    scope TEXT NOT NULL,
    creator TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    revision BIGINT NOT NULL
);

-- Until now every user was an admin.
INSERT INTO grants (id, subject_kind, subject, role, scope, creator, created_at, revision)
SELECT 'admin-' || name, 'user', name, 'admin', '', '', created_at, 0 FROM users WHERE revoked_at = 0;

CREATE TABLE api_keys (
    id TEXT PRIMARY KEY,
    secret_hash BYTEA NOT NULL,
    description TEXT NOT NULL,
    -- JSON array of networks in CIDR notation.
    sources TEXT NOT NULL,
    creator TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    revoked_at BIGINT NOT NULL,
    last_used_at BIGINT NOT NULL,
    revision BIGINT NOT NULL
);

-- Calls that carry a key and may come again within a day, with their answers. In no backup.
CREATE TABLE idempotency (
    -- As in the audit log.
    caller TEXT NOT NULL,
    method TEXT NOT NULL,
    key TEXT NOT NULL,
    -- Of the request.
    digest TEXT NOT NULL,
    -- The secret of the answer is derived with it, and with a key that is not in the database.
    salt BYTEA NOT NULL,
    -- Encoded, without its secret.
    answer BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (caller, method, key)
);

-- The scope of whoever made it, in its shortest form; empty: everything. Never changes.
ALTER TABLE tokens ADD COLUMN scope TEXT NOT NULL DEFAULT '';
ALTER TABLE policies ADD COLUMN scope TEXT NOT NULL DEFAULT '';

-- A chain: the hash of each row is over that of the row before it, its number and its entry. The other columns say once more
-- what the entry says, to be searched by.
CREATE TABLE audit (
    seq BIGINT PRIMARY KEY,
    at BIGINT NOT NULL,
    caller TEXT NOT NULL,
    method TEXT NOT NULL,
    resource TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    outcome BIGINT NOT NULL,
    request_id TEXT NOT NULL,
    -- Encoded AuditEntry.
    entry BYTEA NOT NULL,
    hash BYTEA NOT NULL
);
CREATE INDEX audit_by_time ON audit (at);
CREATE INDEX audit_by_caller ON audit (caller, seq);
CREATE INDEX audit_by_resource ON audit (resource, seq);

-- Places in the chain that were signed.
CREATE TABLE audit_heads (
    seq BIGINT PRIMARY KEY,
    at BIGINT NOT NULL,
    payload BYTEA NOT NULL,
    key_id TEXT NOT NULL,
    signature BYTEA NOT NULL
);
