/**
 * One task: the functions of the fence in the schema `cutover`: the refusal itself, and what the seal compares before it decides.
 *
 * Part of the record (record-schema.ts); what they promise is written in docs/protocol.md.
 */
export const FENCE_FUNCTIONS = `
-- The words of the refusal. Called by the trigger function with its owner's rights: a search_path of the writer's own must not
-- decide what runs here. The row may be seen in a snapshot older than the seal.
CREATE OR REPLACE FUNCTION cutover.raise_refusal() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $function$
DECLARE
  v_fence cutover.fence;
  v_where text;
BEGIN
  SELECT * INTO v_fence FROM cutover.fence;
  SELECT CASE
      WHEN v_fence.peer_address = '' THEN ''
      WHEN v_fence.state = 'sealed' AND EXISTS (SELECT FROM cutover.decision d WHERE d.epoch = v_fence.epoch
        AND d.state IN ('committed', 'finalizing', 'finalized')) THEN ': it has moved to ' || v_fence.peer_address
      WHEN v_fence.state IN ('closed', 'ready', 'refused') THEN ': it is served by ' || v_fence.peer_address
      ELSE ': it is moving to ' || v_fence.peer_address END INTO v_where;
  RAISE EXCEPTION 'database "%" does not accept writes on this server%', current_database(), v_where
    USING ERRCODE = 'CUT01',
          DETAIL = 'It belongs to a migration and this side does not serve (epoch ' || v_fence.epoch || ', ' || v_fence.state || ').',
          HINT = 'Connect through the proxy, which knows the side that serves.';
END
$function$;

CREATE OR REPLACE FUNCTION cutover.refuse_write() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $function$
BEGIN
  -- Every write of the application passes here: nothing but the flag is looked at.
  IF (SELECT is_called FROM cutover.fence_flag) THEN
    PERFORM cutover.raise_refusal();
  END IF;
  RETURN NULL;
END
$function$;

-- The proof that the fence stands: every trigger enabled, and a write as an application would make it, to a table of the move, that must be refused. A
-- statement that finds no row fires the trigger all the same. Answers the table that was tried; null where none is fenced.
CREATE OR REPLACE FUNCTION cutover.probe_write() RETURNS text LANGUAGE plpgsql AS $function$
DECLARE
  v_table text;
BEGIN
  SELECT tgrelid::regclass::text INTO v_table FROM pg_trigger WHERE tgname = 'cutover_fence_write' AND tgenabled <> 'A' LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'a fence trigger of table % is disabled', v_table USING ERRCODE = 'CUT03';
  END IF;
  -- No order: whatever the catalogue gives first, without a sort over a thousand tables.
  SELECT format('%I.%I', n.nspname, c.relname) INTO v_table
  FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE t.tgname = 'cutover_fence_write' AND c.relkind = 'r' AND NOT c.relhasrules AND has_table_privilege(c.oid, 'DELETE') LIMIT 1;
  IF v_table IS NULL THEN
    RETURN NULL;
  END IF;
  BEGIN
    EXECUTE 'DELETE FROM ONLY ' || v_table || ' WHERE false';
  EXCEPTION WHEN SQLSTATE 'CUT01' THEN
    RETURN v_table;
  END;
  RAISE EXCEPTION 'the fence does not hold: a write to % was accepted', v_table USING ERRCODE = 'CUT03';
END
$function$;

-- Every fenced table as LOCK TABLE takes it, or null. Partitioned parents before their partitions, as a writer comes.
-- The settings: no plan whose time grows with the square of the tables, and each call runs the plan made before the pause.
CREATE OR REPLACE FUNCTION cutover.fenced_tables() RETURNS text LANGUAGE plpgsql
SET enable_nestloop = off SET jit = off SET plan_cache_mode = force_generic_plan AS $function$
BEGIN
  RETURN (SELECT string_agg(format('ONLY %I.%I', n.nspname, c.relname), ', ' ORDER BY c.relkind = 'r', c.oid)
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE t.tgname = 'cutover_fence_write');
END
$function$;

-- What must be equal: tables published, tables armed, and every trigger enabled. Answers a difference, or null.
-- min() and not LIMIT 1: there the planner takes what gives a first row soonest, and on most days there is none. With a thousand
-- tables that was a nested loop of two million comparisons, 500 ms instead of 4.
CREATE OR REPLACE FUNCTION cutover.fence_gap(p_publication text) RETURNS text LANGUAGE plpgsql
SET enable_nestloop = off SET jit = off SET plan_cache_mode = force_generic_plan AS $function$
BEGIN
  RETURN (
    WITH published AS MATERIALIZED (
      -- Not the view pg_publication_tables: it gives names, and turning a thousand names back into oids takes longer than all else.
      SELECT relid FROM pg_get_publication_tables(p_publication)
    ), armed AS MATERIALIZED (
      SELECT t.tgrelid AS relid,
        count(*) FILTER (WHERE t.tgname = 'cutover_fence_write' AND t.tgenabled = 'A') = 1
          AND count(*) FILTER (WHERE t.tgname = 'cutover_fence_truncate' AND t.tgenabled IN ('O', 'A')) = 1 AS whole
      FROM pg_trigger t WHERE t.tgname IN ('cutover_fence_write', 'cutover_fence_truncate') GROUP BY t.tgrelid
    ), gap AS (
      -- Sets first, the catalogue afterwards: only what differs is looked up, and that is next to nothing.
      SELECT 'table ' || relid::regclass || ' is published but not fenced' AS problem
      FROM (SELECT relid FROM published EXCEPT SELECT relid FROM armed) AS d
      WHERE (SELECT c.relnamespace FROM pg_class c WHERE c.oid = d.relid) IS DISTINCT FROM 'cutover'::regnamespace
      UNION ALL
      SELECT 'a fence trigger of table ' || relid::regclass || ' is disabled or missing' FROM armed WHERE NOT whole
      UNION ALL
      SELECT 'table ' || relid::regclass || ' is fenced but not published'
      FROM (SELECT relid FROM armed EXCEPT SELECT relid FROM published) AS d
      -- A partitioned parent holds no rows: it is fenced, its partitions are published.
      WHERE (SELECT c.relkind FROM pg_class c WHERE c.oid = d.relid) IS DISTINCT FROM 'p'
    )
    SELECT min(problem) FROM gap);
END
$function$;

-- A transaction that has not ended may be making a table and filling it: nobody sees the table, but everybody sees its lock.
CREATE OR REPLACE FUNCTION cutover.table_in_making() RETURNS text LANGUAGE sql AS $function$
  SELECT min(coalesce('pid ' || l.pid, 'a prepared transaction')) || ' is making a table or an index in a transaction that has not ended'
  FROM pg_locks l
  WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.granted AND l.relation >= 16384
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = l.relation)
$function$;

-- A table of the move that its publication does not carry, because it came later: a new table, a new partition, wherever the
-- move has every table or the user's publication is at hand. Sets first, as above. Null where there is none.
CREATE OR REPLACE FUNCTION cutover.table_gap(p_publication text) RETURNS text LANGUAGE plpgsql
SET enable_nestloop = off SET jit = off SET plan_cache_mode = force_generic_plan AS $function$
DECLARE
  v_users text;
  v_late oid[];
  v_making text;
BEGIN
  SELECT m.publication INTO v_users FROM cutover.migration m WHERE m.active;
  IF NOT FOUND OR p_publication IS NULL THEN
    RETURN NULL;
  END IF;
  v_making := cutover.table_in_making();
  IF v_making IS NOT NULL THEN
    RETURN v_making;
  END IF;
  IF v_users = '' THEN
    v_late := ARRAY(
      SELECT c.oid FROM pg_class c WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND c.oid >= 16384
      EXCEPT SELECT relid FROM pg_get_publication_tables(p_publication));
  ELSIF EXISTS (SELECT FROM pg_publication WHERE pubname = v_users) THEN
    v_late := ARRAY(
      SELECT coalesce(leaf.relid, t.relid) FROM pg_get_publication_tables(v_users) t
      LEFT JOIN LATERAL (SELECT p.relid::oid AS relid FROM pg_partition_tree(t.relid) p WHERE p.isleaf) leaf ON true
      EXCEPT SELECT relid FROM pg_get_publication_tables(p_publication));
  END IF;
  RETURN (
    SELECT min('table ' || c.oid::regclass || ' came after the streams were made and is not replicated')
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = ANY (v_late) AND n.nspname NOT IN ('cutover', 'cutover_shards', 'information_schema') AND n.nspname !~ '^pg_'
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'));
END
$function$;

-- The same question at the destination: every table that is applied to is in step and fenced. Answers a difference, or null.
CREATE OR REPLACE FUNCTION cutover.destination_gap(p_subscription text, p_fenced boolean) RETURNS text LANGUAGE plpgsql
SET enable_nestloop = off SET jit = off SET plan_cache_mode = force_generic_plan AS $function$
BEGIN
  RETURN (
    WITH applied AS MATERIALIZED (
      SELECT r.srrelid AS relid, r.srsubstate AS state FROM pg_subscription s JOIN pg_subscription_rel r ON r.srsubid = s.oid
      WHERE s.subname = p_subscription AND s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
    ), whole AS MATERIALIZED (
      SELECT tgrelid AS relid FROM pg_trigger WHERE tgname = 'cutover_fence_write' AND tgenabled = 'A'
      INTERSECT
      SELECT tgrelid FROM pg_trigger WHERE tgname = 'cutover_fence_truncate' AND tgenabled IN ('O', 'A')
    ), gap AS (
      SELECT 'table ' || relid::regclass || ' is not in step at the destination' AS problem FROM applied WHERE state <> 'r'
      UNION ALL
      SELECT 'a fence trigger of table ' || relid::regclass || ' is disabled or missing at the destination'
      FROM (SELECT relid FROM applied EXCEPT SELECT relid FROM whole) AS d
      WHERE p_fenced AND (SELECT c.relnamespace FROM pg_class c WHERE c.oid = d.relid) IS DISTINCT FROM 'cutover'::regnamespace
    )
    SELECT min(problem) FROM gap);
END
$function$;
`;
