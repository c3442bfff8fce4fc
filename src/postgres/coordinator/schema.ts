/**
 * One task: make the schema of a coordinator from the dumped schema of a shard.
 *
 * pg_dump's order is kept: it is the order of dependencies. Only the tables are written anew, at their place in it.
 */
import type { Statement } from '../dump/parts.js';
import { splitSchema } from '../schema.js';
import type { CoordinatorSpec, LeftOut, TableShape } from './spec.js';
import { tableSql } from './tables.js';

/** What is made as a whole or not at all. */
export interface CoordinatorObject {
  /** `view app.late` */
  readonly object: string;
  readonly statements: readonly string[];
  /** `SET LOCAL` before them */
  readonly settings: ReadonlyMap<string, string>;
  /** tables stand on it; otherwise the coordinator goes without it when PostgreSQL refuses it */
  readonly required: boolean;
}

export interface CoordinatorSchema {
  readonly objects: readonly CoordinatorObject[];
  /** known beforehand; what PostgreSQL refuses comes on top */
  readonly leftOut: readonly LeftOut[];
}

type Placing = Pick<CoordinatorSpec, 'placementOf' | 'omnishardedShard'>;

/** Belongs to writing, to sequences or to the shards' own reach elsewhere: passed over without a word. */
const PASSED_OVER: ReadonlySet<string> = new Set([
  'COMMENT',
  'DATABASE',
  'DATABASE PROPERTIES',
  'DEFAULT',
  'DEFAULT ACL',
  'FOREIGN DATA WRAPPER',
  'SECURITY LABEL',
  'SEQUENCE',
  'SEQUENCE OWNED BY',
  'SERVER',
  'TABLE ATTACH',
  'USER MAPPING',
]);
/** What a table may be built on. */
const REQUIRED: ReadonlySet<string> = new Set([
  'SCHEMA',
  'EXTENSION',
  'SHELL TYPE',
  'TYPE',
  'DOMAIN',
  'COLLATION',
  'TABLE',
]);
const READS: ReadonlySet<string> = new Set(['VIEW', 'MATERIALIZED VIEW', 'FUNCTION', 'PROCEDURE']);
const OWNER = /^ALTER TABLE [^]+ OWNER TO [^]+;$/;
/**
 * A view that needs a primary key stands twice in a dump: as a view of nothing, and after the key as this. Here a table is made with
 * its key, so the view is made once.
 */
const REAL_VIEW = 'CREATE OR REPLACE VIEW ';
const RULE_OF_VIEW = / _RETURN$/;

/** Foreign partitions answer these otherwise than a table, without an error (docs/evidence/coordinator.md). */
const ANSWERED_OTHERWISE = /(?:\bFROM|\bJOIN|,)\s*ONLY\b|\bTABLESAMPLE\b|\b(?:ctid|xmin|xmax|cmin|cmax|tableoid)\b/i;

/**
 * What makes types, tables, views, functions and privileges, in order.
 *
 * @param dump the output of `dumpSchema` for a shard, both sections
 * @param tables those of the same shard at the same moment
 * @throws Error when the dump has a table that `tables` has not
 */
export async function coordinatorSchema(
  dump: string,
  tables: readonly TableShape[],
  placing: Placing,
  destinationVersion: number,
): Promise<CoordinatorSchema> {
  const { pre, post } = await splitSchema(dump, { destinationVersion });
  const shapes = new Map(tables.map((table) => [`${table.schema} ${table.name}`, table]));
  const realViews = new Map(
    post
      .filter(({ entry, text }) => entry.type === 'RULE' && text.startsWith(REAL_VIEW))
      .map(({ entry, text }) => [keyOf(entry.schema, entry.name.replace(RULE_OF_VIEW, '')), text]),
  );
  const objects: CoordinatorObject[] = [];
  const leftOut: LeftOut[] = [];
  // What waits for a key in the dump (a materialised view) stands behind the boundary there.
  for (const entry of byEntry([...pre, ...post.filter((statement) => READS.has(statement.entry.type))])) {
    const made = entry.type === 'TABLE' ? tableOf(entry, shapes, placing) : objectsOf(entry, realViews);
    if (typeof made === 'string') leftOut.push({ object: entry.object, reason: made });
    else objects.push(...made);
  }
  return { objects, leftOut };
}

interface Entry {
  readonly type: string;
  readonly key: string;
  readonly name: string;
  readonly object: string;
  readonly statements: readonly Statement[];
}

function byEntry(statements: readonly Statement[]): readonly Entry[] {
  const entries = new Map<number, Statement[]>();
  for (const statement of statements) {
    const same = entries.get(statement.entry.number);
    if (same) same.push(statement);
    else entries.set(statement.entry.number, [statement]);
  }
  return [...entries.values()].flatMap((ofEntry) => {
    const entry = ofEntry[0]?.entry;
    if (!entry) return [];
    const { type, name, schema } = entry;
    const whole = schema === null ? name : `${schema}.${name}`;
    const object = type === 'ACL' ? `privileges on ${whole}` : `${type.toLowerCase()} ${whole}`;
    return [{ type, name, key: keyOf(schema, name), object, statements: ofEntry }];
  });
}

function keyOf(schema: string | null, name: string): string {
  return `${schema ?? ''} ${name}`;
}

/** The object of an entry that is no table; a reason where it is left out. */
function objectsOf(entry: Entry, realViews: ReadonlyMap<string, string>): readonly CoordinatorObject[] | string {
  if (PASSED_OVER.has(entry.type) || (entry.type === 'ACL' && entry.name.startsWith('SEQUENCE '))) return [];
  if (entry.type === 'FOREIGN TABLE') return 'it is a foreign table on the shards';
  const [first, ...others] = entry.statements.map(({ text }) => text);
  const real = entry.type === 'VIEW' ? realViews.get(entry.key) : undefined;
  const statements = [real ?? first ?? '', ...others];
  if (READS.has(entry.type) && statements.some((text) => ANSWERED_OTHERWISE.test(text)))
    return 'it names ONLY, TABLESAMPLE or a system column, which mean something else over shards';
  return [{ object: entry.object, statements, settings: settingsOf(entry), required: REQUIRED.has(entry.type) }];
}

function tableOf(
  entry: Entry,
  shapes: ReadonlyMap<string, TableShape>,
  placing: Placing,
): readonly CoordinatorObject[] | string {
  const shape = shapes.get(entry.key);
  if (shape === undefined) throw new Error(`${entry.object} is in the dump and not in the catalogue`);
  if (shape.rowSecurity) return 'it has row security, and its policies may ask for settings that a shard does not see';
  const sql = tableSql(shape, placing.placementOf(shape), placing.omnishardedShard ?? 0);
  const owner = entry.statements.map(({ text }) => text).filter((text) => OWNER.test(text));
  const settings = settingsOf(entry);
  const table = { object: entry.object, statements: [...sql.create, ...owner], settings, required: true };
  if (sql.primaryKey === null) return [table];
  return [table, { object: `primary key of ${entry.object}`, statements: [sql.primaryKey], settings, required: false }];
}

function settingsOf(entry: Entry): ReadonlyMap<string, string> {
  return entry.statements[0]?.settings ?? new Map<string, string>();
}
