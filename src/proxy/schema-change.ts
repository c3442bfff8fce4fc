/**
 * One task: tell from a text whether it changes the schema of a table that a migration carries, and make the statement that is sent
 * to the server in its place.
 *
 * Read by leading keywords, statement by statement; no parser. What is hidden in a function, in `DO` or in a `SELECT … INTO` passes:
 * the comparison of schemas before a switch finds it (schema-fingerprint.ts). Forms: PostgreSQL documentation, ALTER TABLE,
 * CREATE INDEX, CREATE TABLE, CREATE TRIGGER, DROP TABLE.
 */
import { CutoverError } from '../errors/errors.js';
import type { SchemaGuard } from './contract.js';
import { raising } from './raising.js';
import type { LoggedInClient, SessionContext } from './session-context.js';
import { statementsOf } from './set-statement.js';

/** Most texts are done with here. */
const MENTIONED = /\b(?:create|alter|drop)\b/i;
const TEXT_CHARACTERS_MAX = 65_536;
const CHANGE =
  /^(CREATE|ALTER|DROP)\s+(?:OR\s+REPLACE\s+)?((?:(?:GLOBAL|LOCAL|TEMP|TEMPORARY|UNLOGGED|UNIQUE|CONSTRAINT)\s+)*)(TABLE|INDEX|TRIGGER|TYPE|DOMAIN|SCHEMA)\b(.*)$/is;
const NAME = String.raw`(?:"(?:[^"]|"")*"|[\p{L}_][\p{L}\p{N}_$]*)`;
const QUALIFIED = new RegExp(String.raw`${NAME}(?:\s*\.\s*${NAME})*`, 'gu');
const ON_TABLE = new RegExp(String.raw`\bON\s+(?:ONLY\s+)?(${NAME}(?:\s*\.\s*${NAME})*)`, 'iu');
/** Words that may stand between the kind of an object and its name. */
const BEFORE_NAME = /^\s*(?:(?:IF\s+(?:NOT\s+)?EXISTS|ONLY|CONCURRENTLY)\s+)*/i;
/** What follows the names of a DROP. */
const AFTER_NAMES = /\b(?:CASCADE|RESTRICT)\b.*$/is;

/** What the text would do, as `ALTER TABLE`; null when it may pass. */
export function schemaChangeIn(sql: string, guard: SchemaGuard): string | null {
  if (sql.length > TEXT_CHARACTERS_MAX || !MENTIONED.test(sql)) return null;
  for (const statement of statementsOf(sql)) {
    const change = changeOf(statement, guard);
    if (change !== null) return change;
  }
  return null;
}

function changeOf(statement: string, { tables }: SchemaGuard): string | null {
  const [, verb = '', words = '', kind = '', rest = ''] = CHANGE.exec(statement) ?? [];
  if (verb === '' || /\bTEMP(?:ORARY)?\b/i.test(words)) return null;
  const change = `${verb} ${kind}`.toUpperCase();
  const names = rest.replace(BEFORE_NAME, '');
  const carried = (written: string): boolean => tables.has(lastPart(written));
  switch (change) {
    case 'CREATE TABLE':
      return /^"?pg_temp"?\s*\./i.test(names) ? null : change;
    case 'ALTER TABLE':
      return carried(firstName(names)) ? change : null;
    case 'DROP TABLE':
      return (names.replace(AFTER_NAMES, '').match(QUALIFIED) ?? []).some(carried) ? change : null;
    case 'CREATE INDEX':
    case 'CREATE TRIGGER':
    case 'ALTER TRIGGER':
    case 'DROP TRIGGER':
      return carried(ON_TABLE.exec(rest)?.[1] ?? '') ? change : null;
    case 'DROP INDEX':
    case 'ALTER TYPE':
    case 'DROP TYPE':
    case 'ALTER DOMAIN':
    case 'DROP DOMAIN':
    case 'ALTER SCHEMA':
    case 'DROP SCHEMA':
      return change;
    default:
      return null;
  }
}

function firstName(text: string): string {
  return text.match(QUALIFIED)?.[0] ?? '';
}

/** `b` of `a."b"`, as the catalogue has it. */
function lastPart(written: string): string {
  const part = written.match(new RegExp(NAME, 'gu'))?.at(-1) ?? '';
  return part.startsWith('"') ? part.slice(1, -1).replaceAll('""', '"') : part.toLowerCase();
}

/**
 * For one session: what its client reads of a text that changes the schema of a carried table; null for every other, and where such a
 * change is allowed.
 */
export function refusedChange(
  { hooks }: Pick<SessionContext, 'hooks'>,
  { database }: Pick<LoggedInClient, 'database'>,
  text: () => string,
): CutoverError | null {
  const guard = hooks?.schemaGuard?.(database) ?? null;
  const change = guard && schemaChangeIn(text(), guard);
  if (guard === null || change === null) return null;
  if (guard.allowed) {
    hooks?.onSchemaChange?.(database, change);
    return null;
  }
  return new CutoverError('schema_change_refused', { database, change, migration: guard.migration });
}

/** The same as the statement that is sent to the server in its place. */
export function refusing(
  context: Pick<SessionContext, 'hooks' | 'journal'>,
  client: Pick<LoggedInClient, 'id' | 'user' | 'database'>,
): (text: () => string) => string | null {
  return (text) => {
    const refused = refusedChange(context, client, text);
    if (refused === null) return null;
    context.journal.told(refused, 'ERROR', client);
    return raising(refused);
  };
}
