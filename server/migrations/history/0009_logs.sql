-- Logs: one row for each entry, so that they are read by time, by agent and by age.
CREATE TABLE logs (
    agent_id TEXT NOT NULL,
    at BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    severity BIGINT NOT NULL,
    source TEXT NOT NULL,
    unit TEXT NOT NULL,
    message TEXT NOT NULL,
    fields TEXT NOT NULL,
    bytes BIGINT NOT NULL
);
CREATE INDEX logs_by_agent ON logs (agent_id, at);
CREATE INDEX logs_by_time ON logs (at);
CREATE INDEX logs_by_received ON logs (received_at);

CREATE TABLE log_marks (
    agent_id TEXT NOT NULL,
    spool_id TEXT NOT NULL,
    seq BIGINT NOT NULL,
    used_at BIGINT NOT NULL,
    PRIMARY KEY (agent_id, spool_id)
);

INSERT INTO history_usage (kind, row_count, byte_count) VALUES ('logs', 0, 0);
