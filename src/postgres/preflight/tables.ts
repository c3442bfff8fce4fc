/** One task: the checks on the tables that move, and on those that are at the destination already. */
import { CutoverError } from '../../errors/errors.js';
import type { TableName } from '../fence.js';
import { COMPARABLE, INCOMPARABLE_COLUMNS } from '../identity-plan.js';
import { publishedTables } from '../publications.js';
import {
  combined,
  failed,
  listed,
  ok,
  rowsOf,
  tableParameters,
  tablesToMove,
  TABLES_TO_MOVE,
  warning,
} from './check.js';
import type { Finding, PreflightCheck, PreflightContext, PreflightSide } from './check.js';

const displayed = (table: TableName): string => `${table.schema}.${table.table}`;

export const publication: PreflightCheck = {
  id: 'publication',
  title: 'The publication names the tables to move',
  async run(context) {
    const { source } = context;
    const every = await publishedTables(source.connection, null);
    if (context.publication === null)
      return every.length > 0
        ? ok(`Every table moves: ${every.length.toString()}.`)
        : failed('The source has no tables.', 'Name the right source, or create its tables first.');
    const named = await namedTables(context);
    if (named === null)
      return failed(
        `The publication "${context.publication}" does not exist on the source.`,
        'Create it, or leave it out to move every table.',
      );
    if (named.length === 0)
      return failed(`The publication "${context.publication}" has no tables.`, 'Add the tables that shall move.');
    const moved = new Set(named.map(displayed));
    const left = every.map(displayed).filter((name) => !moved.has(name));
    const findings: Finding[] = [ok(`${named.length.toString()} tables move.`)];
    if (left.length > 0)
      findings.push(
        warning(
          `These tables do not move with their rows: ${listed(left)}.`,
          `Add them to the publication "${context.publication}" if they shall.`,
        ),
      );
    const partial = await partlyPublished(source, context.publication);
    if (partial.length > 0)
      findings.push(
        warning(
          `The publication filters rows or columns of ${listed(partial)}.`,
          'A move takes whole tables: the filters are not used.',
        ),
      );
    return combined(findings);
  },
};

async function namedTables(context: PreflightContext): Promise<readonly TableName[] | null> {
  try {
    return await publishedTables(context.source.connection, context.publication);
  } catch (error) {
    if (error instanceof CutoverError && error.code === 'publication_unknown') return null;
    throw error;
  }
}

/** to_jsonb because 14 has neither row filters nor column lists. */
async function partlyPublished(source: PreflightSide, name: string): Promise<readonly string[]> {
  const rows = await rowsOf<{ table: string }>(
    source,
    `SELECT r.prrelid::regclass::text AS table FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
     WHERE p.pubname = $1 AND (to_jsonb(r) ->> 'prqual' IS NOT NULL OR to_jsonb(r) ->> 'prattrs' IS NOT NULL) ORDER BY 1`,
    [name],
  );
  return rows.map((row) => row.table);
}

interface IdentityRow {
  readonly table: string;
  /** pg_class.relreplident: d default, n nothing, f full, i index */
  readonly identity: string;
  readonly indexed: boolean;
  /** columns that cannot be compared */
  readonly incomparable: readonly string[];
}

const REPLICA_IDENTITY = `
  WITH ${COMPARABLE}
  SELECT c.oid::regclass::text AS table, c.relreplident AS identity,
    pg_get_replica_identity_index(c.oid) IS NOT NULL AS indexed,
    ${INCOMPARABLE_COLUMNS} AS incomparable
  FROM ${TABLES_TO_MOVE} ORDER BY 1`;

/** PostgreSQL documentation, 29.1.1: without a replica identity, UPDATE and DELETE on a published table are refused. */
export const replicaIdentity: PreflightCheck = {
  id: 'replica-identity',
  title: 'Every table has a replica identity',
  async run(context) {
    const rows = await rowsOf<IdentityRow>(
      context.source,
      REPLICA_IDENTITY,
      tableParameters(await tablesToMove(context)),
    );
    const without = rows
      .filter((row) => row.identity !== 'f' && !row.indexed && context.prepared?.includes(row.table) !== true)
      .map((row) => row.table);
    const full = rows.filter((row) => row.identity === 'f');
    const incomparable = full.filter((row) => row.incomparable.length > 0);
    const findings: Finding[] = [];
    if (without.length > 0)
      findings.push(
        failed(
          `Without a replica identity, publishing these tables would make PostgreSQL refuse the application's UPDATE and DELETE: ${listed(without)}.`,
          'Give each a primary key that is not deferrable, or ALTER TABLE … REPLICA IDENTITY USING INDEX or FULL.',
        ),
      );
    if (incomparable.length > 0)
      findings.push(
        failed(
          `REPLICA IDENTITY FULL compares every column, and some have a type without equality: ${listed(
            incomparable.map((row) => `${row.table} (${row.incomparable.join(', ')})`),
          )}.`,
          'Give these tables a primary key or a unique index as replica identity.',
        ),
      );
    if (full.length > incomparable.length)
      findings.push(
        warning(
          `REPLICA IDENTITY FULL: each change searches the whole table at the destination: ${listed(full.map((row) => row.table))}.`,
          'Give large tables a primary key.',
        ),
      );
    return findings.length > 0 ? combined(findings) : ok(`All ${rows.length.toString()} tables have one.`);
  },
};

export const unloggedTables: PreflightCheck = {
  id: 'unlogged-tables',
  title: 'Unlogged tables',
  async run({ source }) {
    const rows = await rowsOf<{ table: string }>(
      source,
      `SELECT c.oid::regclass::text AS table FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
       WHERE c.relkind = 'r' AND c.relpersistence = 'u' AND n.nspname NOT IN ('cutover', 'cutover_shards') ORDER BY 1`,
    );
    if (rows.length === 0) return ok('There are none.');
    return warning(
      `These are made at the destination, but empty: ${listed(rows.map((r) => r.table))}.`,
      'ALTER TABLE … SET LOGGED for those whose rows must move.',
    );
  },
};

const TABLES_READ_MAX = 100;

export const destinationEmpty: PreflightCheck = {
  id: 'destination-empty',
  title: 'The destination is empty',
  async run({ destination }) {
    const tables = await rowsOf<{ table: string; pages: boolean }>(
      destination,
      `SELECT format('%I.%I', n.nspname, c.relname) AS table, c.relkind = 'r' AND pg_relation_size(c.oid) > 0 AS pages
       FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
       WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname NOT IN ('cutover', 'cutover_shards', 'information_schema') AND n.nspname !~ '^pg_'
         AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
       ORDER BY 2 DESC, 1`,
    );
    if (tables.length === 0) return ok('It has no tables.');
    const filled: string[] = [];
    for (const { table } of tables.filter((t) => t.pages).slice(0, TABLES_READ_MAX))
      if ((await rowsOf(destination, `SELECT FROM ${table} LIMIT 1`)).length > 0) filled.push(table);
    if (filled.length > 0)
      return failed(
        `The destination has rows already, which the copy would meet: ${listed(filled)}.`,
        'Name an empty database, or remove these tables.',
      );
    return warning(
      `The destination has tables without rows: ${listed(tables.map((t) => t.table))}.`,
      'They are kept as they are and must have the columns of the source; drop them to have them made.',
    );
  },
};
