-- More of the configuration as documents.

-- For people, as those of policies: a JSON object.
ALTER TABLE roles ADD COLUMN labels TEXT NOT NULL DEFAULT '{}';
ALTER TABLE grants ADD COLUMN labels TEXT NOT NULL DEFAULT '{}';

-- How tokens are made that are made by the name of one of these.
CREATE TABLE token_templates (
    name TEXT PRIMARY KEY,
    -- JSON of the TokenTemplateSpec.
    spec TEXT NOT NULL,
    -- For people: a JSON object.
    labels TEXT NOT NULL,
    -- Of whoever made it; empty: everything.
    scope TEXT NOT NULL,
    -- Who looks after it, for whoever prunes; empty: nobody in particular.
    owner TEXT NOT NULL,
    creator TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    revision BIGINT NOT NULL
);
