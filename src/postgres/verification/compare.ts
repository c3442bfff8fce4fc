/**
 * One task: compare one table on both sides, chunk by chunk, while writes go on.
 *
 * A chunk whose digests are equal is equal. One that differs is read again after a passage (a marker), then row by row, and each
 * row that still differs is confirmed (confirm.ts). Between two chunks nothing is held: no snapshot, no lock.
 */
import { SAMPLES_MAX, type VerifyCounts, type VerifyPosition } from '../../cutover/verification.js';
import { confirm, type Sides, type Verdict } from './confirm.js';
import {
  BUCKETS,
  bucketsOf,
  digestOf,
  endOfChunk,
  pageOf,
  rowsAt,
  rowsIn,
  rowsInBuckets,
  type Digest,
  type Key,
  type Look,
  type Range,
} from './rows.js';
import type { ComparedTable } from './table.js';

/** Small enough for a look at the other rows in between, large enough that the way there costs little. */
const CHUNK_TARGET_MS = 100;
const CHUNK_FIRST_ROWS = 1_000;
const CHUNK_MIN_ROWS = 100;
const CHUNK_MAX_ROWS = 50_000;
/** A page of rows that are looked for by their keys, which travel. */
const PAGE_ROWS = 2_000;
/** Characters of a key that are told: a key may be a whole page of text. */
const KEY_TOLD_MAX = 200;
/** Rows of a table without a key that are held in memory at a time. */
const LISTED_MAX_ROWS = 100_000;

type Place = Pick<VerifyPosition, 'pass' | 'after'>;

/**
 * Told after each chunk, with what it added and where the next one begins; null: the table is done. What it throws ends the
 * comparison.
 */
export type Visit = (next: Place | null, counts: VerifyCounts) => void;

export async function compareTable(sides: Sides, table: ComparedTable, from: Place, visit: Visit): Promise<void> {
  switch (table.mode) {
    case 'range':
      return compareRanges(sides, table, from.after, visit);
    case 'lookup':
      return compareByLookup(sides, table, from, visit);
    case 'whole':
      return compareWhole(sides, table, visit);
  }
}

interface Found {
  readonly digest: Pick<Digest, 'rows' | 'bytes'>;
  readonly verdict: Verdict;
}

/** Counts what `work` cost the side that serves along with what it found. */
async function counted<T extends Found>(
  { load }: Sides,
  work: () => Promise<T>,
): Promise<{ readonly found: T; readonly counts: VerifyCounts }> {
  const busyBefore = load.busyMs;
  const found = await work();
  const { digest, verdict } = found;
  const counts = {
    rows: digest.rows,
    bytes: digest.bytes,
    differences: verdict.differences.length,
    undecided: verdict.undecided,
    samples: verdict.differences.slice(0, SAMPLES_MAX).map((d) => ({ ...d, key: d.key.slice(0, KEY_TOLD_MAX) })),
    busyMs: load.busyMs - busyBefore,
  };
  return { found, counts };
}

const EQUAL: Verdict = { differences: [], undecided: 0 };

// ── both servers sort the key alike ───────────────────────────────────────────────────────────────────────────────────

async function compareRanges(sides: Sides, table: ComparedTable, from: Key | null, visit: Visit): Promise<void> {
  const { serving, load } = sides;
  let [after, size] = [from, CHUNK_FIRST_ROWS];
  for (;;) {
    const [start, lower, rows] = [performance.now(), after, size];
    const { found, counts } = await counted(sides, async () => {
      const through = await load.measured(() => endOfChunk(serving, table, lower, rows));
      const range = { after: lower, through };
      const here = await load.measured(() => digestOf(serving, table, range));
      const tookMs = performance.now() - start;
      return { ...(await compareRange(sides, table, range, here)), through, tookMs };
    });
    const { through, tookMs } = found;
    visit(through === null ? null : { pass: 'there', after: through }, counts);
    if (through === null) return;
    after = through;
    size = nextSize(size, tookMs);
    await load.rest();
  }
}

function nextSize(size: number, tookMs: number): number {
  const wanted = Math.round((size * CHUNK_TARGET_MS) / Math.max(1, tookMs));
  // Not at once: one slow moment of the server says little.
  return Math.max(CHUNK_MIN_ROWS, Math.min(CHUNK_MAX_ROWS, 2 * size, wanted));
}

