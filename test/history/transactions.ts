/** One task: the transactions of a client of lists, each in a form for which strict serializability is promised. */
import pg from 'pg';
import { messageOf } from '../../src/errors/errors.js';
import {
  mayHaveTakenEffect,
  sqlstateOf,
  type Session,
  type Statement,
  type Style,
} from '../../src/dev/ledger/session.js';
import type { Outcome, Step } from './history.js';
import { KEYS, tableOf } from './lists.js';
import type { Random } from './random.js';

/**
 * `serializable`: any transaction under SERIALIZABLE. `locking`: READ COMMITTED, every row locked before it is read or as
 * it is written. `statement`: one statement on one row, without a transaction. README.md says why each is strict. A key is
 * used under one of them only: none knows of the others.
 */
export const GUARANTEES = ['serializable', 'locking', 'statement'] as const;
export type Guarantee = (typeof GUARANTEES)[number];

/** What a `serializable` client asks for; the weaker one only to see what it allows. */
export type Level = 'SERIALIZABLE' | 'REPEATABLE READ';

export interface Planned {
  readonly guarantee: Guarantee;
  readonly style: Style;
  readonly steps: readonly { readonly kind: Step['kind']; readonly key: number }[];
}

export interface Attempt {
  readonly outcome: Outcome;
  readonly steps: readonly Step[];
  readonly error?: string;
}

const STEPS_MAX = 4;
/** Few, so that clients meet. */
const KEYS_IN_USE = 6;
const STYLES = ['simple', 'extended', 'prepared'] as const;

/**
 * Draws the next transaction of a client.
 *
 * @param oldest counts up over the run: which lists are in use, so that none grows without end
 */
export function plan(random: Random, guarantee: Guarantee, oldest: number): Planned {
  const count = guarantee === 'statement' ? 1 : 1 + random.below(STEPS_MAX);
  const steps = Array.from({ length: count }, () => {
    const position = (oldest + random.below(KEYS_IN_USE)) * GUARANTEES.length + GUARANTEES.indexOf(guarantee);
    return { kind: random.pick<Step['kind']>(['append', 'read']), key: position % KEYS };
  });
  // In the order of keys, so that clients wait for each other but never in a circle.
  return { guarantee, style: random.pick(STYLES), steps: steps.sort((a, b) => a.key - b.key) };
}

/** Runs a planned transaction once; every element it appends is drawn from `nextValue`. Never rejects. */
export function attempt(session: Session, planned: Planned, level: Level, nextValue: () => number): Promise<Attempt> {
  return new Running(session, planned, level, nextValue).run();
}

class Running {
  readonly #session: Session;
  readonly #planned: Planned;
  readonly #level: Level;
  readonly #nextValue: () => number;
  readonly #steps: Step[] = [];
  /** from here on a lost answer may hide a success */
  #committing = false;

  constructor(session: Session, planned: Planned, level: Level, nextValue: () => number) {
    this.#session = session;
    this.#planned = planned;
    this.#level = level;
    this.#nextValue = nextValue;
  }

  async run(): Promise<Attempt> {
    try {
      await (this.#planned.guarantee === 'statement' ? this.#statement() : this.#transaction());
      return { outcome: 'ok', steps: this.#steps };
    } catch (error) {
      const outcome = this.#committing && mayStand(error, this.#session) ? 'unknown' : 'fail';
      if (this.#planned.guarantee !== 'statement') await this.#session.rollback();
      return { outcome, steps: this.#steps, error: sqlstateOf(error) ?? messageOf(error) };
    }
  }

  async #statement(): Promise<void> {
    this.#committing = true;
    for (const { kind, key } of this.#planned.steps) {
      if (kind === 'read') await this.#read(key, '');
      // The list as it is after the append, from the same statement.
      else this.#saw(key, await this.#append(key, ' RETURNING items'));
    }
  }

  async #transaction(): Promise<void> {
    const serializable = this.#planned.guarantee === 'serializable';
    const level = serializable ? this.#level : 'READ COMMITTED';
    await this.#send({ text: `BEGIN ISOLATION LEVEL ${level}`, values: [], command: 'BEGIN' });
    for (const { kind, key } of this.#planned.steps) {
      if (kind === 'read') await this.#read(key, serializable ? '' : ' FOR UPDATE');
      else await this.#append(key, '');
    }
    this.#committing = true;
    await this.#send({ text: 'COMMIT', values: [], command: 'COMMIT' });
  }

  async #read(key: number, lock: string): Promise<void> {
    const text = `SELECT items FROM ${tableOf(key)} WHERE key = $1::integer${lock}`;
    this.#saw(key, await this.#send({ text, values: [key], command: 'SELECT' }));
  }

  async #append(key: number, returning: string): Promise<readonly Record<string, unknown>[]> {
    const value = this.#nextValue();
    // Noted before it is sent: it must not be there if this transaction fails.
    this.#steps.push({ kind: 'append', key, value });
    const text = `UPDATE ${tableOf(key)} SET items = items || $2::integer WHERE key = $1::integer${returning}`;
    return this.#send({ text, values: [key, value], command: 'UPDATE' });
  }

  /** A row that is not there is an empty list: whatever it held is found to be lost. */
  #saw(key: number, rows: readonly Record<string, unknown>[]): void {
    this.#steps.push({ kind: 'read', key, items: (rows[0]?.items as number[] | undefined) ?? [] });
  }

  #send(statement: Statement): Promise<readonly Record<string, unknown>[]> {
    return this.#session.send(statement, this.#planned.style);
  }
}

/** A server that goes down may have committed before: only an error that left the session standing is a sure refusal. */
function mayStand(error: unknown, session: Session): boolean {
  const fatal = error instanceof pg.DatabaseError && error.severity !== 'ERROR';
  return fatal || mayHaveTakenEffect(error, session);
}
