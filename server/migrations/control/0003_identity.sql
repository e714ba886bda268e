-- Identity over time: tokens with bounds, certificates with a history, agents that are expected, revoked, deleted or copies.

ALTER TABLE tokens ADD COLUMN agent_id TEXT NOT NULL DEFAULT '';
-- CIDR notation; empty: any address.
ALTER TABLE tokens ADD COLUMN source TEXT NOT NULL DEFAULT '';
ALTER TABLE tokens ADD COLUMN allow_reenroll BOOLEAN NOT NULL DEFAULT FALSE;
-- Microseconds; 0: not ephemeral.
ALTER TABLE tokens ADD COLUMN ephemeral BIGINT NOT NULL DEFAULT 0;
-- `refuse`, `fork`; empty: as configured.
ALTER TABLE tokens ADD COLUMN on_clone TEXT NOT NULL DEFAULT '';
ALTER TABLE tokens ADD COLUMN revoked_at BIGINT NOT NULL DEFAULT 0;
-- Ids of the CAs whose pins were given out with it, separated by blanks.
ALTER TABLE tokens ADD COLUMN cas TEXT NOT NULL DEFAULT '';

ALTER TABLE redemptions ADD COLUMN source TEXT NOT NULL DEFAULT '';

-- Raised by whatever ends the trust in an agent; issuing requires it unchanged.
ALTER TABLE agents ADD COLUMN epoch BIGINT NOT NULL DEFAULT 0;
ALTER TABLE agents ADD COLUMN on_clone TEXT NOT NULL DEFAULT '';
ALTER TABLE agents ADD COLUMN ephemeral BIGINT NOT NULL DEFAULT 0;
ALTER TABLE agents ADD COLUMN readmit_until BIGINT NOT NULL DEFAULT 0;
ALTER TABLE agents ADD COLUMN fork_until BIGINT NOT NULL DEFAULT 0;
ALTER TABLE agents ADD COLUMN forked_from TEXT NOT NULL DEFAULT '';
-- JSON: the machine and boot that were seen last, and the boots before.
ALTER TABLE agents ADD COLUMN fingerprint TEXT NOT NULL DEFAULT '{}';
-- Version of the trust bundle it has acknowledged.
ALTER TABLE agents ADD COLUMN bundle_version BIGINT NOT NULL DEFAULT 0;
-- 1 when somebody pre-registered it.
ALTER TABLE agents ADD COLUMN preregistered BOOLEAN NOT NULL DEFAULT FALSE;

ALTER TABLE agent_certificates ADD COLUMN public_key TEXT NOT NULL DEFAULT '';
-- Id of the CA that issued it.
ALTER TABLE agent_certificates ADD COLUMN ca TEXT NOT NULL DEFAULT '';
-- Serial of the certificate that it was renewed with; empty: enrolled.
ALTER TABLE agent_certificates ADD COLUMN predecessor TEXT NOT NULL DEFAULT '';
ALTER TABLE agent_certificates ADD COLUMN used_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE agent_certificates ADD COLUMN superseded_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE agent_certificates ADD COLUMN revoked_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE agent_certificates ADD COLUMN revoke_reason TEXT NOT NULL DEFAULT '';
-- DER, for a repeated renewal.
ALTER TABLE agent_certificates ADD COLUMN certificate BYTEA;
CREATE INDEX agent_certificates_by_end ON agent_certificates (not_after);

-- Ids that were deleted stay taken.
CREATE TABLE deleted_agents (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    deleted_at BIGINT NOT NULL,
    deleted_by TEXT NOT NULL
);

ALTER TABLE users ADD COLUMN revoked_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE user_certificates ADD COLUMN ca TEXT NOT NULL DEFAULT '';
ALTER TABLE user_certificates ADD COLUMN revoked_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE user_certificates ADD COLUMN revoke_reason TEXT NOT NULL DEFAULT '';

CREATE INDEX events_by_agent ON events (agent_id, received_at);
