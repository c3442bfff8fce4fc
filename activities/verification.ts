/** One task: compare every table of a migration on both sides, from where an earlier try ended, and keep the result. */
import type { Heading, Migration } from '../src/cutover/contract.js';
import {
  addCounts,
  isClean,
  NOTHING_COUNTED,
  progressSentence,
  SAMPLES_MAX,
  type VerifyCounts,
  type VerifyPosition,
  type VerifyProgress,
  type VerifyResult,
} from '../src/cutover/verification.js';
import { CutoverError } from '../src/errors/errors.js';
import type { Connection } from '../src/postgres/connection.js';
import type { TableName } from '../src/postgres/fence.js';
import { isCommitted, readRecord } from '../src/postgres/record.js';
import { tableSyncs } from '../src/postgres/streams.js';
import { compareTable } from '../src/postgres/verification/compare.js';
import type { Sides } from '../src/postgres/verification/confirm.js';
import { latestVerification, noteVerification } from '../src/postgres/verification/record.js';
import { encodingOf, takeComparison } from '../src/postgres/verification/session.js';
import { describeTable } from '../src/postgres/verification/table.js';
import { partsOf, type Part } from './compared-rows.js';
import { ComparedShards, type Opened } from './compared-shards.js';
import { connectionTo, type EngineContext } from './context.js';
import { destinationServes } from './situation.js';
import { endsOf, firstFrom, streamsTo } from './stream-ends.js';

/** Told often; the worker sends as much of it as the server wants. */
type Report = (progress: VerifyProgress) => void;

export interface VerifyRun {
  /** names this run for good */
  readonly run: string;
  /** what an earlier try of the same activity told last */
  readonly earlier: VerifyProgress | null;
  /** ends the comparison: its connections are closed, so that a long statement ends too */
  readonly stopped: AbortSignal;
}

/**
 * Compares with the side that serves; may be called again, and goes on after the last chunk that was told.
 *
 * @throws CutoverError `verify_refused` when there is nothing to compare with; `refused_now` while another comparison runs
 */
export async function verifyTables(
  context: EngineContext,
  migration: Migration,
  { run, earlier, stopped }: VerifyRun,
  report: Report,
): Promise<VerifyResult> {
  const epoch = await lastMove(context, migration);
  const heading: Heading = (await destinationServes(context, migration)) ? 'reverse' : 'forward';
  const shards = await ComparedShards.connect(context, endsOf(migration, heading), run);
  const onStop = (): void => void shards.close();
  stopped.addEventListener('abort', onStop);
  try {
    await requireComparable(migration, heading, shards.opened);
    const start = startOf(earlier, heading, epoch);
    const parts = await partsOf(context, migration, heading, await streamedTables(migration, heading, shards.opened));
    const progress = await compareAll(shards, parts, start, report);
    if ((await lastMove(context, migration)) !== epoch)
      throw new CutoverError('verify_refused', { problem: 'the traffic has moved meanwhile' });
    return await keep(context, migration, progress);
  } finally {
    stopped.removeEventListener('abort', onStop);
    await shards.close();
  }
}

/** The epoch of the last move of the traffic; 0 when there was none. An attempt that was aborted, or a rehearsal, moves nothing. */
async function lastMove(context: EngineContext, migration: Migration): Promise<number> {
  const records = await Promise.all(
    [migration.source, migration.destination].map(async (side) => readRecord(await connectionTo(context, side))),
  );
  const decisions = records.flatMap((record) => record?.decisions ?? []);
  return Math.max(0, ...decisions.filter(({ state }) => isCommitted(state)).map((d) => d.epoch));
}

async function requireComparable(migration: Migration, heading: Heading, { serving, other }: Opened): Promise<void> {
  const { database, peer } = migration;
  const [first] = serving;
  // One for the whole migration, whatever the number of its shards.
  if (!first || !(await takeComparison(first)))
    throw new CutoverError('refused_now', { problem: `another comparison of ${database} and ${peer} runs` });
  const encodings = new Set(await Promise.all([...serving, ...other].map(encodingOf)));
  if (encodings.size > 1)
    throw new CutoverError('verify_refused', { problem: `they keep text in ${[...encodings].join(' and ')}` });
  for (const [shard, connection] of other.entries())
    for (const { name } of streamsTo(migration, heading, shard)) await requireCopied(connection, name);
}

async function requireCopied(other: Connection, stream: string): Promise<void> {
  const syncs = await tableSyncs(other, stream);
  const unready = syncs.find(({ state }) => state !== 'r');
  if (syncs.length === 0) throw new CutoverError('verify_refused', { problem: 'no stream runs to the other side' });
  if (unready)
    throw new CutoverError('verify_refused', {
      problem: `table ${unready.schema}.${unready.table} is still being copied`,
    });
}

/** What the streams carry, by name: the order in which a comparison goes on after a restart. */
async function streamedTables(
  migration: Migration,
  heading: Heading,
  { serving: [serving] }: Opened,
): Promise<readonly TableName[]> {
  if (!serving) return [];
  const { rows } = await serving.query<TableName>(
    `SELECT schemaname AS schema, tablename AS table FROM pg_publication_tables
     WHERE pubname = $1 AND schemaname <> 'cutover' ORDER BY 1, 2`,
    [firstFrom(migration, heading, 0).name],
  );
  return rows;
}

