/**
 * One task: tell rows that differ from rows that are on their way, while writes go on.
 *
 * In each round a suspect is read on the side that serves, a marker is waited for, and it is read on the other side. Two rounds in
 * which neither version changed are a proof: what stood on the serving side before the first marker must be on the other side after
 * it (for a row that is absent there: what was deleted before the second marker must be gone after it). A row that is equal in
 * one round is no suspect any more.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { RowDifference } from '../../cutover/verification.js';
import type { Connection } from '../connection.js';
import type { Load } from './load.js';
import type { Markers } from './marker.js';
import { nameOfKey, rowsAt, type Key, type Look } from './rows.js';
import type { ComparedTable } from './table.js';

/** What a comparison works with. */
export interface Sides {
  readonly serving: Connection;
  readonly other: Connection;
  readonly markers: Markers;
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

/** Reads suspects until each is equal, different for sure, or undecided. Bounded. */
export async function confirm(sides: Sides, table: ComparedTable, suspects: readonly Key[]): Promise<Verdict> {
  const differences: RowDifference[] = [];
  let open = suspects;
  let before = new Map<string, Pair>();
  for (let round = 1, pause = PAUSE_FIRST_MS; open.length > 0 && round <= ROUNDS_MAX; round++) {
    const now = await look(sides, table, open, false);
    open = open.filter((key) => {
      const name = nameOfKey(key);
      const [pair, earlier] = [now.get(name), before.get(name)];
      if (!pair || isEqual(pair)) return false;
      if (!earlier || !isSame(pair, earlier)) return true;
      differences.push(differenceOf(table, name, pair));
      return false;
    });
    before = now;
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
  if (table.mode === 'whole') return { differences, undecided: open.length };
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

/** One round: the side that serves, a marker, the other side. With `held`, nothing when the rows could not be had in time. */
async function look(
  sides: Sides,
  table: ComparedTable,
  keys: readonly Key[],
  held: boolean,
): Promise<Map<string, Pair>> {
  const { serving, other, markers, load } = sides;
  if (held)
    await serving.query(`BEGIN TRANSACTION READ WRITE; SET LOCAL lock_timeout = ${HOLD_LOCK_TIMEOUT_MS.toString()}`);
  try {
    const here = await load.measured(() => rowsAt(serving, table, keys, held));
    await markers.pass();
    const there = await rowsAt(other, table, keys);
    const names = keys.map(nameOfKey);
    return new Map(names.map((name) => [name, { here: here.get(name), there: there.get(name) }]));
  } catch (error) {
    // Locked by a transaction that takes its time, or not ours to lock.
    if (held && isRefusedLock(error)) return new Map();
    throw error;
  } finally {
    if (held) await serving.query('ROLLBACK');
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
