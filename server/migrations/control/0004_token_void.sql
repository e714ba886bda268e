-- Why a token is revoked, when it was not an operator who did it.
ALTER TABLE tokens ADD COLUMN revoke_reason TEXT NOT NULL DEFAULT '';
