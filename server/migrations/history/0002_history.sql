-- Metrics as they came: one row for each batch, until the metric store takes them over.

CREATE TABLE metric_batches (
    agent_id TEXT NOT NULL,
    at BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    payload BYTEA NOT NULL,
    bytes BIGINT NOT NULL
);
CREATE INDEX metric_batches_by_agent ON metric_batches (agent_id, received_at, at);
CREATE INDEX metric_batches_by_received ON metric_batches (received_at);

CREATE TABLE metric_marks (
    agent_id TEXT NOT NULL,
    spool_id TEXT NOT NULL,
    seq BIGINT NOT NULL,
    used_at BIGINT NOT NULL,
    PRIMARY KEY (agent_id, spool_id)
);

CREATE TABLE history_usage (
    kind TEXT PRIMARY KEY,
    row_count BIGINT NOT NULL,
    byte_count BIGINT NOT NULL
);
INSERT INTO history_usage (kind, row_count, byte_count) VALUES ('metrics', 0, 0);
