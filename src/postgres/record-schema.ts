/**
 * One task: the tables and functions of the protocol of record, as they stand in the schema `cutover` of every database
 * that belongs to a migration.
 *
 * What each function may do, and why in that order, is written in docs/protocol.md. The functions run with the caller's
 * rights, except the trigger function, which every application role must be able to run.
 */

import { FENCE_FUNCTIONS } from './fence-functions.js';

/** Raised by the number of the layout; a record written by a newer layout is refused. */
export const RECORD_VERSION = 1;

const TABLES = `
CREATE SCHEMA IF NOT EXISTS cutover;

CREATE TABLE IF NOT EXISTS cutover.layout (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  version integer NOT NULL
);
INSERT INTO cutover.layout (version) VALUES (${RECORD_VERSION.toString()}) ON CONFLICT DO NOTHING;

-- One row per epoch, never overwritten: the decision which side serves.
CREATE TABLE IF NOT EXISTS cutover.decision (
  epoch bigint PRIMARY KEY,
  migration text NOT NULL,
  attempt text NOT NULL,
  nonce text NOT NULL,
  state text NOT NULL CHECK (state IN ('preparing', 'sealed', 'committed', 'finalizing', 'finalized', 'aborted')),
  database text NOT NULL,
  peer text NOT NULL,
  source jsonb NOT NULL,
  destination jsonb NOT NULL,
  seal_lsn pg_lsn,
  reason text,
  begun_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  sealed_at timestamptz,
  decided_at timestamptz,
  UNIQUE (migration, attempt)
);

-- Whether this database accepts application writes, and by which epoch it was decided.
CREATE TABLE IF NOT EXISTS cutover.fence (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  epoch bigint NOT NULL DEFAULT 0,
  state text NOT NULL CHECK (state IN ('open', 'closed', 'sealed', 'ready', 'refused')),
  nonce text NOT NULL DEFAULT '',
  seal_lsn pg_lsn,
  changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- is_called = the fence is up. A sequence is not under MVCC: a snapshot older than the seal still sees it.
CREATE SEQUENCE IF NOT EXISTS cutover.fence_flag;

-- Rows only ever added, so that an apply worker never has to update a row it does not have.
CREATE TABLE IF NOT EXISTS cutover.marker (
  cluster text NOT NULL,
  shard integer NOT NULL,
  epoch bigint NOT NULL,
  nonce text NOT NULL,
  kind text NOT NULL CHECK (kind IN ('seal', 'canary')),
  written_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (cluster, shard, epoch, nonce, kind)
);

-- A database belongs to at most one migration that is not over.
CREATE TABLE IF NOT EXISTS cutover.migration (
  id text PRIMARY KEY,
  active boolean NOT NULL DEFAULT true,
  owner text NOT NULL,
  operation text,
  database text NOT NULL,
  peer text NOT NULL,
  source jsonb NOT NULL,
  destination jsonb NOT NULL,
  publication text NOT NULL,
  begun_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  ended_at timestamptz
);
CREATE UNIQUE INDEX IF NOT EXISTS migration_one_active ON cutover.migration ((true)) WHERE active;

CREATE TABLE IF NOT EXISTS cutover.event (
  stream text NOT NULL,
  sequence integer NOT NULL,
  type text NOT NULL,
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  data jsonb NOT NULL,
  PRIMARY KEY (stream, sequence)
);
`;

const IDENTITY = `
-- Who answers: a server that failed over has another timeline, a stranger another system identifier.
CREATE OR REPLACE FUNCTION cutover.identity() RETURNS jsonb LANGUAGE sql AS $function$
  SELECT jsonb_build_object(
    'systemIdentifier', (SELECT system_identifier::text FROM pg_control_system()),
    'databaseOid', (SELECT oid::bigint FROM pg_database WHERE datname = current_database()),
    'inRecovery', pg_is_in_recovery(),
    'timeline', CASE WHEN pg_is_in_recovery() THEN 0
      ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END)
$function$;

CREATE OR REPLACE FUNCTION cutover.fence_is_up() RETURNS boolean LANGUAGE sql AS $function$
  SELECT is_called FROM cutover.fence_flag
$function$;
`;

