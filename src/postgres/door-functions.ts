/**
 * One task: the functions of the record that open and shut a side: release, lower, ready, open, refuse, keep, and the sequences.
 *
 * Part of the record (record-schema.ts); what each may do, and why in that order, is written in docs/protocol.md, sections 3 to 5.
 */
export const DOOR_FUNCTIONS = `
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

-- The same on another shard than 0, for who has read on shard 0 that the epoch is aborted. What is sealed here by an earlier one was
-- aborted, too, or this epoch would not have begun on this side; its release did not reach this shard.
CREATE OR REPLACE FUNCTION cutover.release_shard(p_epoch bigint) RETURNS jsonb LANGUAGE plpgsql AS $function$
DECLARE
  v_fence cutover.fence;
BEGIN
  PERFORM set_config('synchronous_commit', 'on', true);
  UPDATE cutover.fence SET epoch = p_epoch, state = 'open', changed_at = clock_timestamp()
  WHERE epoch <= p_epoch AND state IN ('open', 'sealed');
  SELECT * INTO STRICT v_fence FROM cutover.fence;
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
  -- A later row that is open allows it as well: nobody else may know of that epoch after a fail-over.
  IF v_fence.epoch >= p_epoch AND v_fence.state = 'open' THEN
    PERFORM setval('cutover.fence_flag', 1, false);
  END IF;
  RETURN cutover.identity() || to_jsonb(v_fence) || jsonb_build_object('up', cutover.fence_is_up());
END
$function$;

-- Stamps the epoch on the side that waits to serve and writes the canary for the way back.
CREATE OR REPLACE FUNCTION cutover.ready(
  p_epoch bigint, p_nonce text, p_shard integer, p_subscription text, p_fenced boolean
) RETURNS jsonb LANGUAGE plpgsql AS $function$
DECLARE
  v_fence cutover.fence;
  v_gap text;
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
    -- Compared ahead of the pause, and again where the catalogue is another since.
    v_gap := CASE WHEN cutover.tables_changed(p_subscription) THEN cutover.destination_gap(p_subscription, p_fenced) END;
    IF v_gap IS NOT NULL THEN
      RAISE EXCEPTION '%', v_gap USING ERRCODE = 'CUT03';
    END IF;
    IF p_fenced THEN
      PERFORM cutover.probe_write();
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
    -- A standby that was promoted since may have been ready before it had the last rows. The marker of the seal, of each shard of
    -- the source, came behind them.
    IF (cutover.own_shard(v_decision.destination) ->> 'timeline')::int <> (cutover.identity() ->> 'timeline')::int AND (
      SELECT count(*) FROM cutover.marker WHERE epoch = v_decision.epoch AND nonce = v_decision.nonce AND kind = 'seal'
    ) <= coalesce(jsonb_array_length(v_decision.source -> 'otherShards'), 0) THEN
      RAISE EXCEPTION 'the destination failed over to a server that lacks the last writes of epoch %', v_decision.epoch
        USING ERRCODE = 'CUT02';
    END IF;
    INSERT INTO cutover.decision SELECT v_decision.* ON CONFLICT DO NOTHING;
    UPDATE cutover.fence SET state = 'open', changed_at = clock_timestamp() RETURNING * INTO v_fence;
  END IF;
  RETURN cutover.identity() || to_jsonb(v_fence);
END
$function$;

-- The door of the destination: shut for an epoch that was aborted, unless it is open already. A number may have been given again
-- after a fail-over: what another attempt has proven (its nonce) is left alone.
CREATE OR REPLACE FUNCTION cutover.refuse(p_epoch bigint, p_nonce text) RETURNS jsonb LANGUAGE plpgsql AS $function$
DECLARE
  v_fence cutover.fence;
BEGIN
  PERFORM set_config('synchronous_commit', 'on', true);
  SELECT * INTO STRICT v_fence FROM cutover.fence FOR UPDATE;
  IF v_fence.state <> 'open' AND v_fence.epoch <= p_epoch
    AND NOT (v_fence.epoch = p_epoch AND v_fence.state = 'ready' AND v_fence.nonce <> coalesce(p_nonce, v_fence.nonce)) THEN
    UPDATE cutover.fence SET epoch = p_epoch, state = 'refused', changed_at = clock_timestamp() RETURNING * INTO v_fence;
  END IF;
  RETURN cutover.identity() || to_jsonb(v_fence);
END
$function$;

-- The keeper: raises what must be up. A side that does not serve has its flag up, and where a decision it has lost in a
-- fail-over moved the traffic away (p_committed, as the other side has it), it is sealed as it was before.
CREATE OR REPLACE FUNCTION cutover.keep(p_committed jsonb) RETURNS jsonb LANGUAGE plpgsql AS $function$
DECLARE
  v_fence cutover.fence;
  v_decision cutover.decision := jsonb_populate_record(NULL::cutover.decision, p_committed);
  v_kept text;
BEGIN
  PERFORM set_config('synchronous_commit', 'on', true);
  SELECT * INTO STRICT v_fence FROM cutover.fence FOR UPDATE;
  IF v_decision.state IN ('committed', 'finalizing', 'finalized')
    AND cutover.own_shard(v_decision.source) IS NOT NULL THEN
    INSERT INTO cutover.decision SELECT v_decision.* ON CONFLICT (epoch) DO UPDATE SET state = excluded.state,
      decided_at = excluded.decided_at, reason = excluded.reason
      WHERE decision.nonce = excluded.nonce AND decision.state IN ('preparing', 'sealed');
    IF FOUND THEN
      v_kept := 'told what was decided';
    END IF;
    IF v_fence.epoch < v_decision.epoch THEN
      UPDATE cutover.fence SET epoch = v_decision.epoch, state = 'sealed', nonce = v_decision.nonce,
        seal_lsn = v_decision.seal_lsn, changed_at = clock_timestamp() RETURNING * INTO v_fence;
      v_kept := 'sealed again';
    END IF;
  END IF;
  IF v_fence.state <> 'open' AND NOT cutover.fence_is_up() THEN
    PERFORM setval('cutover.fence_flag', 1, true);
    v_kept := coalesce(v_kept, 'raised again');
  END IF;
  RETURN cutover.identity() || to_jsonb(v_fence) || jsonb_build_object('kept', v_kept);
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
