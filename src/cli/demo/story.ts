/** One task: the story of the demo: load, move, move back, move again, all of it under writes; then compare. */
import { compareLedger, type Comparison } from '../../dev/ledger/compare.js';
import { startLedger, type Ledger } from '../../dev/ledger/ledger.js';
import { prepareLedger, PUBLICATION, type LoadedHistory } from '../../dev/ledger/prepare.js';
import type { Cluster } from '../../dev/embedded-postgres.js';
import { withConnection } from '../../postgres/connection.js';
import type { Cleanup } from './cleanup.js';
import { acknowledgedAround, printClients } from './clients.js';
import { moveThereAndBack, SWITCHES } from './moves.js';
import { Operator } from './operator.js';
import { detail, heading, secondsSince, thousands, yesNo } from './print.js';
import { APPLICATION_USER, DESTINATION, SOURCE, type Stage } from './stage.js';
import type { RunFacts } from './verdict.js';

export interface StoryOptions {
  readonly rows: number;
  readonly writers: number;
  /** takes one acknowledged row away by hand before the comparison: the run must then fail */
  readonly loseOneWrite: boolean;
}

/** Tells the whole story and answers what it showed. */
export async function tell(stage: Stage, options: StoryOptions, cleanup: Cleanup): Promise<RunFacts> {
  const history = await load(stage, options.rows);
  const ledger = await startLedger({ endpoint: stage.application, writers: options.writers });
  cleanup.defer('the ledger', () => ledger.stop());
  heading(`Ledger: ${options.writers.toString()} writers and 1 reader work through the proxy until the end`);
  const operator = await Operator.connect(stage.configuration.admin);
  cleanup.defer('the operator', () => operator.end());
  const moves = await moveThereAndBack(operator, ledger, { destination: DESTINATION, publication: PUBLICATION });
  await ledger.stop();
  const comparison = await compare(stage, ledger, history, options.loseOneWrite);
  const around = moves.map((move) => acknowledgedAround(ledger, move));
  printClients({
    writes: ledger,
    acknowledged: ledger.acknowledged.length,
    reads: ledger.reader.reads,
    refused: ledger.refused,
    unknown: ledger.unknown.length,
    longestStallMs: ledger.longestStallMs,
    moves,
  });
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
