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
import { freePort, LOOPBACK } from '../src/dev/ports.js';
import { withConnection } from '../src/postgres/connection.js';
import { machine } from './machine.js';
import { median, rounded } from './statistics.js';

export interface BootOptions {
  /** starts without and with records, one after the other */
  readonly rounds: number;
}

const START_DEADLINE_MS = 60_000;
const MOVE_DEADLINE_MS = 300_000;
const POLL_MS = 5;

/** Prints one JSON line; answers the exit code. */
export async function boot(options: BootOptions, cleanup: Cleanup): Promise<number> {
  const stage = await setStage({ from: 17, to: 18, ui: false, report: () => undefined }, cleanup);
  await prepareLedger(stage.source.endpoint(SOURCE), { rows: 1_000, extraTables: 0, owner: APPLICATION_USER });
  const without = await starts(stage, options.rounds);
  const operator = await Operator.connect(stage.configuration.admin);
  cleanup.defer(() => operator.end());
  const task = await operator.reshard(SOURCE, DESTINATION, PUBLICATION);
  await operator.untilMoved(task, 0, MOVE_DEADLINE_MS, { onAborted: () => undefined });
  const withRecords = await starts(stage, options.rounds);
  const [before, after] = [median(without), median(withRecords)];
  const line = {
    ...{ bench: 'boot', machine: machine(), rounds: options.rounds },
    ...{ withoutRecordsMs: rounded(before), withRecordsMs: rounded(after) },
    ...{ moreMs: rounded(after - before), ratio: rounded(after / before, 2) },
  };
  process.stdout.write(`${JSON.stringify(line)}\n`);
  return 0;
}

async function starts(stage: Stage, rounds: number): Promise<readonly number[]> {
  const taken: number[] = [];
  for (let round = 0; round < rounds; round += 1) taken.push(await start(stage, round));
  return taken;
}

/** A proxy of its own on the same databases; it is measured and ended. */
async function start(stage: Stage, round: number): Promise<number> {
  const port = await freePort();
  const { files, port: usual } = stage.configuration;
  const config = join(stage.folder, `boot-${round.toString()}.toml`);
  writeFileSync(
    config,
    readFileSync(files.config, 'utf8').replace(`port = ${String(usual)}`, `port = ${String(port)}`),
  );
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
