/** One task: the story of the demo: load, move, move back, move again, all of it under writes; then compare. */
import { compareLedger, type Comparison } from '../../dev/ledger/compare.js';
import { nowMs } from '../../dev/ledger/book.js';
import { startLedger, type Ledger } from '../../dev/ledger/ledger.js';
import { prepareLedger, PUBLICATION, type LoadedHistory } from '../../dev/ledger/prepare.js';
import type { Cluster } from '../../dev/embedded-postgres.js';
import { holdsWithin } from '../../dev/processes.js';
import { withConnection } from '../../postgres/connection.js';
import type { Cleanup } from './cleanup.js';
import { Operator, type Move, type WaitListener } from './operator.js';
import { detail, heading, milliseconds, printCopy, printMove, secondsSince, thousands } from './print.js';
import { APPLICATION_USER, DESTINATION, SOURCE, type Stage } from './stage.js';
import type { RunFacts } from './verdict.js';

export interface StoryOptions {
  readonly rows: number;
  readonly writers: number;
  /** takes one acknowledged row away by hand before the comparison: the run must then fail */
  readonly loseOneWrite: boolean;
}

const RESHARD_DEADLINE_MS = 180_000;
const CUTOVER_DEADLINE_MS = 60_000;
const HALF_SECOND_MS = 500;
const COPY_LINE_EVERY_MS = 1_000;
const SWITCHES = 3;

/** Tells the whole story and answers what it showed. */
export async function tell(stage: Stage, options: StoryOptions, cleanup: Cleanup): Promise<RunFacts> {
  const history = await load(stage, options.rows);
  const ledger = await startLedger({ endpoint: stage.application, writers: options.writers });
  cleanup.defer(() => ledger.stop());
  heading(`Ledger: ${options.writers.toString()} writers and 1 reader work through the proxy until the end`);
  const operator = await Operator.connect(stage.configuration.admin);
  cleanup.defer(() => operator.end());
  const moves = await moveThereAndBack(operator, ledger);
  await ledger.stop();
  const comparison = await compare(stage, ledger, history, options.loseOneWrite);
  const around = moves.map((move) => acknowledgedAround(ledger, move));
  printClients(ledger, moves, around);
  return {
    comparison,
    acknowledged: ledger.acknowledged.length,
    acknowledgedAround: around,
    switchesExpected: SWITCHES,
    refused: ledger.refused.length,
    unknown: ledger.unknown.length,
    staleReads: ledger.reader.wentBack + ledger.reader.missed.length,
  };
}

async function load(stage: Stage, rows: number): Promise<LoadedHistory> {
  heading(`Load: ${thousands(rows)} rows into ${SOURCE}`);
  const started = performance.now();
  const endpoint = stage.source.endpoint(SOURCE);
  const history = await prepareLedger(endpoint, { rows, owner: APPLICATION_USER });
  const [size] = await stage.source.query<{ size: string }>(
    SOURCE,
    'SELECT pg_size_pretty(pg_database_size(current_database())) AS size',
  );
  detail(`${size?.size ?? '?'} in ${secondsSince(started)}`);
  return history;
}

async function moveThereAndBack(operator: Operator, ledger: Ledger): Promise<readonly Move[]> {
  heading(`RESHARD ${SOURCE} ${DESTINATION} ${PUBLICATION}: schema, copy, streams, cutover`);
  const task = await operator.reshard(SOURCE, DESTINATION, PUBLICATION);
  const first = await moved(operator, ledger, task, 0, RESHARD_DEADLINE_MS);
  const reverse = await operator.reverseTask(CUTOVER_DEADLINE_MS);
  heading(`CUTOVER ${reverse}: the rollback`);
  await operator.command(`CUTOVER ${reverse}`);
  const second = await moved(operator, ledger, reverse, first.epoch, CUTOVER_DEADLINE_MS);
  heading(`CUTOVER ${task}: forward again`);
  await operator.command(`CUTOVER ${task}`);
  const third = await moved(operator, ledger, task, second.epoch, CUTOVER_DEADLINE_MS);
  return [first, second, third];
}

/** Waits for the move, and until the second around it has passed. */
async function moved(
  operator: Operator,
  ledger: Ledger,
  task: string,
  epoch: number,
  deadlineMs: number,
): Promise<Move> {
  const move = await operator.untilMoved(task, epoch, deadlineMs, listener());
  printMove(move);
  await holdsWithin(() => nowMs() >= move.resumedAtMs + 2 * HALF_SECOND_MS, 3 * HALF_SECOND_MS);
  detail(`longest gap between two acknowledged writes: ${milliseconds(gapAround(ledger, move))}`);
  return move;
}