const nameOf = ({ schema, table }: TableName): string => `${schema}.${table}`;

/** A comparison that a move has overtaken begins anew: what it saw was the other way round. */
function startOf(earlier: VerifyProgress | null, heading: Heading, epoch: number): VerifyProgress {
  if (earlier?.heading === heading && earlier.epoch === epoch) return earlier;
  return {
    ...NOTHING_COUNTED,
    sentence: '',
    heading,
    epoch,
    startedAt: new Date().toISOString(),
    tablesDone: 0,
    tablesTotal: 0,
    position: null,
  };
}

async function compareAll(
  shards: ComparedShards,
  parts: readonly Part[],
  start: VerifyProgress,
  report: Report,
): Promise<VerifyProgress> {
  const tables = [...new Set(parts.map(({ table }) => nameOf(table)))];
  let progress = tell(start, { tablesTotal: tables.length });
  report(progress);
  if (start.position === null && start.tablesDone > 0) return progress;
  // By place in the list rather than by count: a table may have gone since.
  const { position } = start;
  const first = position === null ? 0 : parts.findIndex((part) => isAt(part, position));
  if (first < 0) throw new CutoverError('verify_refused', { problem: 'the tables of the stream have changed' });
  for (const [index, part] of parts.entries()) {
    if (index < first) continue;
    const following = parts[index + 1];
    const afterIt: VerifyPosition | null = following ? { ...placeOf(following), pass: 'there', after: null } : null;
    await compareOne(shards.sidesOf(part), part, index === first ? position : null, (place, counts) => {
      const next = place === null ? afterIt : { ...placeOf(part), ...place };
      const tablesDone = next === null ? tables.length : tables.indexOf(next.table);
      progress = tell(progress, { ...addCounts(progress, counts), tablesDone, position: next });
      report(progress);
    });
  }
  return progress;
}

function placeOf({ table, between }: Part): Pick<VerifyPosition, 'table' | 'between'> {
  return { table: nameOf(table), ...(between === null ? {} : { between }) };
}

function isAt(part: Part, position: VerifyPosition): boolean {
  const [one, other] = [part.between, position.between ?? null];
  const sameShards = one?.from === other?.from && one?.to === other?.to && one?.within === other?.within;
  return nameOf(part.table) === position.table && sameShards;
}

async function compareOne(
  sides: Sides,
  part: Part,
  position: VerifyPosition | null,
  visit: (place: Pick<VerifyPosition, 'pass' | 'after'> | null, counts: VerifyCounts) => void,
): Promise<void> {
  const { serving, other } = sides;
  const described = await describeTable(serving.connection, other.connection, part.table);
  if (typeof described === 'string') {
    const difference = { ...placeOf(part), key: described, problem: 'structure' as const };
    visit(null, { ...NOTHING_COUNTED, differences: 1, samples: [difference] });
    return;
  }
  const { pass, after } = position ?? { pass: 'there', after: null };
  await compareTable(sides, described, { pass, after }, (place, counts) => {
    visit(place, { ...counts, samples: counts.samples.map((sample) => ({ ...sample, ...placeOf(part) })) });
  });
}

function tell(progress: VerifyProgress, change: Partial<VerifyProgress>): VerifyProgress {
  const next = { ...progress, ...change };
  const { tablesDone, tablesTotal, position } = next;
  return { ...next, sentence: progressSentence(next, tablesDone, tablesTotal, position) };
}

/** On both sides, as everything that a decision may rest on. */
async function keep(context: EngineContext, migration: Migration, progress: VerifyProgress): Promise<VerifyResult> {
  const { heading, epoch, startedAt, tablesTotal, rows, bytes, differences, undecided, samples, busyMs } = progress;
  const result: VerifyResult = {
    ...{ heading, epoch, startedAt, rows, bytes, differences, undecided },
    tables: tablesTotal,
    finishedAt: new Date().toISOString(),
    samples: samples.slice(0, SAMPLES_MAX),
    busyMs: Math.round(busyMs),
  };
  for (const side of [migration.destination, migration.source])
    await noteVerification(await connectionTo(context, side), migration.id, result);
  return result;
}

/**
 * Lets a cutover pass when none is required, or when the latest comparison in this heading found both sides equal, is younger than
 * cutover_verify_window, and began after the traffic moved last.
 *
 * @throws CutoverError `verify_required`
 */
export async function requireVerified(context: EngineContext, migration: Migration, heading: Heading): Promise<void> {
  const { verify, verifyWindowMs } = context.config().cutover;
  if (verify === 'off') return;
  const serving = await connectionTo(context, heading === 'forward' ? migration.source : migration.destination);
  const known = await latestVerification(serving, migration.id, heading);
  const problem =
    known?.epoch !== (await lastMove(context, migration))
      ? 'the sides were not compared since the traffic moved last, or never'
      : !isClean(known)
        ? `the last comparison found ${known.differences.toString()} differences and ${known.undecided.toString()} undecided rows`
        : known.ageMs > verifyWindowMs
          ? `the last comparison is ${Math.round(known.ageMs / 1000).toString()} s old`
          : null;
  if (problem === null) return;
  throw new CutoverError('verify_required', { problem, source: migration.database, destination: migration.peer });
}