const EVENTS = `
-- Events are facts: the first writer of (stream, sequence) wins. A later one may only add what the first could not know when
-- it wrote inside its own transaction: how long that took.
CREATE OR REPLACE FUNCTION cutover.note(p_stream text, p_events jsonb) RETURNS void LANGUAGE sql AS $function$
  INSERT INTO cutover.event (stream, sequence, type, data)
  SELECT p_stream, (e ->> 'sequence')::integer, e ->> 'type', e -> 'data' FROM jsonb_array_elements(p_events) AS e
  ON CONFLICT (stream, sequence) DO UPDATE SET data = excluded.data || event.data
    WHERE event.type = excluded.type AND NOT event.data ? 'ms' AND excluded.data ? 'ms'
$function$;
`;

const SEAL = `
CREATE OR REPLACE FUNCTION cutover.seal(
  p_epoch bigint, p_nonce text, p_shard integer, p_publication text, p_lock_timeout_ms integer, p_stream text, p_events jsonb
) RETURNS jsonb LANGUAGE plpgsql AS $function$
DECLARE
  v_fence cutover.fence;
  v_tables text;
  v_gap text;
  v_lsn pg_lsn;
BEGIN
  PERFORM set_config('synchronous_commit', 'on', true), set_config('lock_timeout', p_lock_timeout_ms::text, true);
  -- A repeat of a seal that is already decided must not wait for writers again.
  SELECT * INTO STRICT v_fence FROM cutover.fence;
  IF v_fence.epoch = p_epoch AND v_fence.nonce = p_nonce AND v_fence.state = 'sealed' THEN
    RETURN cutover.identity() || jsonb_build_object('lsn', v_fence.seal_lsn, 'repeated', true,
      'tables', (SELECT count(*) FROM pg_get_publication_tables(p_publication)));
  END IF;
  IF v_fence.epoch >= p_epoch THEN
    RAISE EXCEPTION 'epoch % was already closed here by epoch % (%)', p_epoch, v_fence.epoch, v_fence.state
      USING ERRCODE = 'CUT02';
  END IF;
  -- 1. Wait for the writers in flight and bar new ones.
  v_tables := cutover.fenced_tables();
  IF v_tables IS NOT NULL THEN
    EXECUTE 'LOCK TABLE ' || v_tables || ' IN SHARE ROW EXCLUSIVE MODE';
  END IF;
  -- 2. The fence row, read again now that it is locked.
  SELECT * INTO STRICT v_fence FROM cutover.fence FOR UPDATE;
  IF v_fence.epoch >= p_epoch THEN
    IF v_fence.epoch = p_epoch AND v_fence.nonce = p_nonce AND v_fence.state = 'sealed' THEN
      RETURN cutover.identity() || jsonb_build_object('lsn', v_fence.seal_lsn, 'repeated', true,
        'tables', (SELECT count(*) FROM pg_get_publication_tables(p_publication)));
    END IF;
    RAISE EXCEPTION 'epoch % was already closed here by epoch % (%)', p_epoch, v_fence.epoch, v_fence.state
      USING ERRCODE = 'CUT02';
  END IF;
  IF v_fence.state <> 'open' THEN
    RAISE EXCEPTION 'this side does not serve (fence %, epoch %)', v_fence.state, v_fence.epoch USING ERRCODE = 'CUT02';
  END IF;
  -- 3. What is published is what is fenced.
  v_gap := cutover.fence_gap(p_publication);
  IF v_gap IS NOT NULL THEN
    RAISE EXCEPTION '%', v_gap USING ERRCODE = 'CUT03';
  END IF;
  -- 4. The marker travels behind the last write to every subscription.
  INSERT INTO cutover.marker (cluster, shard, epoch, nonce, kind)
  VALUES (cutover.identity() ->> 'systemIdentifier', p_shard, p_epoch, p_nonce, 'seal');
  v_lsn := pg_current_wal_insert_lsn();
  -- 5. The decision, on shard 0 only.
  IF p_shard = 0 THEN
    UPDATE cutover.decision SET state = 'sealed', sealed_at = clock_timestamp(), seal_lsn = v_lsn
    WHERE epoch = p_epoch AND state = 'preparing' AND nonce = p_nonce;
    IF NOT FOUND THEN
      RAISE EXCEPTION 'epoch % is not being prepared', p_epoch USING ERRCODE = 'CUT02';
    END IF;
  END IF;
  UPDATE cutover.fence
  SET epoch = p_epoch, state = 'sealed', nonce = p_nonce, seal_lsn = v_lsn, changed_at = clock_timestamp();
  -- 6. The flag last: other sessions see it at once, even before this transaction ends.
  PERFORM cutover.note(p_stream, p_events);
  PERFORM setval('cutover.fence_flag', 1, true);
  RETURN cutover.identity() || jsonb_build_object('lsn', v_lsn, 'repeated', false,
    'tables', (SELECT count(*) FROM pg_get_publication_tables(p_publication)));
END
$function$;
`;

