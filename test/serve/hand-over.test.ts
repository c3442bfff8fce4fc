/** One task: `serve` is followed by another process of the same node, on the same port, without a client that is refused. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { spawn, type ChildProcess } from 'node:child_process';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';
import { release, watch } from '../../src/dev/guardian.js';
import { freePorts, LOOPBACK } from '../../src/dev/ports.js';
import { childrenOf, isRunning, signalProcess } from '../../src/dev/processes.js';
import { RemoteNode } from '../../src/fleet/remote-node.js';
import { withConnection } from '../../src/postgres/connection.js';
import type { Endpoint } from '../../src/postgres/endpoint.js';
import { useClusters } from '../support/clusters.js';
import { configText, usersText } from '../support/served.js';
import { until } from '../support/wait.js';

const PROGRAM = fileURLToPath(new URL('../../dist/src/cli/main.js', import.meta.url));
const FLOWS = 4;
/** Of a process, on a machine that is busy. */
const START_DEADLINE_MS = 50_000;

const clusters = useClusters({ server: { major: 18, auth: 'scram' } });

let directory: string;
let port: number;
let healthPort: number;
let args: readonly string[];
let config: string;

beforeAll(async () => {
  const { server } = clusters;
  await Promise.all(['app', 'other'].map((name) => server.createDatabase(name)));
  [port = 0, healthPort = 0] = await freePorts(2);
  directory = mkdtempSync(join(tmpdir(), 'cutover-hand-over-'));
  config = configText(server, server, `healthcheck_port = ${healthPort.toString()}\nshutdown_timeout = 20000`)
    .replace('port = 0', `port = ${port.toString()}`)
    .replace(/app"\n$/, 'other"\n');
  const files = [join(directory, 'pgdog.toml'), join(directory, 'users.toml')] as const;
  writeFileSync(files[0], config);
  writeFileSync(files[1], usersText(server, server));
  args = [PROGRAM, 'serve', '--no-worker', '--config', files[0], '--users', files[1]];
});

afterAll(() => {
  rmSync(directory, { recursive: true, force: true });
});

/** A process and those that follow it, which write into the same log. */
class Line {
  readonly pids: number[] = [];
  readonly process: ChildProcess;
  output = '';

  constructor(child: ChildProcess) {
    this.process = child;
    this.add(child.pid ?? 0);
    child.stderr?.on('data', (chunk: Buffer) => (this.output += chunk.toString()));
    onTestFinished(async () => {
      // One that was started and has not said so is among them.
      const all = new Set(this.pids.flatMap((pid) => [...childrenOf(pid), pid]));
      for (const pid of all) signalProcess(pid, 'SIGKILL');
      await until('they are gone', () => ![...all].some(isRunning));
      this.pids.forEach(release);
    });
  }

  static start(): Line {
    return new Line(spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'pipe'] }));
  }

  add(pid: number): void {
    this.pids.push(pid);
    watch({ pid, signal: 'SIGKILL' });
  }

  says(text: string, times = 1): Promise<unknown> {
    return until(
      `the log says ${text}: ${this.output}`,
      () => this.output.split(text).length > times,
      START_DEADLINE_MS,
    );
  }

  async successor(): Promise<number> {
    await this.says('"successor":', this.pids.length);
    const pid = Number([...this.output.matchAll(/"successor":(\d+)/g)].at(-1)?.[1]);
    this.add(pid);
    return pid;
  }

  tell(signal: NodeJS.Signals): void {
    process.kill(this.pids.at(-1) ?? 0, signal);
  }
}

const application = (): pg.ClientConfig => ({
  host: LOOPBACK,
  port,
  database: 'prod',
  user: 'app',
  password: 'app secret',
});
const administration = (): pg.ClientConfig => ({
  ...{ host: LOOPBACK, port, database: 'admin', user: 'admin', password: 'admin secret' },
});

async function clientOf(how: pg.ClientConfig): Promise<pg.Client> {
  const client = new pg.Client(how);
  client.on('error', () => undefined);
  onTestFinished(() => client.end().catch(() => undefined));
  await client.connect();
  return client;
}

/** Clients that come, ask and leave, one after the other in each of several flows, until they are told to stop. */
class Visitors {
  readonly errors: string[] = [];
  visits = 0;
  #stopped = false;
  readonly #flows = Array.from({ length: FLOWS }, () => this.#flow());

