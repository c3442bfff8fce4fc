/** One task: copy the tables by the subscription's own synchronisation, largest first, a few at a time, at a bounded speed. */
import { setTimeout as delay } from 'node:timers/promises';
import type { CopyProgress, Migration } from '../src/cutover/contract.js';
import { CutoverError } from '../src/errors/errors.js';
import { quoteIdentifier } from '../src/postgres/connection.js';
import type { TableName } from '../src/postgres/fence.js';
import { publishedTables, tableSizes } from '../src/postgres/publications.js';
import { ensurePublication, streamName, tableSyncs, type TableSync } from '../src/postgres/streams.js';
import { connectionTo, type EngineContext } from './context.js';
import { SlotLimits, type Alarm } from './limits.js';
import { requireUnchanged } from './schema-changes.js';

const POLL_MS = 200;
/** A table that makes no progress for this long has failed: its worker restarts and fails again. */
const STALL_MS = 10 * 60_000;

const key = (t: TableName): string => `${t.schema}.${t.table}`;

/** One source table with its size on disk, in bytes. */
interface SizedTable extends TableName {
  readonly bytes: number;
}

/**
 * Adds the tables to the publication as earlier ones become ready, so that at most `parallelCopies` are copied at once.
 *
 * PostgreSQL offers no speed limit for table synchronisation; the limit is kept between tables: the next one begins when
 * the bytes copied so far fit the time passed.
 *
 * @param stallMs no table may be without progress for longer
 * @throws CutoverError `copy_stalled` naming the tables that are not copied
 */
export async function copyTables(
  context: EngineContext,
  migration: Migration,
  report: (progress: CopyProgress) => void,
  alarm: Alarm = () => undefined,
  stallMs = STALL_MS,
): Promise<CopyProgress> {
  const source = await connectionTo(context, migration.source);
  const destination = await connectionTo(context, migration.destination);
  const name = streamName(migration.id, 'forward');
  const tables = await tableSizes(source, await publishedTables(source, migration.publication));
  const { parallelCopies, copyBytesPerSecond } = context.config().cutover;
  const limits = new SlotLimits(context, migration, alarm);
  const start = performance.now();
  let moved = performance.now();
  let last = '';
  for (;;) {
    await limits.check(false);
    await requireUnchanged(context, migration);
    const syncs = new Map((await tableSyncs(destination, name)).map((s) => [key(s), s]));
    const progress = summarise(tables, syncs);
    report(progress);
    if (progress.tablesReady === tables.length) return progress;
    const shape = JSON.stringify(progress);
    if (shape !== last) moved = performance.now();
    last = shape;
    if (performance.now() - moved > stallMs)
      throw new CutoverError('copy_stalled', { database: migration.peer, tables: unready(tables, syncs).join(', ') });
    const copying = tables.filter((t) => syncs.has(key(t)) && !isReady(syncs.get(key(t)))).length;
    const waiting = tables.filter((t) => !syncs.has(key(t)));
    const fits =
      copyBytesPerSecond === null || progress.bytes <= ((performance.now() - start) / 1000) * copyBytesPerSecond;
    const room = fits ? batchSize(waiting, parallelCopies - copying) : 0;
    if (room > 0) {
      const published = [...tables.filter((t) => syncs.has(key(t))), ...waiting.slice(0, room)];
      await ensurePublication(source, name, published);
      await destination.query(
        `ALTER SUBSCRIPTION ${quoteIdentifier(name)} REFRESH PUBLICATION WITH (copy_data = true)`,
      );
    }
    await delay(POLL_MS);
  }
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

function summarise(tables: readonly SizedTable[], syncs: ReadonlyMap<string, TableSync>): CopyProgress {
  let [tablesReady, bytes, rows] = [0, 0, 0];
  for (const table of tables) {
    const sync = syncs.get(key(table));
    if (isReady(sync)) tablesReady++;
    bytes += isReady(sync) ? table.bytes : (sync?.bytes ?? 0);
    rows += sync?.rows ?? 0;
  }
  return { tablesReady, tablesTotal: tables.length, bytes, rows };
}

function unready(tables: readonly TableName[], syncs: ReadonlyMap<string, TableSync>): readonly string[] {
  return tables.filter((t) => !isReady(syncs.get(key(t)))).map(key);
}
