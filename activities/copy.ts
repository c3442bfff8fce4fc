/**
 * One task: copy the tables, largest first, a few at a time, at a bounded speed: those of a held stream in ranges (range-copy.ts), all others by
 * the subscription's own synchronisation.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { CopyProgress, Migration } from '../src/cutover/contract.js';
import { CutoverError } from '../src/errors/errors.js';
import { quoteIdentifier, type Connection } from '../src/postgres/connection.js';
import type { TableName } from '../src/postgres/fence.js';
import { tableSizes } from '../src/postgres/publications.js';
import { ensurePublication, tableSyncs, type PublishedTable, type TableSync } from '../src/postgres/streams.js';
import { connectionTo, type EngineContext } from './context.js';
import { SlotLimits, type Alarm } from './limits.js';
import { publicationOf, tablesOf } from './published-rows.js';
import { RangeCopies } from './range-copies.js';
import { requireUnchanged } from './schema-changes.js';
import { streamsOf, type Stream } from './stream-ends.js';

const POLL_MS = 200;
/** A table that makes no progress for this long has failed: its worker restarts and fails again. */
const STALL_MS = 10 * 60_000;

const key = (t: TableName): string => `${t.schema}.${t.table}`;

/** One table of one stream, with the size on disk, in bytes, of the whole of it. */
interface SizedTable extends PublishedTable {
  readonly bytes: number;
}

/** One stream while it copies. */
interface Copying {
  readonly stream: Stream;
  readonly source: Connection;
  /** largest first */
  readonly tables: readonly SizedTable[];
  syncs: ReadonlyMap<string, TableSync>;
}

/**
 * Adds the tables to the publications as earlier ones become ready, so that each subscription copies at most `parallelCopies` at once.
 *
 * PostgreSQL offers no speed limit for table synchronisation; there the limit is kept between tables: the next one begins when
 * the bytes copied so far fit the time passed. In ranges it is kept throughout.
 *
 * @param stallMs no table may be without progress for longer
 * @throws CutoverError `copy_stalled` naming the tables that are not copied; `copy_interrupted` when ranges have to be copied anew
 */
export async function copyTables(
  context: EngineContext,
  migration: Migration,
  report: (progress: CopyProgress) => void,
  alarm: Alarm = () => undefined,
  stallMs = STALL_MS,
): Promise<CopyProgress> {
  const ranges = await RangeCopies.start(context, migration, { alarm, stallMs });
  try {
    return await copyBeside(ranges, { context, migration, alarm, stallMs }, report);
  } finally {
    await ranges.stop();
  }
}

interface CopyWork {
  readonly context: EngineContext;
  readonly migration: Migration;
  readonly alarm: Alarm;
  readonly stallMs: number;
}

async function copyBeside(
  ranges: RangeCopies,
  { context, migration, alarm, stallMs }: CopyWork,
  report: (progress: CopyProgress) => void,
): Promise<CopyProgress> {
  const streams: Copying[] = [];
  for (const stream of streamsOf(migration, 'forward')) streams.push(await copyingOf(context, migration, stream));
  const { parallelCopies, copyBytesPerSecond } = context.config().cutover;
  const limits = new SlotLimits(context, migration, alarm);
  const start = performance.now();
  let moved = performance.now();
  let last = '';
  for (;;) {
    await limits.check(false);
    await requireUnchanged(context, migration);
    await ranges.patiently(() => look(context, ranges, streams));
    const progress = summarise(streams, ranges);
    report(progress);
    if (progress.tablesReady === progress.tablesTotal) return progress;
    const shape = JSON.stringify(progress);
    if (shape !== last) moved = performance.now();
    last = shape;
    if (performance.now() - moved > stallMs)
      throw new CutoverError('copy_stalled', { database: migration.peer, tables: unready(streams, ranges).join(', ') });
    const fits =
      copyBytesPerSecond === null || progress.bytes <= ((performance.now() - start) / 1000) * copyBytesPerSecond;
    if (fits)
      for (const copying of streams)
        if (!ranges.of(copying.stream)) await ranges.patiently(() => copyMore(context, copying, parallelCopies));
    await delay(POLL_MS);
  }
}

/** Of the streams that run. */
async function look(context: EngineContext, ranges: RangeCopies, streams: readonly Copying[]): Promise<void> {
  for (const copying of streams) {
    const { stream } = copying;
    if (ranges.of(stream)) continue;
    const syncs = await tableSyncs(await connectionTo(context, stream.subscriber), stream.name);
    copying.syncs = new Map(syncs.map((s) => [key(s), s]));
  }
}

async function copyingOf(context: EngineContext, migration: Migration, stream: Stream): Promise<Copying> {
  const source = await connectionTo(context, stream.publisher);
  const tables = await tablesOf(context, migration, stream);
  const byName = new Map(tables.map((table) => [key(table), table]));
  const sized = await tableSizes(source, tables);
  return {
    stream,
    source,
    tables: sized.map((table) => ({ ...table, ...byName.get(key(table)) })),
    syncs: new Map(),
  };
}

/** Adds tables to one stream, as far as earlier ones have made room: the limit is that of each subscription. */
async function copyMore(
  context: EngineContext,
  { stream, source, tables, syncs }: Copying,
  parallelCopies: number,
): Promise<void> {
  const copying = tables.filter((t) => syncs.has(key(t)) && !isReady(syncs.get(key(t)))).length;
  const waiting = tables.filter((t) => !syncs.has(key(t)));
  const room = batchSize(waiting, parallelCopies - copying);
  if (room <= 0) return;
  const published = [...tables.filter((t) => syncs.has(key(t))), ...waiting.slice(0, room)];
  await ensurePublication(source, stream.name, published, publicationOf(stream));
  const destination = await connectionTo(context, stream.subscriber);
  await destination.query(
    `ALTER SUBSCRIPTION ${quoteIdentifier(stream.name)} REFRESH PUBLICATION WITH (copy_data = true)`,
  );
}

/** Small tables go together: one REFRESH for each of a thousand empty tables would take minutes. */
const SMALL_TABLE_BYTES = 1_000_000;
const SMALL_BATCH = 200;

function batchSize(waiting: readonly SizedTable[], free: number): number {
  if (free <= 0) return 0;
  const first = waiting[0];
  return first && first.bytes <= SMALL_TABLE_BYTES ? SMALL_BATCH : Math.min(free, waiting.length);
}

const isReady = (sync: TableSync | undefined): boolean => sync?.state === 'r';

/** A table counts once for each shard that it is copied from and to; of its size on disk each of these has its share. */
function summarise(streams: readonly Copying[], ranges: RangeCopies): CopyProgress {
  let [tablesReady, tablesTotal, bytes, rows] = [0, 0, 0, 0];
  for (const { stream, tables, syncs } of streams)
    for (const table of tables) {
      tablesTotal++;
      const came = ranges.of(stream)?.came(stream.name, table);
      if (came) {
        bytes += came.bytes;
        rows += came.rows;
        continue;
      }
      const sync = syncs.get(key(table));
      if (isReady(sync)) tablesReady++;
      bytes += isReady(sync) ? table.bytes / stream.shards.subscribing : (sync?.bytes ?? 0);
      rows += sync?.rows ?? 0;
    }
  return { tablesReady, tablesTotal, bytes: Math.round(bytes), rows };
}

function unready(streams: readonly Copying[], ranges: RangeCopies): readonly string[] {
  const names = streams.flatMap(({ stream, tables, syncs }) =>
    tables.filter((t) => ranges.of(stream) !== null || !isReady(syncs.get(key(t)))).map(key),
  );
  return [...new Set(names)];
}
