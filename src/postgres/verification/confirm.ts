/**
 * One task: tell rows that differ from rows that are on their way, while writes go on.
 *
 * In each round a suspect is read on the side that serves, a passage is waited for, and it is read on the other side. A few rounds in
 * which neither version changed are a proof. With markers two: what stood on the serving side before the first marker must be on the
 * other side after it (for a row that is absent there: what was deleted before the second marker must be gone after it). A row that
 * is equal in one round is no suspect any more.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { RowDifference } from '../../cutover/verification.js';
import type { Load } from './load.js';
import { nameOfKey, rowsAt, type Key, type Look, type Rows } from './rows.js';
import type { ComparedTable } from './table.js';

/** By what is known that the other side has what the serving one had. */
export interface Passage {
  /** Waits until what the serving side showed before is visible on the other side. */
  pass(): Promise<void>;
  /** in how many of them a row stands still that differs for sure */
  readonly rounds: number;
  /** whether a row may be held on the serving side meanwhile */
  readonly holds: boolean;
}

/** What a comparison works with. */
export interface Sides {
  readonly serving: Rows;
  readonly other: Rows;
  readonly passage: Passage;
  readonly load: Load;
}

export interface Verdict {
  readonly differences: readonly RowDifference[];
  /** rows that nobody can say anything of */
  readonly undecided: number;
}

const ROUNDS_MAX = 12;
const PAUSE_FIRST_MS = 5;
const PAUSE_LAST_MS = 500;
/** How long a row that never stands still may be waited for, so that it can be held. */
const HOLD_LOCK_TIMEOUT_MS = 300;
const HOLD_ATTEMPTS = 5;

interface Pair {
  readonly here: Look | undefined;
  readonly there: Look | undefined;
}

/** What was read of a row, and in how many rounds one after the other. */
interface Still {
  readonly pair: Pair;
  readonly rounds: number;
}

/** Reads suspects until each is equal, different for sure, or undecided. Bounded. */
export async function confirm(sides: Sides, table: ComparedTable, suspects: readonly Key[]): Promise<Verdict> {
  const differences: RowDifference[] = [];
  let open = suspects;
  const still = new Map<string, Still>();
  for (let round = 1, pause = PAUSE_FIRST_MS; open.length > 0 && round <= ROUNDS_MAX; round++) {
    const now = await look(sides, table, open, false);
    open = open.filter((key) => {
      const name = nameOfKey(key);
      const [pair, earlier] = [now.get(name), still.get(name)];
      if (!pair || isEqual(pair)) return false;
      const rounds = earlier && isSame(pair, earlier.pair) ? earlier.rounds + 1 : 1;
      still.set(name, { pair, rounds });
      if (rounds < sides.passage.rounds) return true;
      differences.push(differenceOf(table, name, pair));
      return false;
    });
    if (round > 2) await delay(pause);
    pause = Math.min(2 * pause, PAUSE_LAST_MS);
  }
  if (open.length === 0) return { differences, undecided: 0 };
  const held = await hold(sides, table, open);
  return { differences: [...differences, ...held.differences], undecided: held.undecided };
}

/**
 * For rows that changed at every look: held for the few milliseconds a marker takes, in one transaction whose wait for the row
 * is bounded. A row that is held stands still, so one look at the other side decides.
 */
async function hold(sides: Sides, table: ComparedTable, keys: readonly Key[]): Promise<Verdict> {
  const differences: RowDifference[] = [];
  let open = keys;
  if (table.mode === 'whole' || !sides.passage.holds) return { differences, undecided: open.length };
  for (let attempt = 1; open.length > 0 && attempt <= HOLD_ATTEMPTS; attempt++) {
    const pairs = await look(sides, table, open, true);
    open = open.filter((key) => {
      const name = nameOfKey(key);
      const pair = pairs.get(name);
      if (!pair) return true;
      // An absent row cannot be held: it may come and go.
      if (isEqual(pair)) return false;
      if (!pair.here) return true;
      differences.push(differenceOf(table, name, pair));
      return false;
    });
  }
  return { differences, undecided: open.length };
}

/** One round: the side that serves, a passage, the other side. With `held`, nothing when the rows could not be had in time. */
async function look(
  sides: Sides,
  table: ComparedTable,
  keys: readonly Key[],
  held: boolean,
): Promise<Map<string, Pair>> {
  const { serving, other, passage, load } = sides;
  const { connection } = serving;
  if (held)
    await connection.query(`BEGIN TRANSACTION READ WRITE; SET LOCAL lock_timeout = ${HOLD_LOCK_TIMEOUT_MS.toString()}`);
  try {
    const here = await load.measured(() => rowsAt(serving, table, keys, held));
    await passage.pass();
    const there = await rowsAt(other, table, keys);
    const names = keys.map(nameOfKey);
    return new Map(names.map((name) => [name, { here: here.get(name), there: there.get(name) }]));
  } catch (error) {
    // Locked by a transaction that takes its time, or not ours to lock.
    if (held && isRefusedLock(error)) return new Map();
    throw error;
  } finally {
    if (held) await connection.query('ROLLBACK');
  }
}

/** lock_not_available, insufficient_privilege */
const REFUSED_LOCK = ['55P03', '42501'];

function isRefusedLock(error: unknown): boolean {
  return REFUSED_LOCK.includes(String((error as { code?: unknown }).code));
}

/** Whether the serving side and the other one hold the same, absence included. */
function isEqual({ here, there }: Pair): boolean {
  return here?.hash === there?.hash;
}

function isSame(a: Pair, b: Pair): boolean {
  return a.here?.version === b.here?.version && a.there?.version === b.there?.version;
}

function differenceOf({ schema, table }: ComparedTable, key: string, { here, there }: Pair): RowDifference {
  const problem = here && there ? 'changed' : here ? 'missing' : 'extra';
  return { table: `${schema}.${table}`, key, problem };
}