async function compareRange(sides: Sides, table: ComparedTable, range: Range, here: Digest): Promise<Found> {
  const { serving, other, passage, load } = sides;
  if (here.print === (await digestOf(other, table, range)).print) return { digest: here, verdict: EQUAL };
  const again = await load.measured(() => digestOf(serving, table, range));
  await passage.pass();
  if (again.print === (await digestOf(other, table, range)).print) return { digest: again, verdict: EQUAL };
  const mine = await load.measured(() => rowsIn(serving, table, range));
  const theirs = await rowsIn(other, table, range);
  return { digest: again, verdict: await confirm(sides, table, suspectsOf(mine, theirs)) };
}

function suspectsOf(mine: ReadonlyMap<string, Look>, theirs: ReadonlyMap<string, Look>): readonly Key[] {
  const names = new Set([...mine.keys(), ...theirs.keys()]);
  return [...names].filter((name) => mine.get(name)?.hash !== theirs.get(name)?.hash).map((n) => JSON.parse(n) as Key);
}

// ── they may sort it differently ──────────────────────────────────────────────────────────────────────────────────────

interface Page extends Found {
  /** null: the pass is over */
  readonly next: Key | null;
}

/** There: every row of the serving side is looked for. Back: every row of the other side. Each side in its own order. */
async function compareByLookup(sides: Sides, table: ComparedTable, from: Place, visit: Visit): Promise<void> {
  let place: Place | null = from;
  while (place !== null) {
    const { pass, after }: Place = place;
    const compare = (): Promise<Page> => comparePage(sides, table, pass, after);
    const { found, counts }: { found: Page; counts: VerifyCounts } = await counted(sides, compare);
    place = found.next === null ? afterPass(pass) : { pass, after: found.next };
    visit(place, counts);
    if (place !== null) await sides.load.rest();
  }
}

function afterPass(pass: Place['pass']): Place | null {
  return pass === 'there' ? { pass: 'back', after: null } : null;
}

async function comparePage(sides: Sides, table: ComparedTable, pass: Place['pass'], after: Key | null): Promise<Page> {
  const { serving, other, load } = sides;
  const there = pass === 'there';
  const page = there
    ? await load.measured(() => pageOf(serving, table, after, PAGE_ROWS))
    : await pageOf(other, table, after, PAGE_ROWS);
  const found = there
    ? await rowsAt(other, table, page.keys)
    : await load.measured(() => rowsAt(serving, table, page.keys));
  const verdict = await confirm(sides, table, suspectsOf(page.looks, found));
  // The way back counts nothing twice: what differs in both directions was told on the way there.
  const extra = there ? verdict : { ...verdict, differences: verdict.differences.filter((d) => d.problem === 'extra') };
  const digest = there ? { rows: page.keys.length, bytes: page.bytes } : { rows: 0, bytes: 0 };
  return { digest, verdict: extra, next: page.next };
}

// ── no key ────────────────────────────────────────────────────────────────────────────────────────────────────────────

async function compareWhole(sides: Sides, table: ComparedTable, visit: Visit): Promise<void> {
  const { serving, other, load } = sides;
  const { counts } = await counted(sides, async () => {
    const mine = await load.measured(() => bucketsOf(serving, table));
    const theirs = await bucketsOf(other, table);
    const all = [...new Set([...mine.keys(), ...theirs.keys()])].sort((a, b) => a - b);
    const differing = all.filter((bucket) => mine.get(bucket)?.print !== theirs.get(bucket)?.print);
    const rows = sum(mine, (digest) => digest.rows);
    const verdict = await compareBuckets(
      sides,
      table,
      differing,
      Math.max(
        rows,
        sum(theirs, (digest) => digest.rows),
      ),
    );
    return { digest: { rows, bytes: sum(mine, (digest) => digest.bytes) }, verdict };
  });
  visit(null, counts);
}

/** As many buckets at a time as fit into memory; each time the table is read. */
async function compareBuckets(
  sides: Sides,
  table: ComparedTable,
  buckets: readonly number[],
  rows: number,
): Promise<Verdict> {
  const { serving, other, load } = sides;
  const atOnce = Math.max(1, Math.floor(LISTED_MAX_ROWS / Math.max(1, rows / BUCKETS)));
  let verdict = EQUAL;
  for (let first = 0; first < buckets.length; first += atOnce) {
    const slice = buckets.slice(first, first + atOnce);
    const mine = await load.measured(() => rowsInBuckets(serving, table, slice));
    const theirs = await rowsInBuckets(other, table, slice);
    const { differences, undecided } = await confirm(sides, table, suspectsOf(mine, theirs));
    verdict = {
      differences: [...verdict.differences, ...differences],
      undecided: verdict.undecided + undecided,
    };
    await load.rest();
  }
  return verdict;
}

function sum(digests: ReadonlyMap<number, Digest>, of: (digest: Digest) => number): number {
  return [...digests.values()].reduce((total, digest) => total + of(digest), 0);
}
