/**
 * One task: measure what the engine, which runs beside the proxy, adds to the latency of a client while it works.
 *
 * Another client asks through a bare Node relay meanwhile, which has a process to itself: what that one waits longer is due to the servers
 * and Temporal, which use the same processors.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Cleanup } from '../src/cli/demo/cleanup.js';
import { Operator } from '../src/cli/demo/operator.js';
import { startProgram } from '../src/cli/demo/program.js';
import { APPLICATION_USER, DESTINATION, setStage, SOURCE } from '../src/cli/demo/stage.js';
import { nowMs } from '../src/dev/ledger/book.js';
import { prepareLedger, PUBLICATION } from '../src/dev/ledger/prepare.js';
import { keepAtEnd, removeAtEnd } from '../src/dev/guardian.js';
import { freePort, LOOPBACK } from '../src/dev/ports.js';
import { temporaryFolder } from '../src/dev/postgres-binaries.js';
import { connect, type Connection } from '../src/postgres/connection.js';
import type { Endpoint } from '../src/postgres/endpoint.js';
import { DiskProbe } from './disk-probe.js';
import { machine } from './machine.js';
import { SlowTemporal } from './slow-temporal.js';
import { rounded } from './statistics.js';
import { Switcher, type WatchedLoad } from './switcher.js';

export interface BesideOptions {
  readonly tables: number;
  /** each is a cutover and a rollback */
  readonly runs: number;
  readonly idleSeconds: number;
}

const SHARE = 0.999;
/** More than an hour of them. */
const SAMPLES_MAX = 50_000_000;

/** Prints a JSON line for each run and a summary; answers the exit code. */
export async function beside(options: BesideOptions, cleanup: Cleanup): Promise<number> {
  const at = machine();
  const stage = await setStage({ from: 17, to: 18, ui: false, report: () => undefined }, cleanup);
  await prepareLedger(stage.source.endpoint(SOURCE), {
    ...{ rows: 20_000, extraTables: options.tables },
    owner: APPLICATION_USER,
  });
  const connection = await connect(stage.application);
  cleanup.defer('the client', () => connection.end());
  const relayed = await throughRelay(stage.source.endpoint('postgres'), cleanup);
  const operator = await Operator.connect(stage.configuration.admin);
  cleanup.defer('the operator', () => operator.end());
  const disk = new DiskProbe();
  cleanup.defer('the disk probe', () => disk.end());
  const [client, control] = [new Asker(connection), new Asker(relayed)];
  await delay(options.idleSeconds * 1_000);
  const [idle, idleControl] = [client.take(), control.take()];
  const switcher = new Switcher(operator, client, disk, new SlowTemporal(0));
  await switcher.repeat({ destination: DESTINATION, publication: PUBLICATION }, options.runs);
  const [busy, busyControl] = [client.take(), control.take()];
  await Promise.all([client.stop(), control.stop()]);
  const line = {
    ...{ bench: 'beside', summary: true, machine: at, ...options, switches: 2 * options.runs, errors: client.errors },
    ...{ idleSamples: idle.length, busySamples: busy.length },
    ...added(idle, busy),
    bareRelay: added(idleControl, busyControl),
  };
  process.stdout.write(`${JSON.stringify(line)}\n`);
  return client.errors === 0 ? 0 : 1;
}

async function throughRelay(server: Endpoint, cleanup: Cleanup): Promise<Connection> {
  const port = await freePort();
  const module = fileURLToPath(new URL('./bare-relay.js', import.meta.url));
  const folder = mkdtempSync(join(temporaryFolder(), 'cutover-bench-'));
  removeAtEnd(folder);
  cleanup.defer('the folder', () => {
    rmSync(folder, { recursive: true, force: true });
    keepAtEnd(folder);
  });
  const args = [module, server.host, server.port.toString(), port.toString()];
  const logFile = join(folder, 'relay.log');
  const relay = await startProgram({ name: 'bare-relay', command: process.execPath, args, port, logFile });
  cleanup.defer('the relay', () => relay.stop());
  const connection = await connect({ ...server, host: LOOPBACK, port });
  cleanup.defer('the client of the relay', () => connection.end());
  return connection;
}

function added(idle: readonly number[], busy: readonly number[]): Readonly<Record<string, number>> {
  const [idleMs, busyMs] = [quantile(idle), quantile(busy)];
  return { idleMs: rounded(idleMs, 2), busyMs: rounded(busyMs, 2), addedMs: rounded(busyMs - idleMs, 2) };
}

function quantile(latenciesMs: readonly number[]): number {
  const sorted = Float64Array.from(latenciesMs).sort();
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * SHARE))] ?? NaN;
}

/** Asks one statement after the other, and keeps how long each took. */
class Asker implements WatchedLoad {
  errors = 0;
  readonly #connection: Connection;
  readonly #running: Promise<void>;
  #latenciesMs: number[] = [];
  /** those of the last seconds that took long, for the switches */
  #slow: { readonly atMs: number; readonly ms: number }[] = [];
  #stopped = false;

  constructor(connection: Connection) {
    this.#connection = connection;
    this.#running = this.#run();
  }

  async #run(): Promise<void> {
    for (let asked = 0; asked < SAMPLES_MAX && !this.#stopped; asked += 1) {
      const begin = performance.now();
      await this.#connection.query('SELECT 1').catch(() => (this.errors += 1));
      const ms = performance.now() - begin;
      this.#latenciesMs.push(ms);
      if (ms > 5) this.#slow = [...this.#slow.slice(-999), { atMs: nowMs(), ms }];
    }
  }

  /** What was measured since the last call. */
  take(): readonly number[] {
    const taken = this.#latenciesMs;
    this.#latenciesMs = [];
    return taken;
  }

  longestGapBetween(fromMs: number, toMs: number): number {
    return this.longestStallBetween(fromMs, toMs);
  }

  longestStallBetween(fromMs: number, toMs: number): number {
    const within = this.#slow.filter(({ atMs }) => atMs >= fromMs && atMs <= toMs);
    return Math.max(0, ...within.map(({ ms }) => ms));
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
  }
}