  async #flow(): Promise<void> {
    while (!this.#stopped) {
      const client = new pg.Client(application());
      client.on('error', () => undefined);
      try {
        await client.connect();
        await client.query('SELECT 1');
        await client.end();
        this.visits += 1;
      } catch (error) {
        this.errors.push(String(error));
      }
    }
  }

  async more(): Promise<void> {
    const before = this.visits;
    await until('more visits', () => this.visits > before + 2 * FLOWS);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#flows);
  }
}

const state = `CUTOVER_NODE state '{"database": "prod"}'`;
/** What a cutover that was asked for before the hand-over says next, as the engine says it. */
const pause = (): string => {
  const server = { systemIdentifier: '7300', databaseOid: 16_384 };
  const request = { database: 'prod', peer: 'prod_new', epoch: 1, source: server, destination: server };
  const limits = { leaseMs: 2_000, drainMs: 1_000, drainAction: 'abort' };
  return `CUTOVER_NODE pause '${JSON.stringify({ ...request, ...limits })}'`;
};
const healthy = async (): Promise<number> =>
  (await fetch(`http://${LOOPBACK}:${healthPort.toString()}/healthz`, { headers: { connection: 'close' } })).status;

test(
  'a second process accepts before the first one stops; nobody is refused, a transaction ends, and no cutover may begin meanwhile',
  { timeout: 180_000 },
  async () => {
    const line = Line.start();
    await line.says('"listening"');
    const [first = 0] = line.pids;
    const inTransaction = await clientOf(application());
    await inTransaction.query('BEGIN');
    const resting = await clientOf(application());
    const admin = await clientOf(administration());
    await expect(admin.query(state)).resolves.toBeDefined();
    const visitors = new Visitors();
    await visitors.more();

    line.tell('SIGUSR2');
    const second = await line.successor();
    await visitors.more();
    expect(await healthy()).toBe(200);
    // One connection was made to the first process, the other one is made to the second.
    const both = [admin, await clientOf(administration())];
    for (const process of both)
      for (const order of [state, pause()])
        await expect(process.query(order)).rejects.toThrow('two processes serve its clients');
    const asked = new RemoteNode('local', () => ({ ...application(), ...administration() }) as Endpoint);
    onTestFinished(() => asked.close());
    await expect(asked.state('prod')).rejects.toMatchObject({ code: 'node_handed_over' });
    expect(isRunning(first)).toBe(true);
    await resting.query('SELECT 1');
    await resting.end();
    await inTransaction.query('CREATE TABLE made_in_between ()');
    await inTransaction.query('COMMIT');
    await inTransaction.end();

    await until('the first process has ended', () => line.process.exitCode !== null, START_DEADLINE_MS);
    expect(line.process.exitCode).toBe(0);
    await visitors.more();
    await visitors.stop();
    expect(visitors.errors).toEqual([]);
    expect(await healthy()).toBe(200);
    await until('the second process knows', async () =>
      (await clientOf(administration())).query(state).catch(() => null),
    );
    expect(isRunning(second)).toBe(true);

    // Held by hand: the next process would not know of it, and let them through.
    await withConnection({ ...administration() } as never, async (connection) => {
      await connection.query('PAUSE prod');
      line.tell('SIGUSR2');
      await line.says('are held (pause)');
      await connection.query('RESUME prod');
    });
    writeFileSync(args[4] ?? '', 'no configuration');
    line.tell('SIGUSR2');
    await line.says('its log says why');
    writeFileSync(args[4] ?? '', config);
    const guest = await clientOf(application());
    expect((await guest.query('TABLE made_in_between')).rowCount).toBe(0);
    await guest.end();
    // And once more, from the process that took over.
    line.tell('SIGUSR2');
    await line.successor();
    await until('the second process has ended', () => !isRunning(second), START_DEADLINE_MS);
    expect(await healthy()).toBe(200);
  },
);

test('a socket that systemd listens at is taken: who connects before the process is there waits', async () => {
  const socket = createServer();
  await new Promise<void>((resolve) => socket.listen({ host: LOOPBACK, port: 0 }, resolve));
  const { port: given } = socket.address() as AddressInfo;
  const { fd } = (socket as unknown as { readonly _handle: { readonly fd: number } })._handle;
  writeFileSync(args[4] ?? '', config.replace(/^healthcheck_port.*$/m, ''));
  const start = ['-c', 'LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"', 'sh', process.execPath, ...args];
  const line = new Line(spawn('sh', start, { stdio: ['ignore', 'ignore', 'pipe', fd] }));
  socket.close();
  expect(line.output).toBe('');
  const client = await clientOf({ ...application(), port: given });
  expect((await client.query('SELECT 1')).rowCount).toBe(1);
  line.tell('SIGTERM');
  await until('it has ended', () => line.process.exitCode !== null);
});
