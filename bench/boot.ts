/** One task: measure what migration records cost a proxy at its start: from the process to the first answered query. */
import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Cleanup } from '../src/cli/demo/cleanup.js';
import { Operator } from '../src/cli/demo/operator.js';
import { APPLICATION_USER, DESTINATION, setStage, SOURCE, type Stage } from '../src/cli/demo/stage.js';
import { prepareLedger, PUBLICATION } from '../src/dev/ledger/prepare.js';
import { release, watch } from '../src/dev/guardian.js';
import { invariant } from '../src/errors/invariant.js';
import { freePort, LOOPBACK } from '../src/dev/ports.js';
import { withConnection } from '../src/postgres/connection.js';
import { machine } from './machine.js';
import { median, rounded } from './statistics.js';

export interface BootOptions {
  /** each is a start with records and one without */
  readonly rounds: number;
}

const START_DEADLINE_MS = 60_000;
const MOVE_DEADLINE_MS = 300_000;
/** On both servers, and never part of a migration. */
const UNMOVED_DATABASE = 'unmoved';
const POLL_MS = 5;

/**
 * Prints one JSON line; answers the exit code. Both kinds of start are measured after the move and in turn, on the same servers, with as many
 * databases and users: what the machine does meanwhile hits both, and only the records differ.
 */
export async function boot(options: BootOptions, cleanup: Cleanup): Promise<number> {
  const at = machine();
  const stage = await setStage({ from: 17, to: 18, ui: false, report: () => undefined }, cleanup);
  await prepareLedger(stage.source.endpoint(SOURCE), { rows: 1_000, extraTables: 0, owner: APPLICATION_USER });
  for (const cluster of [stage.source, stage.destination])
    await cluster.query('postgres', `CREATE DATABASE ${UNMOVED_DATABASE} OWNER ${APPLICATION_USER}`);
  const operator = await Operator.connect(stage.configuration.admin);
  cleanup.defer('the operator', () => operator.end());
  const task = await operator.reshard(SOURCE, DESTINATION, PUBLICATION);
  await operator.untilMoved(task, 0, MOVE_DEADLINE_MS, { onAborted: () => undefined });
  const [without, withRecords]: [number[], number[]] = [[], []];
  // The first start reads the program from the disk.
  await start(stage, SOURCE);
  for (let round = 0; round < options.rounds; round += 1) {
    const turns: readonly [string, number[]][] = [
      [UNMOVED_DATABASE, without],
      [SOURCE, withRecords],
    ];
    for (const [database, taken] of round % 2 === 0 ? turns : turns.toReversed())
      taken.push(await start(stage, database));
  }
  // Of the two starts of a round: they saw the same load.
  const more = withRecords.map((ms, round) => ms - (without[round] ?? NaN));
  const line = {
    ...{ bench: 'boot', machine: at, rounds: options.rounds },
    ...{ withoutRecordsMs: rounded(median(without)), withRecordsMs: rounded(median(withRecords)) },
    ...{ moreMs: rounded(median(more)), ratio: rounded(median(withRecords) / median(without), 2) },
  };
  process.stdout.write(`${JSON.stringify(line)}\n`);
  return 0;
}

/** A proxy of its own on the same servers, whose names stand for `database` there; it is measured and ended. */
async function start(stage: Stage, database: string): Promise<number> {
  const port = await freePort();
  const { files, port: usual } = stage.configuration;
  const config = join(stage.folder, 'boot.toml');
  const text = readFileSync(files.config, 'utf8')
    .replace(`port = ${String(usual)}`, `port = ${String(port)}`)
    .replaceAll(`database_name = "${SOURCE}"`, `database_name = "${database}"`);
  invariant(text.split(`database_name = "${database}"`).length === 3, 'both names stand for the chosen database');
  writeFileSync(config, text);
  const main = fileURLToPath(new URL('../src/cli/main.js', import.meta.url));
  const begin = performance.now();
  const args = [main, 'serve', '--no-worker', '--config', config, '--users', files.users];
  const child = spawn(process.execPath, args, { stdio: 'ignore' });
  const ended = new Promise((resolve) => child.once('exit', resolve));
  if (child.pid !== undefined) watch({ pid: child.pid, signal: 'SIGKILL' });
  try {
    await answered({ ...stage.application, host: LOOPBACK, port });
    return performance.now() - begin;
  } finally {
    child.kill('SIGTERM');
    await ended;
    if (child.pid !== undefined) release(child.pid);
  }
}

async function answered(endpoint: Stage['application']): Promise<void> {
  const end = performance.now() + START_DEADLINE_MS;
  for (;;) {
    try {
      await withConnection(endpoint, (connection) => connection.query('SELECT 1'));
      return;
    } catch (error) {
      if (performance.now() > end) throw error;
      await delay(POLL_MS);
    }
  }
}
