/** One task: what applications write, and what became of every write. */
import { SqlError, type Database, type Transaction, type Work } from './database.js';

export type WriteKind = 'single' | 'transaction' | 'snapshot';

export interface Write {
  readonly id: string;
  readonly kind: WriteKind;
  /** time between the messages of a transaction, ms */
  readonly holdMs: number;
}

/** What the fence's trigger reads of the flag in a transaction. */
export type FlagSeen = (database: Database, transaction: Transaction) => boolean;

export const FENCE_REFUSAL = 'CUT01';

/** INSERT: the table's lock, then the trigger, then the key from the sequence. */
function* insert(transaction: Transaction, id: string, flagSeen: FlagSeen): Work<null> {
  const { database } = transaction;
  yield { lock: 'tables', mode: 'shared' };
  yield { pause: true };
  if (flagSeen(database, transaction)) throw new SqlError(FENCE_REFUSAL, 'does not accept writes on this server');
  database.sequence += 1;
  database.accept(transaction, { id, key: database.sequence });
  return null;
}

/** The statements of one write, as the server runs them. */
export function* writing(transaction: Transaction, write: Write, flagSeen: FlagSeen): Work<null> {
  if (write.kind !== 'single') yield { thinkMs: write.holdMs };
  yield* insert(transaction, write.id, flagSeen);
  if (write.kind === 'transaction') {
    yield { thinkMs: write.holdMs };
    yield* insert(transaction, `${write.id}b`, flagSeen);
  }
  // COMMIT is a message of its own: until it arrives, what was written is in flight.
  if (write.kind !== 'single') yield { thinkMs: write.holdMs };
  return null;
}

export type Outcome = 'acknowledged' | 'refused' | 'unknown' | 'failed';

/** Every write with its outcome; `unknown` where the answer was lost. */
export class Book {
  readonly acknowledged = new Set<string>();
  readonly outcomes: Record<Outcome, number> = { acknowledged: 0, refused: 0, unknown: 0, failed: 0 };
  #count = 0;

  next(writer: string): string {
    this.#count += 1;
    return `${writer}-${this.#count.toString()}`;
  }

  note(write: Write, outcome: Outcome): void {
    this.outcomes[outcome] += 1;
    if (outcome !== 'acknowledged') return;
    this.acknowledged.add(write.id);
    if (write.kind === 'transaction') this.acknowledged.add(`${write.id}b`);
  }
}
