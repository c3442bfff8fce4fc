/** One task: tell what one session holds of servers and how long its client has asked them for nothing, and stop what they run for it. */
import { STATUS } from '../wire/codes.js';
import type { Borrowing } from './borrowing.js';
import type { ClientChannel } from './client-channel.js';
import type { SessionReads } from './pipelining/session-reads.js';
import { CANCEL_PATIENCE_MS } from './server-cancel.js';
import type { SessionCounters } from './session-counters.js';
import type { SessionKeeping } from './session-keeping.js';
import type { SessionWriter } from './session-writer.js';

interface HoldingSession {
  /** see client-session.ts */
  readonly phase: string;
  readonly counters: SessionCounters;
  readonly channel: ClientChannel;
}

interface Parts {
  readonly borrowing: Borrowing;
  readonly writer: SessionWriter;
  readonly keeping: SessionKeeping;
  readonly reads: SessionReads;
}

/** That a client has been answered and has sent nothing since. */
export interface Idleness {
  readonly inTransaction: boolean;
  readonly forMs: number;
}

export class SessionServers {
  readonly #session: HoldingSession;
  readonly #borrowing: Borrowing;
  readonly #writer: SessionWriter;
  readonly #keeping: SessionKeeping;
  readonly #reads: SessionReads;

  constructor(session: HoldingSession, { borrowing, writer, keeping, reads }: Parts) {
    this.#session = session;
    this.#borrowing = borrowing;
    this.#writer = writer;
    this.#keeping = keeping;
    this.#reads = reads;
  }

  /** A transaction is open, or answers are owed. An idle session that keeps its server holds nothing. */
  get holding(): boolean {
    const { server } = this.#borrowing;
    const { phase } = this.#session;
    if (server === null) return this.#writer.holding || phase === 'sharing';
    return phase === 'attached' || phase === 'leaving' || !server.idle;
  }

  /** Between transactions it has something in its server's session that no other server can give it. */
  get bound(): boolean {
    return this.#keeping.bound;
  }

  /** 0 = it holds no server */
  get pid(): number {
    return this.#borrowing.server?.processId ?? (this.#writer.serverPid || this.#reads.serverPid);
  }

  /** null: something is under way, or the client has not taken its answers yet */
  get idleness(): Idleness | null {
    const { phase, counters, channel } = this.#session;
    const { server } = this.#borrowing;
    const attached = phase === 'attached' && server?.replies.empty === true;
    if (channel.full || (phase !== 'idle' && !attached) || counters.answerOwed) return null;
    return { inTransaction: attached && server.transactionStatus !== STATUS.idle, forMs: counters.idleMs };
  }

  /** Asks the server to stop the statement it runs for this client; nothing happens when there is none. */
  cancel(): void {
    this.#writer.cancel();
    this.#reads.cancel();
    this.#borrowing.cancel();
  }

  /**
   * Cancels the statement in flight when it has been running for longer; once for each statement. The connection of a server that does
   * not answer that either is closed, which its client is told.
   */
  cancelAfter(limitMs: number): void {
    const { counters } = this.#session;
    if (counters.runsTooLong(limitMs)) this.cancel();
    else if (counters.runsForMs > limitMs + CANCEL_PATIENCE_MS) this.#giveUp();
  }

  /** Closes the connections of what was cancelled and has not stopped; nothing happens where all has. */
  #giveUp(): void {
    this.#writer.giveUp();
    this.#reads.giveUp();
    this.#borrowing.server?.destroy();
  }
}