const DECIDE = `
CREATE OR REPLACE FUNCTION cutover.begin(
  p_migration text, p_attempt text, p_nonce text, p_floor bigint, p_database text, p_peer text, p_source jsonb, p_destination jsonb
) RETURNS jsonb LANGUAGE plpgsql AS $function$
DECLARE
  v_decision cutover.decision;
BEGIN
  PERFORM set_config('synchronous_commit', 'on', true);
  LOCK TABLE cutover.decision IN SHARE ROW EXCLUSIVE MODE;
  SELECT * INTO v_decision FROM cutover.decision WHERE migration = p_migration AND attempt = p_attempt;
  IF NOT FOUND THEN
    SELECT * INTO v_decision FROM cutover.decision WHERE state IN ('preparing', 'sealed', 'finalizing') LIMIT 1;
    IF FOUND THEN
      RAISE EXCEPTION 'epoch % is still %', v_decision.epoch, v_decision.state USING ERRCODE = 'CUT02';
    END IF;
    INSERT INTO cutover.decision (epoch, migration, attempt, nonce, state, database, peer, source, destination)
    VALUES (1 + greatest(p_floor, (SELECT epoch FROM cutover.fence), (SELECT coalesce(max(epoch), 0) FROM cutover.decision)),
      p_migration, p_attempt, p_nonce, 'preparing', p_database, p_peer, p_source, p_destination)
    RETURNING * INTO v_decision;
  END IF;
  RETURN cutover.identity() || to_jsonb(v_decision);
END
$function$;

-- The point of no return. Answers the state the epoch has afterwards.
CREATE OR REPLACE FUNCTION cutover.commit(p_epoch bigint, p_nonce text, p_stream text, p_events jsonb)
RETURNS jsonb LANGUAGE plpgsql AS $function$
DECLARE
  v_fence cutover.fence;
  v_decision cutover.decision;
BEGIN
  PERFORM set_config('synchronous_commit', 'on', true);
  SELECT * INTO STRICT v_fence FROM cutover.fence FOR UPDATE;
  SELECT * INTO v_decision FROM cutover.decision WHERE epoch = p_epoch AND nonce = p_nonce FOR UPDATE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'epoch % is unknown here', p_epoch USING ERRCODE = 'CUT02';
  END IF;
  IF v_decision.state = 'sealed' THEN
    IF v_fence.epoch <> p_epoch OR v_fence.state <> 'sealed' OR NOT cutover.fence_is_up() THEN
      RAISE EXCEPTION 'the seal of epoch % does not stand (fence %, epoch %)', p_epoch, v_fence.state, v_fence.epoch
        USING ERRCODE = 'CUT02';
    END IF;
    IF (v_decision.source ->> 'timeline')::int <> (cutover.identity() ->> 'timeline')::int THEN
      RAISE EXCEPTION 'the source failed over since epoch % began', p_epoch USING ERRCODE = 'CUT02';
    END IF;
    UPDATE cutover.decision SET state = 'committed', decided_at = clock_timestamp() WHERE epoch = p_epoch
    RETURNING * INTO v_decision;
    PERFORM cutover.note(p_stream, p_events);
  END IF;
  RETURN cutover.identity() || to_jsonb(v_decision);
END
$function$;

-- Aborts what is not decided yet. Answers the state the epoch has afterwards: the caller acts on that, not on its wish.
CREATE OR REPLACE FUNCTION cutover.abort(p_epoch bigint, p_reason text) RETURNS jsonb LANGUAGE plpgsql AS $function$
DECLARE
  v_decision cutover.decision;
BEGIN
  PERFORM set_config('synchronous_commit', 'on', true);
  UPDATE cutover.decision SET state = 'aborted', reason = p_reason, decided_at = clock_timestamp()
  WHERE epoch = p_epoch AND state IN ('preparing', 'sealed');
  SELECT * INTO v_decision FROM cutover.decision WHERE epoch = p_epoch;
  RETURN cutover.identity() || coalesce(to_jsonb(v_decision), '{"state": "unknown"}');
END
$function$;
`;

