-- Inventory, trust, policies, states, results and events. Times are microseconds since 1970 UTC; ids are lower-case UUIDs;
-- documents are JSON; what travelled as a protobuf message is kept as its bytes.

CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

-- One row. Its lock makes the order of commits the order of revisions.
CREATE TABLE revision (
    id BIGINT PRIMARY KEY,
    n BIGINT NOT NULL
);
INSERT INTO revision (id, n) VALUES (1, 0);

CREATE TABLE changes (
    revision BIGINT PRIMARY KEY,
    at BIGINT NOT NULL,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    op TEXT NOT NULL
);

CREATE TABLE users (
    name TEXT PRIMARY KEY,
    role TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE user_certificates (
    serial TEXT PRIMARY KEY,
    user_name TEXT NOT NULL,
    not_after BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    secret_hash BYTEA NOT NULL,
    description TEXT NOT NULL,
    labels TEXT NOT NULL,
    uses BIGINT NOT NULL,
    uses_left BIGINT NOT NULL,
    creator TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    revision BIGINT NOT NULL
);

-- What a token was redeemed for, so that a repeated request gets the same certificate.
CREATE TABLE redemptions (
    token_id TEXT NOT NULL,
    public_key TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    certificate BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (token_id, public_key)
);

CREATE TABLE agents (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    agent_labels TEXT NOT NULL,
    token_labels TEXT NOT NULL,
    operator_labels TEXT NOT NULL,
    status TEXT NOT NULL,
    status_reason TEXT NOT NULL,
    status_since BIGINT NOT NULL,
    last_seen BIGINT NOT NULL,
    version TEXT NOT NULL,
    facts TEXT NOT NULL,
    warnings TEXT NOT NULL,
    policy_status BYTEA NOT NULL,
    enrolled_at BIGINT NOT NULL,
    revision BIGINT NOT NULL
);

CREATE TABLE agent_certificates (
    serial TEXT PRIMARY KEY,
    agent_id TEXT NOT NULL,
    not_after BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX agent_certificates_by_agent ON agent_certificates (agent_id);

CREATE TABLE policies (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    version BIGINT NOT NULL,
    labels TEXT NOT NULL,
    payload BYTEA NOT NULL,
    key_id TEXT NOT NULL,
    signature BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    PRIMARY KEY (kind, name)
);

-- The highest version ever signed for a name; it outlives the policy.
CREATE TABLE policy_versions (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    version BIGINT NOT NULL,
    PRIMARY KEY (kind, name)
);

CREATE TABLE states (
    agent_id TEXT NOT NULL,
    check_name TEXT NOT NULL,
    state BIGINT NOT NULL,
    hard BOOLEAN NOT NULL,
    attempt BIGINT NOT NULL,
    state_since BIGINT NOT NULL,
    freshness BIGINT NOT NULL,
    freshness_since BIGINT NOT NULL,
    last_run BIGINT NOT NULL,
    last_received BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    result BYTEA NOT NULL,
    revision BIGINT NOT NULL,
    PRIMARY KEY (agent_id, check_name)
);

CREATE TABLE results (
    agent_id TEXT NOT NULL,
    check_name TEXT NOT NULL,
    at BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    state BIGINT NOT NULL,
    result BYTEA NOT NULL,
    bytes BIGINT NOT NULL
);
CREATE INDEX results_by_check ON results (agent_id, check_name, at);
CREATE INDEX results_by_received ON results (received_at);

CREATE TABLE events (
    at BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    agent_id TEXT NOT NULL,
    reason TEXT NOT NULL,
    severity BIGINT NOT NULL,
    message TEXT NOT NULL,
    metadata TEXT NOT NULL,
    bytes BIGINT NOT NULL
);
CREATE INDEX events_by_received ON events (received_at);

-- How far each spool's lane has been stored.
CREATE TABLE result_marks (
    agent_id TEXT NOT NULL,
    spool_id TEXT NOT NULL,
    seq BIGINT NOT NULL,
    used_at BIGINT NOT NULL,
    PRIMARY KEY (agent_id, spool_id)
);

-- Rows and bytes of each kind of history, kept by the transactions that add and remove.
CREATE TABLE control_usage (
    kind TEXT PRIMARY KEY,
    row_count BIGINT NOT NULL,
    byte_count BIGINT NOT NULL
);
INSERT INTO control_usage (kind, row_count, byte_count) VALUES ('results', 0, 0), ('events', 0, 0);