/** Prints each phase, and a line a second for each table that is copied. */
function listener(): WaitListener {
  const printedAt = new Map<string, number>();
  return {
    onPhase: (phase) => {
      if (phase !== '') detail(`${phase} …`);
    },
    onCopies: (copies) => {
      // The marker table of the protocol is one row; nobody waits for it.
      for (const copy of copies.filter(({ table }) => !table.startsWith('cutover.'))) {
        const last = printedAt.get(copy.table) ?? -Infinity;
        if (performance.now() - last < COPY_LINE_EVERY_MS) continue;
        printedAt.set(copy.table, performance.now());
        printCopy(copy);
      }
    },
    onAborted: ({ epoch, reason }) => {
      detail(`epoch ${epoch.toString()} was aborted, traffic stays: ${reason ?? 'no reason'}`);
    },
  };
}

/** The second around the middle of the pause. */
function acknowledgedAround(ledger: Ledger, { pausedAtMs, resumedAtMs }: Move): number {
  const middle = (pausedAtMs + resumedAtMs) / 2;
  return ledger.acknowledgedBetween(middle - HALF_SECOND_MS, middle + HALF_SECOND_MS);
}

function gapAround(ledger: Ledger, { pausedAtMs, resumedAtMs }: Move): number {
  return ledger.longestGapBetween(pausedAtMs - HALF_SECOND_MS, resumedAtMs + HALF_SECOND_MS);
}

async function compare(
  stage: Stage,
  ledger: Ledger,
  history: LoadedHistory,
  loseOneWrite: boolean,
): Promise<Comparison> {
  const serving = await servingCluster(stage);
  heading(
    `Comparison with the side that serves: PostgreSQL ${serving.major.toString()}, port ${serving.port.toString()}`,
  );
  if (loseOneWrite) await loseOne(serving, ledger);
  const started = performance.now();
  const comparison = await compareLedger(serving.endpoint(SOURCE), ledger, history);
  detail(`${thousands(ledger.acknowledged.length)} acknowledged writes looked for in ${secondsSince(started)}`);
  detail(`lost ${comparison.lost.length.toString()}, doubled ${comparison.doubled.length.toString()}`);
  detail(`accounts add up: ${yesNo(comparison.balanceOk)}; loaded rows unchanged: ${yesNo(comparison.historyOk)}`);
  return comparison;
}

/** Which cluster the application's name leads to, asked through the proxy. */
async function servingCluster(stage: Stage): Promise<Cluster> {
  const { rows } = await withConnection(stage.application, (connection) =>
    connection.query<{ port: number }>("SELECT current_setting('port')::integer AS port"),
  );
  return rows[0]?.port === stage.destination.port ? stage.destination : stage.source;
}

async function loseOne(serving: Cluster, ledger: Ledger): Promise<void> {
  const write = ledger.acknowledged.find(({ table }) => table === 'documents');
  detail(`by hand: the acknowledged write ${write?.token ?? '?'} is deleted`);
  await serving.query(SOURCE, 'DELETE FROM documents WHERE token = $1', [write?.token]);
}

function printClients(ledger: Ledger, moves: readonly Move[], around: readonly number[]): void {
  heading('What the clients saw');
  const { reads } = ledger.reader;
  detail(`${thousands(ledger.acknowledged.length)} writes acknowledged, ${thousands(reads)} reads answered`);
  for (const [index, move] of moves.entries()) {
    const gap = milliseconds(gapAround(ledger, move));
    detail(
      `switch ${(index + 1).toString()}: ${thousands(around[index] ?? 0)} writes in the second around it, longest gap ${gap}`,
    );
  }
  detail(`longest stall of any client in the whole run: ${milliseconds(ledger.longestStallMs)}`);
  detail(`refused ${thousands(ledger.refused.length)}, without an answer ${thousands(ledger.unknown.length)}`);
  for (const { atMs, client, message } of ledger.refused.slice(0, 5)) {
    detail(`  ${new Date(atMs).toISOString()} ${client}: ${message}`);
  }
}

function yesNo(value: boolean): string {
  return value ? 'yes' : 'NO';
}
