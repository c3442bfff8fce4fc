/** One task: bring to an end what a client that is gone has started: run it out or stop it, roll back, give the server back. */
import type { FrameScanner } from '../wire/frames.js';
import type { Borrowing } from './borrowing.js';
import type { ServerConnection } from './server-connection.js';
import type { SessionContext } from './session-context.js';
import type { SessionKeeping } from './session-keeping.js';
import type { SessionWriter } from './session-writer.js';

/** A client that said goodbye has its last statement run to the end, as with PostgreSQL; one that vanished has less. */
export const GOODBYE_TIMEOUT_MS = 60_000;
export const VANISHED_TIMEOUT_MS = 5_000;

interface SessionParts {
  readonly borrowing: Borrowing;
  readonly writer: SessionWriter;
  readonly scanner: FrameScanner;
  readonly keeping: SessionKeeping;
  readonly context: SessionContext;
}

export class SessionEnd {
  readonly #parts: SessionParts;
  readonly #closed: () => void;
  #timer: NodeJS.Timeout | null = null;
  #rollingBack = false;

  /** @param closed called when nothing is left of the session */
  constructor(parts: SessionParts, closed: () => void) {
    this.#parts = parts;
    this.#closed = closed;
  }

  /** Nothing more comes from the client. @param timeoutMs bound of what runs */
  begin(timeoutMs: number): void {
    this.#stopTimer();
    const { borrowing, writer, scanner, context } = this.#parts;
    const { server } = borrowing;
    if (server === null) {
      if (writer.leave()) this.#timer = setTimeout(this.#tooLong, timeoutMs);
      else this.#closed();
      return;
    }
    server.resume();
    if (scanner.insideFrame || !server.replies.complete) server.destroy();
    else if (server.replies.empty) this.finish(server);
    else if (timeoutMs === VANISHED_TIMEOUT_MS && context.config.general.connectionRecovery !== 'recover')
      this.#tooLong();
    else this.#timer = setTimeout(this.#tooLong, timeoutMs);
  }

  readonly #tooLong = (): void => {
    const { borrowing, writer } = this.#parts;
    writer.cancel();
    borrowing.cancel();
    borrowing.server?.destroy();
    writer.abandon();
  };

  /** When nothing is in flight, an open transaction is rolled back, then the server goes back. */
  finish(server: ServerConnection): void {
    if (!server.replies.empty) return;
    const { borrowing, keeping, context } = this.#parts;
    const { connectionRecovery, rollbackTimeoutMs } = context.config.general;
    if (server.idle) {
      borrowing.giveBack(keeping.suspected);
      this.#closed();
      return;
    }
    if (connectionRecovery === 'drop' || this.#rollingBack) {
      server.destroy();
      return;
    }
    this.#rollingBack = true;
    this.#stopTimer();
    server.setup('ROLLBACK', rollbackTimeoutMs);
  }

  /** The session is closed; may be called again. */
  ended(): void {
    this.#stopTimer();
    // Of a transaction on several shards.
    this.#parts.writer.abandon();
  }

  #stopTimer(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }
}
