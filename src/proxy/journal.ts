/**
 * One task: write one line for each client that comes or goes and for each error a client is told by the proxy itself, and count them.
 *
 * A line never has a password, the text of a statement or a value in it. An error's sentence is written only where the table of errors
 * makes it of names, addresses and times; of all others the code has to do.
 */
import type { LoggingConfig } from '../config/config.js';
import type { CutoverError, ErrorCode } from '../errors/errors.js';
import { errorResponseOf } from '../wire/backend.js';
import type { JournalCounts } from './contract.js';
import type { Logger } from './logger.js';

/** Who it is about, as far as that is known. */
export interface Guest {
  readonly id?: number;
  readonly user?: string;
  readonly database?: string;
  readonly applicationName?: string;
  readonly counters?: { readonly host: string; readonly port: number; readonly tls: boolean };
}

/** What a client did until it left. */
export interface Visit {
  readonly durationMs: number;
  readonly bytesReceived: number;
  readonly bytesSent: number;
  /** of a client of a database */
  readonly queries?: number;
  readonly transactions?: number;
  readonly errors?: number;
}

/** As long as names in PostgreSQL: what a client calls itself must not fill the log. */
const NAME_CHARACTERS_MAX = 63;
const SENTENCE_CHARACTERS_MAX = 500;
/** Somebody may repeat what is refused as fast as it can be refused. */
const ERROR_LINES_PER_SECOND_MAX = 100;

/** Their sentences hold nothing that a client has sent but the names it logged in with. */
const SAID_IN_FULL: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'admin_simple_only',
  'checkout_timeout',
  'clients_exhausted',
  'database_unknown',
  'gate_timeout',
  'login_failed',
  'login_timeout',
  'passthrough_full',
  'password_unchecked',
  'protocol_violation',
  'record_contradictory',
  'schema_change_refused',
  'server_lost',
  'server_unreachable',
  'shards_undecided',
  'shutting_down',
  'statements_exhausted',
  'undecided',
  'user_missing',
]);

export class Journal {
  readonly #logger: Logger;
  readonly #logging: () => LoggingConfig;
  readonly #errors = new Map<ErrorCode, number>();
  #connections = 0;
  #disconnections = 0;
  /** the second that is counted, and what was written in it */
  #second = 0;
  #lines = 0;
  #leftOut = 0;

  constructor(logger: Logger, logging: () => LoggingConfig) {
    this.#logger = logger;
    this.#logging = logging;
  }

  get counts(): JournalCounts {
    return {
      connections: this.#connections,
      disconnections: this.#disconnections,
      errors: [...this.#errors].map(([code, count]) => ({ code, count })),
    };
  }

  /** A client has logged in. */
  connected(guest: Guest): void {
    this.#connections += 1;
    if (this.#logging().connections) this.#logger.info(named(guest), 'client connected');
  }

  /** One that had logged in has left, or was sent away. */
  disconnected(guest: Guest, visit: Visit): void {
    this.#disconnections += 1;
    if (!this.#logging().disconnections) return;
    this.#logger.info({ ...named(guest), ...visit, durationMs: Math.round(visit.durationMs) }, 'client disconnected');
  }

  /** A client is told this error of ours: FATAL ends its session. */
  told(error: CutoverError, severity: 'ERROR' | 'FATAL', guest: Guest): void {
    this.#errors.set(error.code, (this.#errors.get(error.code) ?? 0) + 1);
    if (!this.#mayWrite()) return;
    const { code, sqlstate } = error;
    const problem = SAID_IN_FULL.has(code) ? { problem: clipped(error.message, SENTENCE_CHARACTERS_MAX) } : {};
    this.#logger[error.level]({ code, sqlstate, severity, ...named(guest), ...problem }, 'error told to a client');
  }

  /** The same, and the ErrorResponse. */
  answer(error: CutoverError, severity: 'ERROR' | 'FATAL', guest: Guest): Buffer {
    this.told(error, severity, guest);
    return errorResponseOf(error, severity);
  }

  /** To be called about once a second: says how many lines were left out. */
  sweep(): void {
    const second = Math.floor(performance.now() / 1_000);
    if (second === this.#second) return;
    this.#second = second;
    this.#lines = 0;
    this.end();
  }

  /** Says at once how many lines were left out: nobody will call sweep() any more. */
  end(): void {
    if (this.#leftOut > 0)
      this.#logger.warn({ lines: this.#leftOut }, 'more errors were told to clients than are logged');
    this.#leftOut = 0;
  }

  #mayWrite(): boolean {
    this.sweep();
    this.#lines += 1;
    if (this.#lines <= ERROR_LINES_PER_SECOND_MAX) return true;
    this.#leftOut += 1;
    return false;
  }
}

function named({ id, user, database, applicationName, counters }: Guest): Readonly<Record<string, unknown>> {
  const name = (text: string | undefined): string | undefined => text && clipped(text, NAME_CHARACTERS_MAX);
  return {
    client: id,
    user: name(user),
    database: name(database),
    application: name(applicationName),
    address: counters && `${counters.host}:${counters.port.toString()}`,
    tls: counters && (counters.tls ? 'yes' : 'no'),
  };
}

function clipped(text: string, charactersMax: number): string {
  return text.length <= charactersMax ? text : `${text.slice(0, charactersMax)}…`;
}
