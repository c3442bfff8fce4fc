/** One task: ask a server, inside the transaction that moves rows of a table, what it must know of the table; say why they cannot be moved. */
import { quoteLiteral } from '../postgres/connection.js';
import type { WrittenRelation } from '../sharding/statement-verdict.js';
import { moveLock, nameOf } from './move-lock.js';

/** Of one shard; the same on all of them. */
export interface MoveFacts {
  readonly isolation: string;
  /** what is read by texts has the same value on the other side */
  readonly texts: boolean;
  /** whose form of money, where that is a type */
  readonly money: string;
  readonly kind: string | null;
  readonly inherits: boolean;
  readonly rules: boolean;
  readonly security: boolean;
  readonly triggers: boolean;
  readonly referenced: boolean;
  /** schema and name of tables that its foreign keys refer to */
  readonly references: readonly (readonly [schema: string, table: string])[];
  readonly published: boolean;
  /** name and type of those that can be given, by name */
  readonly columns: readonly (readonly [name: string, type: string])[];
}

/** Why rows are not moved; docs/routing.md has each of them. */
export const MOVE_PROBLEMS = {
  isolation: 'the transaction is not READ COMMITTED',
  texts: 'DateStyle, IntervalStyle, extra_float_digits or array_nulls would change values on the way',
  encoding: 'client_encoding, or the encoding of a shard, is not UTF8',
  kind: 'its table is neither an ordinary nor a partitioned one, or other tables inherit from it',
  rules: 'its table has rules',
  security: 'row security policies hold for the user',
  triggers: 'its table has triggers of INSERT or DELETE, which one database would not fire, or deferrable ones',
  referenced: 'foreign keys refer to its table',
  references: 'a foreign key of its table refers to a table that not every shard has',
  published: 'its table is in a publication, and the streams of two shards have no order between them',
  differs: 'its table is not the same on all shards',
} as const;

export type MoveProblem = keyof typeof MOVE_PROBLEMS;

/** As the client reads it. */
export function moveRefusal(problem: MoveProblem): string {
  return `it moves rows to other shards, and ${MOVE_PROBLEMS[problem]}`;
}

/**
 * Takes the lock of {@link moveLock}, then the one that keeps the table as it is until the transaction ends; then tells of it. The last
 * value that is answered is JSON. The transaction has its number before: a stream whose slot is made meanwhile waits for its end, and
 * does not carry it.
 */
export function factsQuery(table: WrittenRelation): string {
  const name = nameOf(table);
  return `${moveLock(table, 'move')};
  SELECT pg_catalog.pg_current_xact_id();
  LOCK TABLE ${name} IN ROW EXCLUSIVE MODE;
  ${FACTS.replace('$table', () => quoteLiteral(name))}`;
}

/** Of pg_trigger.tgtype (src/include/catalog/pg_trigger.h): 4 INSERT, 8 DELETE, 16 UPDATE. Those of the schema cutover only refuse. */
const FACTS = String.raw`
  WITH t AS (SELECT pg_catalog.to_regclass($table) AS oid),
    tree AS (SELECT oid FROM t UNION SELECT p.relid FROM t, pg_catalog.pg_partition_tree(t.oid) AS p),
    around AS (SELECT oid FROM tree UNION SELECT a.relid FROM t, pg_catalog.pg_partition_ancestors(t.oid) AS a)
  SELECT pg_catalog.json_build_object(
    'isolation', current_setting('transaction_isolation'),
    'texts', current_setting('DateStyle') ~ '^ISO' AND current_setting('IntervalStyle') <> 'sql_standard'
      AND current_setting('extra_float_digits')::int >= 1 AND current_setting('array_nulls')::bool,
    'money', current_setting('lc_monetary'),
    'kind', (SELECT CASE WHEN bool_and(c.relkind IN ('r', 'p')) THEN max(c.relkind::text) END FROM tree JOIN pg_catalog.pg_class c USING (oid)),
    'inherits', EXISTS (SELECT FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
      WHERE i.inhparent IN (SELECT oid FROM tree) AND NOT c.relispartition),
    'rules', EXISTS (SELECT FROM pg_catalog.pg_rewrite WHERE ev_class IN (SELECT oid FROM tree)),
    'security', row_security_active(t.oid),
    'triggers', EXISTS (SELECT FROM pg_catalog.pg_trigger g JOIN pg_catalog.pg_proc f ON f.oid = g.tgfoid
      WHERE g.tgrelid IN (SELECT oid FROM tree) AND NOT g.tgisinternal AND g.tgenabled <> 'D'
        AND f.pronamespace IS DISTINCT FROM to_regnamespace('cutover') AND (g.tgtype & 12 <> 0 OR (g.tgtype & 16 <> 0 AND g.tgdeferrable))),
    'referenced', EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE contype = 'f' AND confrelid IN (SELECT oid FROM around)),
    'references', (SELECT coalesce(json_agg(DISTINCT jsonb_build_array(n.nspname, c.relname)), '[]') FROM pg_catalog.pg_constraint k
      JOIN pg_catalog.pg_class c ON c.oid = k.confrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      WHERE k.contype = 'f' AND k.conrelid IN (SELECT oid FROM around)),
    'published', EXISTS (SELECT FROM pg_catalog.pg_publication_tables p WHERE (p.schemaname, p.tablename) IN
      (SELECT n.nspname, c.relname FROM around JOIN pg_catalog.pg_class c USING (oid) JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace)),
    'columns', (SELECT json_agg(json_build_array(a.attname, format_type(a.atttypid, a.atttypmod)) ORDER BY a.attname) FROM pg_catalog.pg_attribute a
      WHERE a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''))
  FROM t`;

/**
 * Why rows of this table cannot be moved; null when they can.
 *
 * @param all of each shard concerned
 * @param isEverywhere whether every shard has all rows of a table
 */
export function moveProblem(
  all: readonly MoveFacts[],
  isEverywhere: (schema: string, table: string) => boolean,
): MoveProblem | null {
  for (const facts of all) {
    if (facts.isolation !== 'read committed') return 'isolation';
    if (!facts.texts) return 'texts';
    if (facts.kind === null || facts.inherits) return 'kind';
    for (const problem of FLAGS) if (facts[problem]) return problem;
    if (!facts.references.every(([schema, table]) => isEverywhere(schema, table))) return 'references';
  }
  const [first, ...others] = all.map(({ columns, money }) => JSON.stringify([columns, money]));
  return others.every((other) => other === first) ? null : 'differs';
}

const FLAGS = ['rules', 'security', 'triggers', 'referenced', 'published'] as const;
