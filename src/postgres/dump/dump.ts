/** One task: read the schema of a database with pg_dump. */
import { CutoverError, messageOf } from '../../errors/errors.js';
import { addressOf, type Endpoint } from '../endpoint.js';
import { runBuiltinDump, type DumpLimits } from './builtin.js';
import { runSystemDump } from './system.js';

export type DumpSection = 'pre-data' | 'post-data';

export interface DumpOptions {
  /** only this section; default both */
  readonly section?: DumpSection;
  /** schemas left out, by exact name; default `cutover` */
  readonly excludeSchemas?: readonly string[];
  /** a pg_dump of the system, at least as new as the server; default the built-in one */
  readonly pgDumpPath?: string;
  readonly limits?: Partial<DumpLimits>;
}

const DEADLINE_MS = 300_000;
const SIZE_BYTES_MAX = 256 * 1024 * 1024;
/** how long pg_dump queues for ACCESS SHARE on a table: it must not stand behind an ALTER TABLE, and others behind it */
const LOCK_WAIT_MS = 10_000;

/**
 * The schema of the database as SQL: no rows, no publications, subscriptions or tablespaces; owners, privileges,
 * comments and extensions are in it. It begins with a DROP … IF EXISTS for everything: see `splitSchema`.
 *
 * Reads in one snapshot and holds ACCESS SHARE on every table until it ends. May be called again.
 *
 * @throws CutoverError `schema_dump_failed` with pg_dump's own words
 */
export async function dumpSchema(endpoint: Endpoint, options: DumpOptions = {}): Promise<string> {
  const limits = { deadlineMs: DEADLINE_MS, sizeBytesMax: SIZE_BYTES_MAX, ...options.limits };
  const args = argumentsFor(options);
  try {
    return options.pgDumpPath === undefined
      ? await runBuiltinDump(endpoint, args, limits)
      : await runSystemDump(options.pgDumpPath, endpoint, args, limits);
  } catch (cause) {
    throw new CutoverError(
      'schema_dump_failed',
      { address: addressOf(endpoint), problem: messageOf(cause) },
      { cause },
    );
  }
}

/** Options known to pg_dump since 14 only, so that an older one of the system works as well. */
function argumentsFor(options: DumpOptions): string[] {
  const excluded = options.excludeSchemas ?? ['cutover', 'cutover_shards'];
  return [
    '--schema-only',
    // The DROP statements at the head are kept with what they drop: they undo a schema that was made.
    '--clean',
    '--if-exists',
    '--no-publications',
    '--no-subscriptions',
    '--no-tablespaces',
    `--lock-wait-timeout=${LOCK_WAIT_MS.toString()}`,
    ...(options.section === undefined ? [] : [`--section=${options.section}`]),
    ...excluded.map((name) => `--exclude-schema=${exactPattern(name)}`),
  ];
}

/** pg_dump reads a pattern; in double quotes every character stands for itself (PostgreSQL documentation, psql, Patterns). */
function exactPattern(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}
