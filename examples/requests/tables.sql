-- The application's own tables. It inserts requests and reads answers; the pipeline reads requests and writes answers.
CREATE SCHEMA app;
CREATE TABLE app.requests (
    request_id uuid PRIMARY KEY, -- by the application: the same request twice is one
    -- Not now(), which is when the transaction began.
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    amount double precision NOT NULL,
    items integer NOT NULL,
    is_new_customer boolean NOT NULL
);
CREATE INDEX ON app.requests (requested_at); -- a run reads five minutes of it

CREATE TABLE app.answers (
    pip_pipeline text NOT NULL, -- these two say which answers are replaced by a delivery
    partition_key text NOT NULL,
    request_id uuid PRIMARY KEY,
    risk real NOT NULL,
    model_version bigint NOT NULL
);
CREATE INDEX ON app.answers (pip_pipeline, partition_key);
