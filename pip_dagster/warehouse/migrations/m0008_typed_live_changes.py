"""Programs read columns of a live change instead of its text; `why` is for people only.

Older changes have only texts. They are read here, once, and each text counts only where nothing else in the ledger
contradicts it, because a user may have written the same words:

- A rollback is known by its run id.
- A pinned version or features as known must be in the text as the program wrote it. The backfill's own record must
  agree, or, for a run without a backfill, the version that scored.
- An experiment must be in the text as the program wrote it, with its checks recorded beside the change.
"""

SQL = r"""
-- kind: scored, pinned or rollback. pinned_version, as_known: what a person requested. experiment: the split or canary
-- that decided the arms.
ALTER TABLE ledger.live_changes ADD COLUMN kind VARCHAR;
ALTER TABLE ledger.live_changes ADD COLUMN pinned_version BIGINT;
ALTER TABLE ledger.live_changes ADD COLUMN as_known BOOLEAN;
ALTER TABLE ledger.live_changes ADD COLUMN experiment VARCHAR;
UPDATE ledger.live_changes AS c
SET kind = t.kind, pinned_version = t.pinned_version, as_known = t.as_known, experiment = t.experiment
FROM (
  WITH backfilled AS (
    SELECT p.pipeline, p.partition_key, p.run_id, bool_or(b.as_known) AS as_known,
           max(b.model_version) FILTER (b.pinned) AS pinned_version
    FROM ledger.backfill_partitions p JOIN ledger.backfills b ON b.backfill_id = p.backfill_id
    GROUP BY ALL
  ), decided AS (
    SELECT DISTINCT entry_id FROM ledger.checks WHERE section = 'split' AND expectation_id <> 'arms'
  ), texts AS (
    SELECT c.change_id, starts_with(c.run_id, 'rollback-') AS is_rollback, b.run_id IS NOT NULL AS is_backfill,
           b.pinned_version AS backfill_version, b.as_known AS backfill_as_known, s.model_version,
           try_cast(regexp_extract(
             c.why, '^pinned to v([0-9]+)( as known at each partition''s close)?(: |; |$)', 1) AS BIGINT
           ) AS text_version,
           regexp_matches(
             c.why, '^(pinned to v[0-9]+ )?as known at each partition''s close(: |; |$)') AS text_as_known,
           CASE WHEN d.entry_id IS NOT NULL THEN nullif(regexp_extract(
             c.why,
             '(?:^|; )((?:split|canary) (?:''[^'']*''|"[^"]*")): (?:all rows are the champion''s|[^;]*[0-9]%)$', 1), '')
           END AS experiment
    FROM ledger.live_changes c
    LEFT JOIN ledger.scorings s ON s.scoring_id = c.scoring_id
    LEFT JOIN backfilled b
      ON b.pipeline = c.pipeline AND b.partition_key = c.partition_key AND b.run_id = c.run_id
    LEFT JOIN decided d ON d.entry_id = c.change_id
  ), requests AS (
    SELECT *, NOT is_rollback AND text_as_known AND CASE
             WHEN is_backfill THEN backfill_as_known ELSE coalesce(text_version = model_version, true)
           END AS as_known,
           CASE WHEN NOT is_rollback AND text_version = CASE
             WHEN is_backfill THEN backfill_version ELSE model_version
           END THEN text_version END AS pinned_version
    FROM texts
  )
  SELECT change_id, pinned_version, as_known, CASE WHEN NOT is_rollback THEN experiment END AS experiment,
         CASE WHEN is_rollback THEN 'rollback'
              WHEN pinned_version IS NOT NULL OR as_known THEN 'pinned'
              ELSE 'scored' END AS kind
  FROM requests
) t
WHERE t.change_id = c.change_id;
CREATE OR REPLACE VIEW ledger.live AS
  SELECT pipeline, partition_key, arg_max(scoring_id, change_id) AS scoring_id, max(change_id) AS change_id,
         max(made_at) AS live_since, arg_max_null(kind, change_id) AS kind,
         arg_max_null(pinned_version, change_id) AS pinned_version, arg_max_null(as_known, change_id) AS as_known,
         arg_max_null(experiment, change_id) AS experiment
  FROM ledger.live_changes GROUP BY pipeline, partition_key;
"""
