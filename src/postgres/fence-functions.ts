/**
 * One task: the functions of the fence in the schema `cutover`: the refusal itself, and what the seal compares before it decides.
 *
 * Part of the record (record-schema.ts); what they promise is written in docs/protocol.md.
 */
export const FENCE_FUNCTIONS = `
CREATE OR REPLACE FUNCTION cutover.refuse_write() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $function$
BEGIN
  IF (SELECT is_called FROM cutover.fence_flag) THEN
    RAISE EXCEPTION 'database "%" does not accept writes on this server', current_database()
      USING ERRCODE = 'CUT01',
            DETAIL = 'It belongs to a migration and this side does not serve (epoch '
              || (SELECT epoch::text || ', ' || state FROM cutover.fence) || ').',
            HINT = 'Connect through the proxy, which knows the side that serves.';
  END IF;
  RETURN NULL;
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
`;
