/**
 * One task: keep clients in statement mode from holding a server beyond one statement.
 *
 * A text that only opens a transaction is refused, and its session goes on. However else one comes to be open, the server says so when it is
 * ready: then the session ends, as PgBouncer ends it. Several statements in one text, or before one Sync, are one unit.
 */
import { CutoverError } from '../errors/errors.js';
import { raising } from './raising.js';
import type { LoggedInClient, SessionContext } from './session-context.js';
import { statementsOf } from './set-statement.js';

const OPENS = /^\s*(?:BEGIN|START\s+TRANSACTION)\b/i;
/** A longer text is more than that. */
const TEXT_CHARACTERS_MAX = 4_096;

type Refuse = (text: () => string) => string | null;

/** Of one session. */
export class StatementMode {
  readonly #client: Pick<LoggedInClient, 'id' | 'user' | 'database'>;
  readonly #context: Pick<SessionContext, 'routes' | 'journal'>;
  #version = -1;
  #applies = false;

  constructor(
    client: Pick<LoggedInClient, 'id' | 'user' | 'database'>,
    context: Pick<SessionContext, 'routes' | 'journal'>,
  ) {
    this.#client = client;
    this.#context = context;
  }

  /** By the configuration in force. */
  get applies(): boolean {
    const { routes } = this.#context;
    if (this.#version !== routes.version) {
      this.#version = routes.version;
      this.#applies = routes.modeOf(this.#client.user, this.#client.database) === 'statement';
    }
    return this.#applies;
  }

  /** What a client reads that has a transaction open. */
  get error(): CutoverError {
    return new CutoverError('statement_mode');
  }

  /** As `refuse`, and in this mode it also refuses what opens a transaction. */
  refusing(refuse: Refuse): Refuse {
    return (text) => {
      if (!this.applies || !opensTransaction(text())) return refuse(text);
      this.#context.journal.told(this.error, 'ERROR', this.#client);
      return raising(this.error);
    };
  }
}

function opensTransaction(text: string): boolean {
  if (text.length > TEXT_CHARACTERS_MAX) return false;
  const [first, ...others] = statementsOf(text).filter((statement) => statement.trim() !== '');
  return first !== undefined && others.length === 0 && OPENS.test(first);
}
