/**
 * One task: know, and keep known, of one database what decides whether a read may be shared: its plain tables and their keys, PostgreSQL's own functions
 * without effects, and what a user has defined that could change the meaning of a statement.
 *
 * Read when somebody first asks, and anew every half a minute while it is used, and when a change of the schema has been seen. Names count
 * without their schemas, so it does not matter which of them a search path finds: one that is not safe speaks for all.
 */
import { isDeepStrictEqual } from 'node:util';
import { withConnection, type Connection } from '../../postgres/connection.js';
import type { Endpoint } from '../../postgres/endpoint.js';

export interface ReadFacts {
  /** tables and partitioned tables without row security, foreign parts and columns of types that run somebody's own code */
  readonly tables: ReadonlySet<string>;
  /** PostgreSQL's own, none of them volatile, and nobody has one of that name */
  readonly functions: ReadonlySet<string>;
  /** names of functions and types that are not PostgreSQL's own */
  readonly own: ReadonlySet<string>;
  /** an operator or a cast runs code in a language other than C, or volatile code: no text tells where */
  readonly ownOperators: boolean;
  /** by table without descendants: its columns with a unique index of their own; every table of that name has them */
  readonly keys: ReadonlyMap<string, ReadonlySet<string>>;
}

const READ_AGAIN_MS = 30_000;
/** What is older is not believed. */
const BELIEVED_MS = 60_000;
/** Behind a failure, or a change of the schema, which may be about to be committed. */
const READ_SOON_MS = 1_000;
const READ_TIMEOUT_MS = 10_000;

/** A type is fine when reading or showing a value of it runs C code alone. A domain may have a CHECK of anybody's. */
const FACTS = `
WITH RECURSIVE native AS (
  SELECT p.oid FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
  WHERE l.lanname IN ('internal', 'c') AND p.provolatile <> 'v'),
fine AS (
  SELECT oid FROM pg_type
  WHERE typnamespace = 'pg_catalog'::regnamespace OR typtype = 'e'
    OR (typtype = 'b' AND typcategory <> 'A' AND typinput IN (SELECT oid FROM native) AND typoutput IN (SELECT oid FROM native))),
fine_or_array AS (
  SELECT oid FROM fine UNION SELECT oid FROM pg_type WHERE typcategory = 'A' AND typelem IN (SELECT oid FROM fine)),
above_foreign AS (
  SELECT i.inhparent AS oid FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE c.relkind = 'f'
  UNION SELECT i.inhparent FROM pg_inherits i JOIN above_foreign f ON f.oid = i.inhrelid),
own_functions AS (SELECT DISTINCT proname FROM pg_proc WHERE pronamespace <> 'pg_catalog'::regnamespace)
SELECT
  ARRAY(SELECT c.relname::text FROM pg_class c WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    GROUP BY c.relname HAVING bool_and(c.relkind IN ('r', 'p') AND NOT c.relrowsecurity AND c.relpersistence <> 't'
      AND c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
      AND c.oid NOT IN (SELECT oid FROM above_foreign)
      AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        AND a.atttypid NOT IN (SELECT oid FROM fine_or_array)))) AS tables,
  ARRAY(SELECT proname::text FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace
    GROUP BY proname HAVING bool_and(provolatile <> 'v' AND prolang IN (SELECT oid FROM pg_language WHERE lanname IN ('internal', 'sql')))
    EXCEPT SELECT proname::text FROM own_functions) AS functions,
  ARRAY(SELECT proname::text FROM own_functions UNION
    SELECT typname::text FROM pg_type WHERE typtype <> 'c' AND oid NOT IN (SELECT oid FROM fine_or_array)
      AND typnamespace <> 'information_schema'::regnamespace) AS own,
  EXISTS (SELECT FROM pg_operator WHERE oprnamespace <> 'pg_catalog'::regnamespace AND oprcode NOT IN (SELECT oid FROM native))
    OR EXISTS (SELECT FROM pg_cast c JOIN pg_proc p ON p.oid = c.castfunc
      WHERE p.pronamespace <> 'pg_catalog'::regnamespace AND p.oid NOT IN (SELECT oid FROM native)) AS own_operators,
  ARRAY(SELECT ARRAY[c.relname::text, a.attname::text]
    FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
    WHERE i.indisunique AND i.indisvalid AND i.indimmediate AND i.indnkeyatts = 1 AND i.indpred IS NULL
      AND c.relkind = 'r' AND NOT c.relhassubclass
    GROUP BY c.relname, a.attname HAVING count(DISTINCT c.oid) = (
      SELECT count(*) FROM pg_class n WHERE n.relname = c.relname AND n.relkind IN ('r', 'p', 'v', 'm', 'f', 'S'))
    ORDER BY 1) AS keys`;

interface FactsRow {
  readonly tables: readonly string[];
  readonly functions: readonly string[];
  readonly own: readonly string[];
  readonly own_operators: boolean;
  readonly keys: readonly (readonly [table: string, column: string])[];
}

/** Reads them anew; ten milliseconds for a thousand tables. */
export async function readFacts(connection: Connection): Promise<ReadFacts> {
  const { rows } = await connection.query<FactsRow>(FACTS);
  const [row] = rows;
  if (row === undefined) throw new Error('a SELECT without FROM has one row');
  return {
    tables: new Set(row.tables),
    functions: new Set(row.functions),
    own: new Set(row.own),
    ownOperators: row.own_operators,
    keys: keysOf(row.keys),
  };
}

function keysOf(rows: FactsRow['keys']): ReadFacts['keys'] {
  const keys = new Map<string, Set<string>>();
  for (const [table, column] of rows) keys.set(table, (keys.get(table) ?? new Set()).add(column));
  return keys;
}

export class KnownFacts {
  readonly #endpoint: () => Endpoint;
  #facts: ReadFacts | null = null;
  #readAtMs = -Infinity;
  #triedAtMs = -Infinity;
  #reading = false;

  constructor(endpoint: () => Endpoint) {
    this.#endpoint = endpoint;
  }

  /** What is known, the same object for as long as it is the same; null while nothing is, which a call of this ends soon. @param now of the monotonic clock */
  get(now: number): ReadFacts | null {
    const ageMs = now - this.#readAtMs;
    if (ageMs > READ_AGAIN_MS && now - this.#triedAtMs > READ_SOON_MS) void this.#read(now);
    return ageMs > BELIEVED_MS ? null : this.#facts;
  }

  /** The schema may have changed: nothing is believed until it was read again. */
  forget(): void {
    this.#readAtMs = -Infinity;
    this.#triedAtMs = performance.now();
  }

  /** Never rejects: as long as it fails no read is shared. */
  async #read(now: number): Promise<void> {
    if (this.#reading) return;
    this.#reading = true;
    this.#triedAtMs = now;
    try {
      const facts = await withConnection(this.#endpoint(), readFacts, { queryTimeoutMs: READ_TIMEOUT_MS });
      // Forgotten meanwhile: what was read may be from before the change.
      if (this.#triedAtMs !== now) return;
      this.#readAtMs = now;
      if (!isDeepStrictEqual(facts, this.#facts)) this.#facts = facts;
    } catch {
      // Tried again soon.
    } finally {
      this.#reading = false;
    }
  }
}
