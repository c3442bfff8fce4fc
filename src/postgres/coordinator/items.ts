/**
 * One task: describe a shard's schema as names and definitions, to be compared with another shard's, and with what a coordinator
 * was made from.
 */
import type { Connection } from '../connection.js';
import { notOfExtension, TABLES, USER_SCHEMAS } from './shape.js';

/** `table app.invoice column note` → `text not null`; long definitions as a hash. */
export type Items = ReadonlyMap<string, string>;

const HASH = (text: string): string => `left(encode(sha256(convert_to(${text}, 'UTF8')), 'hex'), 16)`;
/**
 * Privileges in an order of their own: the catalogue keeps them in the order of the grants. Without those of the roles by which a move's
 * streams are read: each shard has another, and they come and go.
 */
const PRIVILEGES = (acl: string): string =>
  `coalesce((SELECT string_agg(g::text, ',' ORDER BY g::text) FROM unnest(${acl}) g WHERE g::text !~ '^"?cutover_.+_replication"?='), '')`;

const ITEMS = `
  WITH shape AS MATERIALIZED (${TABLES})
  SELECT format('table %I.%I', s.schema, s.name) AS key,
    format('owner %I, privileges %s, row security %s, key %s', c.relowner::regrole::text, ${PRIVILEGES("coalesce(c.relacl, acldefault('r', c.relowner))")}, s."rowSecurity", s."primaryKey") AS definition
  FROM shape s JOIN pg_class c ON c.oid = s.oid
  UNION ALL
  SELECT format('table %I.%I column %s %I', s.schema, s.name, x.position, x.value ->> 'name'),
    concat_ws(' ', x.value ->> 'type', 'collate ' || (x.value ->> 'collation'), CASE WHEN x.value ->> 'notNull' = 'true' THEN 'not null' END)
  FROM shape s, json_array_elements(s.columns) WITH ORDINALITY AS x (value, position)
  UNION ALL
  SELECT format('table %s column %I privileges', a.attrelid::regclass, a.attname), ${PRIVILEGES('a.attacl')}
  FROM shape s JOIN pg_attribute a ON a.attrelid = s.oid WHERE a.attacl IS NOT NULL
  UNION ALL
  SELECT format('%s %I.%I', CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' ELSE 'type' END, n.nspname, c.relname),
    ${HASH(`concat_ws('|', CASE WHEN c.relkind <> 'c' THEN pg_get_viewdef(c.oid) END, c.relowner::regrole, c.reloptions, ${PRIVILEGES('c.relacl')},
      (SELECT string_agg(format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod)), ',' ORDER BY a.attnum)
       FROM pg_attribute a WHERE a.attrelid = c.oid AND NOT a.attisdropped))`)}
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('v', 'm', 'c') AND ${USER_SCHEMAS} AND ${notOfExtension('pg_class', 'c.oid')}
  UNION ALL
  SELECT 'function ' || p.oid::regprocedure, ${HASH(`concat_ws('|', CASE WHEN p.prokind <> 'a' THEN pg_get_functiondef(p.oid) END,
      p.proowner::regrole, ${PRIVILEGES('p.proacl')})`)}
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE ${USER_SCHEMAS} AND ${notOfExtension('pg_proc', 'p.oid')}
  UNION ALL
  SELECT format('type %I.%I', n.nspname, t.typname), ${HASH(`concat_ws('|', t.typtype, t.typowner::regrole, ${PRIVILEGES('t.typacl')},
      format_type(nullif(t.typbasetype, 0), t.typtypmod), t.typnotnull, t.typdefault,
      (SELECT string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid),
      (SELECT string_agg(pg_get_constraintdef(k.oid), ',' ORDER BY k.conname) FROM pg_constraint k WHERE k.contypid = t.oid),
      (SELECT r.rngsubtype::regtype FROM pg_range r WHERE r.rngtypid = t.oid))`)}
  FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
  WHERE t.typtype IN ('e', 'd', 'r', 'b') AND t.typcategory <> 'A' AND ${USER_SCHEMAS} AND ${notOfExtension('pg_type', 't.oid')}
  UNION ALL
  SELECT format('schema %I', n.nspname), format('owner %I, privileges %s', n.nspowner::regrole::text, ${PRIVILEGES("coalesce(n.nspacl, acldefault('n', n.nspowner))")})
  FROM pg_namespace n WHERE ${USER_SCHEMAS}
  UNION ALL
  SELECT format('extension %I', e.extname), e.extversion FROM pg_extension e
  UNION ALL
  SELECT format('collation %I.%I', n.nspname, c.collname), format('%s %s %s', c.collprovider, c.collcollate, c.collctype)
  FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace WHERE ${USER_SCHEMAS}
  UNION ALL
  SELECT 'operator ' || o.oid::regoperator, o.oprcode::text FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace
  WHERE ${USER_SCHEMAS} AND ${notOfExtension('pg_operator', 'o.oid')}
  UNION ALL
  SELECT format('setting of %s', coalesce(r.rolname, 'the database')), array_to_string(s.setconfig, ', ')
  FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole
  WHERE s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())`;

/** Everything of the shard that a coordinator is made from. */
export async function readItems(shard: Connection): Promise<Items> {
  const { rows } = await shard.query<{ key: string; definition: string }>(ITEMS);
  return new Map(rows.map((row) => [row.key, row.definition]));
}

/** How a sentence calls the two that are compared. */
export interface Sides {
  readonly left: string;
  readonly right: string;
}

/** One sentence for each difference, in the order of names; at most `max`. */
export function differences(left: Items, right: Items, sides: Sides, max: number): readonly string[] {
  const found: string[] = [];
  for (const key of [...new Set([...left.keys(), ...right.keys()])].sort()) {
    const [here, there] = [left.get(key), right.get(key)];
    if (here === there) continue;
    found.push(`${key} is ${said(here)} ${sides.left}, ${said(there)} ${sides.right}`);
    if (found.length === max) break;
  }
  return found;
}

function said(definition: string | undefined): string {
  return definition === undefined ? 'missing' : `"${definition}"`;
}
