/**
 * One task: the functions of the record that decide an epoch: begin, seal, commit, abort.
 *
 * Part of the record (record-schema.ts); what each may do, and why in that order, is written in docs/protocol.md, section 3.
 */
const SEAL = `
-- Whether another session or a prepared transaction has a lock on a fenced table as whoever writes or alters it has; an autovacuum, which
-- does neither, has one too. Where nobody has, it
-- costs the same for a thousand tables as for one; locking them all does not: each lock is looked for in the slot of every
-- connection the server may have (PostgreSQL source, src/backend/storage/lmgr/README, "Fast Path Locking").
CREATE OR REPLACE FUNCTION cutover.writer_in_flight() RETURNS boolean LANGUAGE plpgsql AS $function$
DECLARE
  v_relation oid;
BEGIN
  FOR v_relation IN
    SELECT l.relation FROM pg_locks l
    WHERE l.locktype = 'relation' AND l.granted AND l.mode NOT IN ('AccessShareLock', 'RowShareLock')
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND l.pid IS DISTINCT FROM pg_backend_pid()
      AND (l.mode <> 'ShareUpdateExclusiveLock'
        OR NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = l.pid AND a.backend_type = 'autovacuum worker'))
  LOOP
    IF EXISTS (SELECT FROM pg_trigger WHERE tgrelid = v_relation AND tgname = 'cutover_fence_write') THEN
      RETURN true;
    END IF;
  END LOOP;
  RETURN false;
END
$function$;

-- A seal that fails takes its flag down again. It may: it has locked the fence row, and that is open.
CREATE OR REPLACE FUNCTION cutover.give_up_seal(p_problem text, p_code text) RETURNS void LANGUAGE plpgsql AS $function$
BEGIN
  PERFORM setval('cutover.fence_flag', 1, false);
  RAISE EXCEPTION '%', p_problem USING ERRCODE = p_code;
END
$function$;

CREATE OR REPLACE FUNCTION cutover.seal(
  p_epoch bigint, p_nonce text, p_shard integer, p_publication text, p_lock_timeout_ms integer, p_stream text, p_events jsonb
) RETURNS jsonb LANGUAGE plpgsql AS $function$
DECLARE
  v_fence cutover.fence;
  v_decision cutover.decision;
  v_checked cutover.checked_catalogue;
  v_fenced boolean;
  v_changed boolean;
  v_tables text;
  v_waited integer := 0;
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
  SELECT * INTO v_decision FROM cutover.decision WHERE epoch = p_epoch AND nonce = p_nonce;
  v_fenced := v_decision.fenced IS DISTINCT FROM false;
  IF (v_decision.source ->> 'timeline')::int <> (cutover.identity() ->> 'timeline')::int THEN
    RAISE EXCEPTION 'the source failed over since epoch % began', p_epoch USING ERRCODE = 'CUT02';
  END IF;
  -- 1. The clients are held, so that on most days nobody writes. Where somebody does, he may finish: the locks wait for him and bar new ones.
  SELECT * INTO v_checked FROM cutover.checked_catalogue WHERE stream = p_publication;
  IF v_fenced AND cutover.writer_in_flight() THEN
    v_tables := coalesce(v_checked.fenced, cutover.fenced_tables());
    EXECUTE 'LOCK TABLE ' || v_tables || ' IN SHARE ROW EXCLUSIVE MODE';
  END IF;
  -- 2. The fence row, read again and locked.
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
  -- 3. The flag: other sessions see it at once, even before this transaction ends. A statement takes its lock before it looks at the flag,
  -- so whoever got past it holds a lock that is seen now, and is waited for. Who comes later is refused.
  PERFORM setval('cutover.fence_flag', 1, true);
  WHILE v_fenced AND cutover.writer_in_flight() LOOP
    v_waited := v_waited + 1;
    IF v_waited > p_lock_timeout_ms THEN
      PERFORM cutover.give_up_seal('writers of fenced tables have not ended', 'lock_not_available');
    END IF;
    PERFORM pg_sleep(0.001);
  END LOOP;
  -- 4. What the move has is what is published, and that is what is fenced: compared ahead of the pause, and again where the
  -- catalogue is another since. Behind the flag: no row can come in between.
  v_changed := cutover.tables_changed(p_publication);
  v_gap := CASE WHEN v_changed THEN
    coalesce(cutover.table_gap(p_publication), CASE WHEN v_fenced THEN cutover.fence_gap(p_publication) END) END;
  IF v_gap IS NOT NULL THEN
    PERFORM cutover.give_up_seal(v_gap, 'CUT03');
  END IF;
  -- 5. The marker travels behind the last write to every subscription.
  INSERT INTO cutover.marker (cluster, shard, epoch, nonce, kind)
  VALUES (cutover.identity() ->> 'systemIdentifier', p_shard, p_epoch, p_nonce, 'seal');
  v_lsn := pg_current_wal_insert_lsn();
  -- 6. The decision, on shard 0 only, and the row that says it to the sessions of this side.
  IF p_shard = 0 THEN
    UPDATE cutover.decision SET state = 'sealed', sealed_at = clock_timestamp(), seal_lsn = v_lsn,
      publication = p_publication
    WHERE epoch = p_epoch AND state = 'preparing' AND nonce = p_nonce;
    IF NOT FOUND THEN
      PERFORM cutover.give_up_seal('epoch ' || p_epoch || ' is not being prepared', 'CUT02');
    END IF;
  END IF;
  UPDATE cutover.fence
  SET epoch = p_epoch, state = 'sealed', nonce = p_nonce, seal_lsn = v_lsn, changed_at = clock_timestamp();
  PERFORM cutover.note(p_stream, p_events);
  RETURN cutover.identity() || jsonb_build_object('lsn', v_lsn, 'repeated', false, 'tables',
    CASE WHEN NOT v_changed THEN v_checked.published ELSE (SELECT count(*) FROM pg_get_publication_tables(p_publication)) END);
END
$function$;
`;

