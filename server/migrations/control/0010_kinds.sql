-- More of the configuration as documents.

-- For people, as those of policies: a JSON object.
ALTER TABLE roles ADD COLUMN labels TEXT NOT NULL DEFAULT '{}';
ALTER TABLE grants ADD COLUMN labels TEXT NOT NULL DEFAULT '{}';
