/**
 * One task: for one session of a sharded database, have its writer run what takes several shards, and go on behind it: without a
 * transaction, or in one, on the server that the writer lends back.
 */
import { CutoverError } from '../errors/errors.js';
import type { FrameScanner } from '../wire/frames.js';
import { STATUS } from '../wire/codes.js';
import type { Borrowing } from './borrowing.js';
import type { Mover } from './first-statement.js';
import type { Forwarder } from './forwarder.js';
import type { SessionCounters } from './session-counters.js';
import type { SessionPlace } from './session-place.js';
import type { Next, SessionWriter } from './session-writer.js';
import type { SeveralPlan } from './several-plan.js';

interface Session {
  readonly database: string;
  readonly phase: string;
  readonly counters: SessionCounters;
  terminate(error: CutoverError): void;
}

interface Parts {
  readonly borrowing: Borrowing;
  readonly forwarder: Forwarder;
  readonly place: SessionPlace;
  readonly scanner: FrameScanner;
  readonly writer: SessionWriter;
}

/** What it has its session do. */
interface SeveralSteps {
  enter(phase: 'waiting' | 'writing' | 'attached'): void;
  say(bytes: Buffer): void;
  advance(): void;
  /** between two transactions */
  boundary(): void;
  /** nothing is left of the session */
  close(): void;
}

export class SessionSeveral {
  readonly #session: Session;
  readonly #parts: Parts;
  readonly #steps: SeveralSteps;

  constructor(session: Session, parts: Parts, steps: SeveralSteps) {
    this.#session = session;
    this.#parts = parts;
    this.#steps = steps;
  }

  /** Runs the batch ahead by itself. @throws CutoverError `statements_exhausted` */
  begin(plan: SeveralPlan): void {
    this.#parts.writer.begin(plan, this.#parts.scanner, this.#writing);
  }

  /** @returns false when the batch cannot go to this server: it belongs to another shard, or has not come far enough to tell */
  staysHere(mover: Mover): boolean {
    const { borrowing, scanner, writer } = this.#parts;
    const move = mover.move(scanner);
    if (move.kind === 'stay' || move.kind === 'more') return move.kind === 'stay';
    this.#session.counters.waiting();
    this.#steps.enter(move.kind === 'anew' ? 'waiting' : 'writing');
    if (move.kind === 'anew') borrowing.move(move.shard, mover.opening);
    else writer.beginIn(move.plan, mover.opening, borrowing.lend(), scanner, this.#writing);
    return false;
  }

  /** What a statement on several shards tells: answers, that more of a COPY can be taken, and that it has been answered. */
  readonly #writing = {
    say: (bytes: Buffer): void => {
      if (this.#session.phase === 'writing') this.#steps.say(bytes);
    },
    more: (): void => {
      this.#steps.advance();
    },
    done: (next: Next): void => {
      if (this.#session.phase === 'leaving') this.#steps.close();
      else if (this.#session.phase === 'writing') this.#goOn(next);
      this.#steps.advance();
    },
  };

  /** A statement on several shards has been answered, or the transaction is at the shard of the next one. */
  #goOn(next: Next): void {
    const { borrowing, forwarder, place } = this.#parts;
    if (next.kind === 'ended') {
      place.placement?.settled(STATUS.idle);
      this.#steps.boundary();
    } else if (next.lent === null)
      this.#session.terminate(new CutoverError('server_lost', { database: this.#session.database }));
    else {
      this.#session.counters.waited();
      borrowing.takeBack(next.lent);
      this.#steps.enter('attached');
      forwarder.full = false;
      place.placement?.wentOn(next.lent.shard, next.lent.server.transactionStatus, next.notEnlisted);
    }
  }
}
