-- How many samples a batch has; 0 for those that were stored before they were counted.
ALTER TABLE metric_batches ADD COLUMN samples BIGINT NOT NULL DEFAULT 0;