const DECIDE = `
CREATE OR REPLACE FUNCTION cutover.begin(
  p_migration text, p_attempt text, p_nonce text, p_floor bigint, p_database text, p_peer text, p_source jsonb, p_destination jsonb,
  p_fenced boolean
) RETURNS jsonb LANGUAGE plpgsql AS $function$
DECLARE
  v_decision cutover.decision;
  v_fence cutover.fence;
BEGIN
  PERFORM set_config('synchronous_commit', 'on', true);
  LOCK TABLE cutover.decision IN SHARE ROW EXCLUSIVE MODE;
  SELECT * INTO v_decision FROM cutover.decision WHERE migration = p_migration AND attempt = p_attempt;
  IF NOT FOUND THEN
    SELECT * INTO v_decision FROM cutover.decision WHERE state IN ('preparing', 'sealed', 'finalizing') LIMIT 1;
    IF FOUND THEN
      RAISE EXCEPTION 'epoch % is still %', v_decision.epoch, v_decision.state USING ERRCODE = 'CUT02';
    END IF;
    -- A request that stalled while the traffic moved away, or an abort not yet carried out: an epoch begun here would only turn
    -- the nodes to a side that refuses writes.
    SELECT * INTO STRICT v_fence FROM cutover.fence;
    IF v_fence.state <> 'open' OR cutover.fence_is_up() THEN
      RAISE EXCEPTION 'this side does not serve (fence %, epoch %)', v_fence.state, v_fence.epoch USING ERRCODE = 'CUT02';
    END IF;
    IF EXISTS (SELECT FROM cutover.migration WHERE id = p_migration AND ending) THEN
      RAISE EXCEPTION 'the migration % is being removed', p_migration USING ERRCODE = 'CUT02';
    END IF;
    INSERT INTO cutover.decision (epoch, migration, attempt, nonce, state, database, peer, source, destination, fenced)
    VALUES (1 + greatest(p_floor, (SELECT epoch FROM cutover.fence), (SELECT coalesce(max(epoch), 0) FROM cutover.decision)),
      p_migration, p_attempt, p_nonce, 'preparing', p_database, p_peer, p_source, p_destination, p_fenced)
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
  v_gap text;
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
    -- A table made since the seal, which no lock could see, would stay behind with its rows.
    -- First those in the making: one that is committed in between is seen by the look that follows.
    v_gap := cutover.table_in_making();
    IF v_gap IS NULL AND cutover.tables_changed(v_decision.publication) THEN
      v_gap := cutover.table_gap(v_decision.publication);
    END IF;
    IF v_gap IS NOT NULL THEN
      RAISE EXCEPTION '%', v_gap USING ERRCODE = 'CUT03';
    END IF;
    IF v_decision.fenced IS DISTINCT FROM false THEN
      PERFORM cutover.probe_write();
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
  -- Not coalesce(): a row that was not found is a row of nulls, not null.
  RETURN cutover.identity() || CASE WHEN FOUND THEN to_jsonb(v_decision) ELSE '{"state": "unknown"}' END;
END
$function$;
`;

const END = `
-- The way to an end and a rollback's begin exclude each other: this takes the lock that begin takes, and needs that no later
-- epoch is under way or committed. Answers the state the epoch has afterwards.
CREATE OR REPLACE FUNCTION cutover.set_final(p_epoch bigint, p_from text, p_to text) RETURNS text LANGUAGE plpgsql AS $function$
BEGIN
  PERFORM set_config('synchronous_commit', 'on', true);
  LOCK TABLE cutover.decision IN SHARE ROW EXCLUSIVE MODE;
  UPDATE cutover.decision SET state = p_to WHERE epoch = p_epoch AND state = p_from
    AND NOT EXISTS (SELECT FROM cutover.decision d WHERE d.epoch > p_epoch AND d.state <> 'aborted');
  RETURN (SELECT state FROM cutover.decision WHERE epoch = p_epoch);
END
$function$;

-- Before a migration is removed: no epoch of it may begin any more. Raises where one is under way; p_ending = false takes it back.
CREATE OR REPLACE FUNCTION cutover.set_ending(p_migration text, p_ending boolean) RETURNS void LANGUAGE plpgsql AS $function$
DECLARE
  v_decision cutover.decision;
BEGIN
  PERFORM set_config('synchronous_commit', 'on', true);
  LOCK TABLE cutover.decision IN SHARE ROW EXCLUSIVE MODE;
  SELECT * INTO v_decision FROM cutover.decision
  WHERE p_ending AND migration = p_migration AND state IN ('preparing', 'sealed') LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'epoch % is still %', v_decision.epoch, v_decision.state USING ERRCODE = 'CUT02';
  END IF;
  UPDATE cutover.migration SET ending = p_ending WHERE id = p_migration;
END
$function$;
`;

export const DECISION_FUNCTIONS = SEAL + DECIDE + END;
