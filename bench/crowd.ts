/** One task: measure what idle clients cost the proxy in memory, and when the last of many that were paused is served. */
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { writeConfiguration } from '../src/cli/demo/configuration.js';
import type { Cleanup } from '../src/cli/demo/cleanup.js';
import { startCluster } from '../src/dev/embedded-postgres.js';
import { keepAtEnd, release, removeAtEnd, watch } from '../src/dev/guardian.js';
import { LOOPBACK } from '../src/dev/ports.js';
import { temporaryFolder } from '../src/dev/postgres-binaries.js';
import type { Order, Told } from './crowd-proxy.js';
import { machine } from './machine.js';
import { median, rounded } from './statistics.js';

export interface CrowdOptions {
  readonly clients: number;
  /** pauses, each with a statement of every client waiting */
  readonly rounds: number;
  readonly poolSize: number;
  /** their reads share connections */
  readonly pipelining: boolean;
}

interface FromClients {
  readonly type: 'loggedIn' | 'asked' | 'answered';
  readonly atMs: number;
  readonly lost: number;
}

const DATABASE = 'crowd';
const DEADLINE_MS = 120_000;
const SETTLE_MS = 1_000;
const POLL_MS = 20;
/** The first has the catalogue read, the second a text looked at, and the third finds it measured. */
const ROUNDS_BEFORE = 3;

/** Prints a JSON line for each pause and a summary; answers the exit code. Needs as many open files as there are clients. */
export async function crowd(options: CrowdOptions, cleanup: Cleanup): Promise<number> {
  const at = machine();
  const { proxy, startClients } = await setUp(options, cleanup);
  const before = await told(proxy, 'memory');
  const rssBefore = residentBytes(proxy);
  const clients = startClients();
  await heard(clients, 'loggedIn');
  await delay(SETTLE_MS);
  const rssAfter = residentBytes(proxy);
  const after = await told(proxy, 'memory');
  // Only what has come before is shared, as in a service that is paused while it works.
  for (let round = 0; round < ROUNDS_BEFORE; round += 1) {
    const met = heard(clients, 'answered');
    clients.send('ask');
    await met;
    await delay(SETTLE_MS);
  }
  const each = (bytes: number): number => Math.round(bytes / options.clients);
  const [lastServedMs, processorMs]: [number[], number[]] = [[], []];
  let lost = 0;
  for (let round = 1; round <= options.rounds; round += 1) {
    await told(proxy, 'close');
    const asked = heard(clients, 'asked');
    clients.send('ask');
    await asked;
    await untilWaiting(proxy, options.clients);
    const answered = heard(clients, 'answered');
    const opened = await told(proxy, 'open');
    const last = await answered;
    lost = last.lost;
    const spent = (await told(proxy, 'usage')).processorMs - opened.processorMs;
    lastServedMs.push(last.atMs - opened.atMs);
    processorMs.push(spent);
    const served = { lastServedMs: rounded(last.atMs - opened.atMs), proxyProcessorMs: rounded(spent) };
    process.stdout.write(`${JSON.stringify({ bench: 'crowd', round, ...served })}\n`);
  }
  const busy = await told(proxy, 'memory');
  const line = {
    ...{ bench: 'crowd', summary: true, machine: at, ...options, lost },
    heapBytesEach: each(after.heapUsed - before.heapUsed),
    externalBytesEach: each(after.external - before.external),
    heapBytesEachAfterwards: each(busy.heapUsed - before.heapUsed),
    /** before anything was collected: what the operating system has to have at hand */
    residentBytesEach: each(rssAfter - rssBefore),
    residentBytesEachAfterwards: each(residentBytes(proxy) - rssBefore),
    medianProxyProcessorMs: rounded(median(processorMs)),
    ...{ medianLastServedMs: rounded(median(lastServedMs)), worstLastServedMs: rounded(Math.max(...lastServedMs)) },
  };
  process.stdout.write(`${JSON.stringify(line)}\n`);
  return lost === 0 ? 0 : 1;
}

async function setUp(
  { clients, poolSize, pipelining }: CrowdOptions,
  cleanup: Cleanup,
): Promise<{ readonly proxy: ChildProcess; readonly startClients: () => ChildProcess }> {
  const folder = mkdtempSync(join(temporaryFolder(), 'cutover-bench-'));
  removeAtEnd(folder);
  cleanup.defer('the folder', () => {
    rmSync(folder, { recursive: true, force: true });
    keepAtEnd(folder);
  });
  const cluster = await startCluster({ major: 18, settings: { max_connections: (poolSize + 10).toString() } });
  cleanup.defer('a cluster', () => cluster.remove());
  await cluster.createDatabase(DATABASE);
  const { host, port, user, password = '' } = cluster.endpoint(DATABASE);
  const general = [`default_pool_size = ${poolSize.toString()}`, 'auth_type = "trust"', 'log_connections = false'];
  if (pipelining) general.push('pipelining = "auto"');
  const configuration = await writeConfiguration(
    folder,
    [{ name: DATABASE, host, port, databaseName: DATABASE }],
    [{ name: user, password, schemaAdmin: true }],
    { general: [...general, 'log_disconnections = false'] },
  );
  const { config, users } = configuration.files;
  const proxy = start('crowd-proxy', [config, users, DATABASE], ['--expose-gc'], cleanup);
  const where = [LOOPBACK, configuration.port.toString(), user, DATABASE, clients.toString()];
  return { proxy, startClients: () => start('crowd-clients', where, [], cleanup) };
}

function start(name: string, args: readonly string[], execArgv: readonly string[], cleanup: Cleanup): ChildProcess {
  const module = fileURLToPath(new URL(`./${name}.js`, import.meta.url));
  const child = fork(module, [...args], { execArgv: [...execArgv] });
  const { pid } = child;
  if (pid !== undefined) watch({ pid, signal: 'SIGKILL' });
  const ended = once(child, 'exit');
  cleanup.defer(name, async () => {
    child.kill('SIGKILL');
    await ended;
    if (pid !== undefined) release(pid);
  });
  return child;
}

async function told(proxy: ChildProcess, order: Order): Promise<Told> {
  const answer = once(proxy, 'message', { signal: AbortSignal.timeout(DEADLINE_MS) });
  proxy.send(order);
  return (await answer)[0] as Told;
}

async function heard(clients: ChildProcess, type: FromClients['type']): Promise<FromClients> {
  const signal = AbortSignal.timeout(DEADLINE_MS);
  for (;;) {
    const [message] = (await once(clients, 'message', { signal })) as [FromClients];
    if (message.type === type) return message;
  }
}

async function untilWaiting(proxy: ChildProcess, clients: number): Promise<void> {
  const end = performance.now() + DEADLINE_MS;
  while ((await told(proxy, 'close')).waiting < clients) {
    if (performance.now() > end) throw new Error('not every client waits at the gate');
    await delay(POLL_MS);
  }
  await delay(SETTLE_MS);
}

/** Linux alone tells it so (proc(5)). */
function residentBytes({ pid }: ChildProcess): number {
  const text = readFileSync(`/proc/${String(pid)}/status`, 'utf8');
  return Number(/VmRSS:\s+(\d+) kB/.exec(text)?.[1] ?? NaN) * 1_024;
}
