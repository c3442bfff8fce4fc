/**
 * One task: the table of every error a person can meet.
 *
 * Each row has a stable code, the SQLSTATE a client reads, the log level, the text and what to do next.
 * `docs/errors.md` lists the same rows; a test compares the two in both directions.
 */

export type LogLevel = 'error' | 'warn' | 'info';

export interface ErrorEntry {
  /** five characters, sent in the `C` field of an ErrorResponse */
  readonly sqlstate: string;
  readonly level: LogLevel;
  /** template; `{name}` is replaced from the details */
  readonly message: string;
  /** what the reader can do next, sent as the HINT */
  readonly remedy: string;
}

/** SQLSTATE raised by the fence for a write on the side that does not serve. Not a code PostgreSQL uses. */
export const FENCE_SQLSTATE = 'CUT01';

export const ERRORS = {
  configuration_invalid: {
    sqlstate: 'F0000',
    level: 'error',
    message: '{file}:{line}: {problem}',
    remedy: 'Correct the line and start again, or RELOAD.',
  },
  database_unknown: {
    sqlstate: '3D000',
    level: 'warn',
    message: 'database "{database}" is not configured',
    remedy: 'Name a database of pgdog.toml ([[databases]]).',
  },
  gate_timeout: {
    sqlstate: '57P03',
    level: 'warn',
    message: 'database "{database}" did not accept queries within {waitedMs} ms ({reasons})',
    remedy: 'Traffic is held on purpose; try again, and see SHOW MAINTENANCE and SHOW CUTOVERS.',
  },
  schema_admin_missing: {
    sqlstate: 'F0000',
    level: 'error',
    message: 'database "{database}" has no user with schema_admin = true',
    remedy: 'Mark one user of this database with schema_admin = true in users.toml.',
  },
  dev_server_unavailable: {
    sqlstate: 'F0000',
    level: 'error',
    message: '{server} cannot be started: {problem}',
    remedy: '{remedy}',
  },
  internal: {
    sqlstate: 'XX000',
    level: 'error',
    message: 'internal error: {problem}',
    remedy: 'Report it with the log line of the same moment.',
  },
} as const satisfies Record<string, ErrorEntry>;

export type ErrorCode = keyof typeof ERRORS;
export type ErrorDetails = Readonly<Record<string, string | number | boolean>>;

/** An error from the table; `message` is what the client, the log and the workflow read. */
export class CutoverError extends Error {
  override readonly name = 'CutoverError';
  readonly code: ErrorCode;
  readonly sqlstate: string;
  readonly level: LogLevel;
  readonly remedy: string;
  readonly details: ErrorDetails;

  constructor(code: ErrorCode, details: ErrorDetails = {}, options?: ErrorOptions) {
    const entry: ErrorEntry = ERRORS[code];
    super(fill(entry.message, details), options);
    this.code = code;
    this.sqlstate = entry.sqlstate;
    this.level = entry.level;
    this.remedy = fill(entry.remedy, details);
    this.details = details;
  }
}

function fill(template: string, details: ErrorDetails): string {
  return template.replace(/\{(\w+)\}/g, (_, name: string) => String(details[name] ?? `{${name}}`));
}

/** The sentence of any thrown value, for logs and failures. Never includes a stack. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
