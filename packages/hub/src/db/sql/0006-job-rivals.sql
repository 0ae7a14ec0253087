-- Two services with one queue: the machine from which the one that has the queue now took it while the other lived, and when.
-- Null where it was taken from nobody who lived.
alter table job_server add column rival text, add column rival_at timestamptz;
