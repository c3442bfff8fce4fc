/**
 * One task: make a dumped schema on the destination, and take away what was made.
 *
 * What was made is written down beside the record (`cutover.schema_statement`) in the transaction that makes it, so that
 * a repeat knows its own work from somebody else's, and STOP removes nothing that was there before.
 */
import { createHash } from 'node:crypto';
import { CutoverError, messageOf } from '../errors/errors.js';
import { inTransaction, type Connection } from './connection.js';
import type { Statement } from './dump/parts.js';
import { findMigration } from './migrations.js';

export { splitSchema, type SchemaParts, type Statement } from './dump/parts.js';

export type StatementOutcome = 'applied' | 'existing';

export interface ApplyOptions {
  /** pass over a statement whose object is there already, whoever made it; otherwise only what an earlier call made */
  readonly ignoreExisting: boolean;
  /**
   * `one` (default): all or nothing, for what comes before the copy. `each`: a transaction a statement, for what comes
   * after it: no lock is held longer than one statement needs, and a repeat goes on where the last one ended.
   */
  readonly transaction?: 'one' | 'each';
  /** after each statement; what it throws ends the work */
  readonly onStatement?: (statement: Statement, outcome: StatementOutcome) => void;
}

export interface ApplyResult {
  readonly applied: number;
  readonly existing: number;
}

const LEDGER = `
  CREATE SCHEMA IF NOT EXISTS cutover;
  CREATE TABLE IF NOT EXISTS cutover.schema_statement (
    position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    hash text NOT NULL UNIQUE,
    migration text,
    drop_statement text
  )`;
const STATEMENT_CHARACTERS_MAX = 200;
/** deadlock_detected (PostgreSQL documentation, Appendix A); the server waits deadlock_timeout before each */
const DEADLOCK = '40P01';
const DEADLOCKS_MAX = 20;

/**
 * Runs the statements in order. May be called again, and twice at once: the second finds the work done.
 *
 * The connection must have a `queryTimeoutMs` that the longest index build fits in, and nobody else may use it meanwhile.
 *
 * @throws CutoverError `schema_failed` with the statement's first line and PostgreSQL's own words; with `one` nothing of
 *   this call is left behind
 */
export async function applySchema(
  connection: Connection,
  statements: readonly Statement[],
  options: ApplyOptions,
): Promise<ApplyResult> {
  await oneAtATime(connection, () => connection.query(LEDGER));
  const run = new ApplyRun(connection, options, await activeMigration(connection));
  if (options.transaction === 'each')
    for (const statement of statements) await undisturbed(() => oneAtATime(connection, () => run.apply(statement)));
  else
    await oneAtATime(connection, async () => {
      for (const statement of statements) await run.apply(statement);
    });
  return run.result;
}

/** A constraint locks two tables, and so does what is applied meanwhile: whoever is given up by the server did nothing, and tries again. */
async function undisturbed(work: () => Promise<void>): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await work();
      return;
    } catch (error) {
      const { cause } = error as { cause?: { code?: string } };
      if (cause?.code !== DEADLOCK || attempt >= DEADLOCKS_MAX) throw error;
    }
  }
}

/**
 * Removes what the migration that holds this database has made here, dependents first, in one transaction. May be called
 * again: then there is nothing left to remove.
 *
 * Never CASCADE: an object that somebody else built upon the schema is named, and nothing is removed.
 *
 * @returns how many objects were dropped
 * @throws CutoverError `schema_failed`, also when this side accepts application writes
 */
export async function dropAppliedSchema(connection: Connection): Promise<number> {
  const migration = await activeMigration(connection);
  const { rows } = await connection.query<{ known: boolean }>(
    `SELECT to_regclass('cutover.schema_statement') IS NOT NULL AS known`,
  );
  if (migration === null || rows[0]?.known !== true) return 0;
  return oneAtATime(connection, async () => {
    await connection.query(LEDGER);
    await expectClosed(connection);
    const drops = await connection.query<{ statement: string }>(
      `WITH gone AS (DELETE FROM cutover.schema_statement WHERE migration = $1 RETURNING position, drop_statement)
       SELECT drop_statement AS statement FROM gone WHERE drop_statement IS NOT NULL ORDER BY position DESC`,
      [migration],
    );
    for (const { statement } of drops.rows) await connection.query(statement).catch(failed(statement));
    return drops.rows.length;
  });
}

/** The last line of defence: a side that serves keeps its tables, whatever the caller believes. */
async function expectClosed(connection: Connection): Promise<void> {
  const { rows } = await connection.query<{ up: boolean }>('SELECT cutover.fence_is_up() AS up');
  if (rows[0]?.up === true) return;
  const problem = `database "${connection.database ?? ''}" accepts application writes, so its schema stays`;
  throw new CutoverError('schema_failed', { problem, statement: 'DROP' });
}

/** One call of `applySchema`: its counters, and the settings the open transaction has. */
class ApplyRun {
  readonly #connection: Connection;
  readonly #options: ApplyOptions;
  readonly #migration: string | null;
  #settings: ReadonlyMap<string, string> | undefined;
  #applied = 0;
  #existing = 0;