const OPEN = `
-- Aborted: the durable row first. The tombstone (epoch, open) makes a late seal of this epoch fail.
CREATE OR REPLACE FUNCTION cutover.release(p_epoch bigint) RETURNS jsonb LANGUAGE plpgsql AS $function$
DECLARE
  v_fence cutover.fence;
BEGIN
  PERFORM set_config('synchronous_commit', 'on', true);
  SELECT * INTO STRICT v_fence FROM cutover.fence FOR UPDATE;
  IF v_fence.epoch <= p_epoch AND (v_fence.state = 'open' OR (v_fence.state = 'sealed' AND v_fence.epoch = p_epoch)) THEN
    IF EXISTS (SELECT FROM cutover.decision WHERE epoch = p_epoch AND state <> 'aborted') THEN
      RAISE EXCEPTION 'epoch % is not aborted', p_epoch USING ERRCODE = 'CUT02';
    END IF;
    UPDATE cutover.fence SET epoch = p_epoch, state = 'open', changed_at = clock_timestamp() RETURNING * INTO v_fence;
  END IF;
  RETURN cutover.identity() || to_jsonb(v_fence);
END
$function$;

-- The flag second, in a transaction of its own, once the row that allows it is durable.
CREATE OR REPLACE FUNCTION cutover.lower(p_epoch bigint) RETURNS jsonb LANGUAGE plpgsql AS $function$
DECLARE
  v_fence cutover.fence;
BEGIN
  PERFORM set_config('synchronous_commit', 'on', true);
  SELECT * INTO STRICT v_fence FROM cutover.fence FOR UPDATE;
  IF v_fence.epoch = p_epoch AND v_fence.state = 'open' THEN
    PERFORM setval('cutover.fence_flag', 1, false);
  END IF;
  RETURN cutover.identity() || to_jsonb(v_fence) || jsonb_build_object('up', cutover.fence_is_up());
END
$function$;

-- Stamps the epoch on the side that waits to serve and writes the canary for the way back.
CREATE OR REPLACE FUNCTION cutover.ready(p_epoch bigint, p_nonce text, p_shard integer) RETURNS jsonb LANGUAGE plpgsql AS $function$
DECLARE
  v_fence cutover.fence;
BEGIN
  PERFORM set_config('synchronous_commit', 'on', true);
  SELECT * INTO STRICT v_fence FROM cutover.fence FOR UPDATE;
  IF NOT (v_fence.epoch = p_epoch AND v_fence.nonce = p_nonce AND v_fence.state IN ('ready', 'open')) THEN
    IF v_fence.epoch >= p_epoch THEN
      RAISE EXCEPTION 'epoch % was already closed here by epoch % (%)', p_epoch, v_fence.epoch, v_fence.state
        USING ERRCODE = 'CUT02';
    END IF;
    IF v_fence.state = 'open' OR NOT cutover.fence_is_up() THEN
      RAISE EXCEPTION 'the destination accepts writes already (fence %, epoch %)', v_fence.state, v_fence.epoch
        USING ERRCODE = 'CUT03';
    END IF;
    UPDATE cutover.fence SET epoch = p_epoch, state = 'ready', nonce = p_nonce, changed_at = clock_timestamp()
    RETURNING * INTO v_fence;
  END IF;
  INSERT INTO cutover.marker (cluster, shard, epoch, nonce, kind)
  VALUES (cutover.identity() ->> 'systemIdentifier', p_shard, p_epoch, p_nonce, 'canary') ON CONFLICT DO NOTHING;
  RETURN cutover.identity() || to_jsonb(v_fence) || jsonb_build_object('lsn', pg_current_wal_insert_lsn());
END
$function$;

-- Only for who has read committed(epoch): the durable row and the copy of the decision; the flag follows by lower().
CREATE OR REPLACE FUNCTION cutover.open(p_decision jsonb) RETURNS jsonb LANGUAGE plpgsql AS $function$
DECLARE
  v_fence cutover.fence;
  v_decision cutover.decision := jsonb_populate_record(NULL::cutover.decision, p_decision);
BEGIN
  PERFORM set_config('synchronous_commit', 'on', true);
  IF v_decision.state NOT IN ('committed', 'finalizing', 'finalized') THEN
    RAISE EXCEPTION 'epoch % is %, not committed', v_decision.epoch, v_decision.state USING ERRCODE = 'CUT02';
  END IF;
  SELECT * INTO STRICT v_fence FROM cutover.fence FOR UPDATE;
  IF v_fence.epoch = v_decision.epoch AND v_fence.state = 'ready' THEN
    INSERT INTO cutover.decision SELECT v_decision.* ON CONFLICT DO NOTHING;
    UPDATE cutover.fence SET state = 'open', changed_at = clock_timestamp() RETURNING * INTO v_fence;
  END IF;
  RETURN cutover.identity() || to_jsonb(v_fence);
END
$function$;

-- The door of the destination: shut for an epoch that was aborted, unless it is open already.
CREATE OR REPLACE FUNCTION cutover.refuse(p_epoch bigint) RETURNS jsonb LANGUAGE plpgsql AS $function$
DECLARE
  v_fence cutover.fence;
BEGIN
  PERFORM set_config('synchronous_commit', 'on', true);
  SELECT * INTO STRICT v_fence FROM cutover.fence FOR UPDATE;
  IF v_fence.state <> 'open' AND v_fence.epoch <= p_epoch THEN
    UPDATE cutover.fence SET epoch = p_epoch, state = 'refused', changed_at = clock_timestamp() RETURNING * INTO v_fence;
  END IF;
  RETURN cutover.identity() || to_jsonb(v_fence);
END
$function$;

-- Only upwards in the direction of the increment, only while this side does not serve.
CREATE OR REPLACE FUNCTION cutover.advance_sequences(p_epoch bigint, p_names text[], p_values bigint[])
RETURNS jsonb LANGUAGE plpgsql SET enable_nestloop = off SET jit = off SET plan_cache_mode = force_generic_plan AS $function$
DECLARE
  v_fence cutover.fence;
  v_count integer;
BEGIN
  SELECT * INTO STRICT v_fence FROM cutover.fence FOR UPDATE;
  IF v_fence.state = 'open' OR v_fence.epoch > p_epoch THEN
    RETURN cutover.identity() || jsonb_build_object('advanced', 0, 'skipped', 'fence ' || v_fence.state);
  END IF;
  -- Materialised: each name is resolved once and each sequence read once before any is set.
  WITH named AS MATERIALIZED (
    SELECT i.name::regclass AS relation, i.value FROM unnest(p_names, p_values) AS i (name, value)
  ), wanted AS MATERIALIZED (
    SELECT n.relation, s.seqincrement > 0 AS upwards, pg_sequence_last_value(n.relation) AS last,
      CASE WHEN s.seqincrement > 0 THEN least(n.value, s.seqmax) ELSE greatest(n.value, s.seqmin) END AS value
    FROM named n JOIN pg_sequence s ON s.seqrelid = n.relation
  )
  SELECT count(setval(relation, value, true)) INTO v_count FROM wanted
  WHERE last IS NULL OR CASE WHEN upwards THEN value > last ELSE value < last END;
  RETURN cutover.identity() || jsonb_build_object('advanced', v_count);
END
$function$;
`;

/** The DDL of one database, to be run as one simple query: it is one transaction and may be repeated. */
export const RECORD_DDL = [TABLES, IDENTITY, EVENTS, FENCE_FUNCTIONS, SEAL, DECIDE, OPEN].join('\n');