  constructor(connection: Connection, options: ApplyOptions, migration: string | null) {
    this.#connection = connection;
    this.#options = options;
    this.#migration = migration;
  }

  get result(): ApplyResult {
    return { applied: this.#applied, existing: this.#existing };
  }

  async apply(statement: Statement): Promise<void> {
    if (this.#options.transaction === 'each' || this.#settings !== statement.settings) {
      this.#settings = statement.settings;
      await this.#connection.query(settingsText(statement.settings));
    }
    const outcome = await this.#attempt(statement);
    if (outcome === 'applied') this.#applied += 1;
    else this.#existing += 1;
    this.#options.onStatement?.(statement, outcome);
  }

  async #attempt(statement: Statement): Promise<StatementOutcome> {
    await this.#connection.query('SAVEPOINT statement');
    try {
      await this.#connection.query(statement.text.replace(UNTOLD, 'CREATE EXTENSION '));
      await this.#connection.query({
        name: 'cutover_schema_note',
        text: `INSERT INTO cutover.schema_statement (hash, migration, drop_statement) VALUES ($1, $2, $3)
               ON CONFLICT (hash) DO UPDATE SET migration = excluded.migration, drop_statement = excluded.drop_statement`,
        values: [hashOf(statement), this.#migration, statement.drop],
      });
      await this.#connection.query('RELEASE statement');
      return 'applied';
    } catch (error) {
      if (!saysItExists(error, statement)) return failed(statement.text)(error);
      await this.#connection.query('ROLLBACK TO statement; RELEASE statement');
      if (await this.#mayExist(statement)) return 'existing';
      return failed(statement.text)(error);
    }
  }

  async #mayExist(statement: Statement): Promise<boolean> {
    // An extension is often there from the beginning; its comment then belongs to somebody else.
    const isExtension = statement.entry.type === 'EXTENSION' || statement.text.startsWith('COMMENT ON EXTENSION ');
    if (isExtension || this.#options.ignoreExisting) return true;
    // What another migration has made here is not this one's work.
    const { rows } = await this.#connection.query(
      'SELECT FROM cutover.schema_statement WHERE hash = $1 AND migration IS NOT DISTINCT FROM $2',
      [hashOf(statement), this.#migration],
    );
    return rows.length > 0;
  }
}

/** IF NOT EXISTS would not say whether the extension is ours to remove. */
const UNTOLD = /^CREATE EXTENSION IF NOT EXISTS /;
/** duplicate_schema, _object, _table, _function, _column (PostgreSQL documentation, Appendix A) */
const EXISTS: ReadonlySet<string> = new Set(['42P06', '42710', '42P07', '42723', '42701']);
/** dependent_objects_still_exist */
const DEPENDENT_OBJECTS = '2BP01';
const UNIQUE_VIOLATION = '23505';
/** Statements that PostgreSQL refuses in other words when they have been run before. */
const EXISTS_IN_OTHER_WORDS: readonly { readonly code: string; readonly statement: RegExp }[] = [
  { code: '42P16', statement: /\bADD CONSTRAINT [^]* PRIMARY KEY\b/ },
  { code: '42809', statement: /\bATTACH PARTITION\b/ },
  { code: '55000', statement: /\bADD GENERATED\b/ },
  { code: '42501', statement: /^COMMENT ON EXTENSION\b/ },
];

function saysItExists(error: unknown, statement: Statement): boolean {
  const { code, schema } = error as { code?: string; schema?: string };
  if (code === undefined) return false;
  // Some objects (text search configurations) are not looked for before their row is written.
  if (code === UNIQUE_VIOLATION) return schema === 'pg_catalog';
  return EXISTS.has(code) || EXISTS_IN_OTHER_WORDS.some((e) => e.code === code && e.statement.test(statement.text));
}

function failed(statement: string): (cause: unknown) => never {
  return (cause) => {
    const firstLine = (statement.split('\n', 1)[0] ?? '').slice(0, STATEMENT_CHARACTERS_MAX);
    const problem = messageOf(cause) + dependents(cause);
    throw new CutoverError('schema_failed', { problem, statement: firstLine }, { cause });
  };
}

/** Only here does PostgreSQL name in the detail what stands in the way; other details may show rows. */
function dependents(cause: unknown): string {
  const { code, detail } = cause as { code?: string; detail?: string };
  return code === DEPENDENT_OBJECTS && detail !== undefined ? `: ${detail.replaceAll('\n', ', ')}` : '';
}

function settingsText(settings: ReadonlyMap<string, string>): string {
  return [...settings].map(([name, value]) => `SET LOCAL ${name} = ${value}`).join('; ');
}

function hashOf(statement: Statement): string {
  return createHash('sha256').update(statement.text).digest('base64url');
}

async function activeMigration(connection: Connection): Promise<string | null> {
  return (await findMigration(connection))?.id ?? null;
}

/** One at a time in a database: of two that make the same object at once, the second would fail instead of finding it. */
function oneAtATime<T>(connection: Connection, work: () => Promise<T>): Promise<T> {
  return inTransaction(connection, async () => {
    await connection.query(`SELECT pg_advisory_xact_lock(hashtext('cutover.schema'))`);
    return work();
  });
}
