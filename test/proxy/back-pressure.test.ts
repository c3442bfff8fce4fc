/**
 * One task: whoever is slow is waited for, and not for its sake kept in memory: what the proxy holds of a large result, of a large COPY and of
 * a large row is bounded. SHARDED_TESTS=all moves a gigabyte.
 */
import { once } from 'node:events';
import { fork, type ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';
import type { Told } from '../../bench/crowd-proxy.js';
import { writeConfiguration } from '../../src/cli/demo/configuration.js';
import { release, watch } from '../../src/dev/guardian.js';
import { LOOPBACK } from '../../src/dev/ports.js';
import { connect as connectTo } from '../../src/postgres/connection.js';
import { query, startupMessage } from '../../src/wire/frontend.js';
import { frame } from '../../src/wire/backend.js';
import { useClusters } from '../support/clusters.js';
import { THOROUGH } from '../support/thorough.js';
import { until } from '../support/wait.js';

const MEGABYTE = 1_048_576;
const TOTAL_BYTES = (THOROUGH ? 1_024 : 128) * MEGABYTE;
const ROW_BYTES = (THOROUGH ? 256 : 128) * MEGABYTE;
const MORE_BYTES_MAX = 64 * MEGABYTE;
const LINE = `${'x'.repeat(1_023)}\n`;
const READY_IDLE = Buffer.from('Z\0\0\0\x05I', 'latin1');
const TIMEOUT = { timeout: 300_000 };

const clusters = useClusters({ server: { major: 18 } });

let directory: string;
let port: number;
let proxy: ChildProcess;
let user: string;

beforeAll(async () => {
  const { server } = clusters;
  await server.createDatabase('app');
  await server.query('app', 'CREATE TABLE public.line (text text)');
  const endpoint = server.endpoint('app');
  ({ user } = endpoint);
  directory = mkdtempSync(join(tmpdir(), 'cutover-back-pressure-'));
  const configuration = await writeConfiguration(
    directory,
    [{ name: 'app', host: server.host, port: server.port, databaseName: 'app' }],
    [{ name: user, password: endpoint.password ?? 'none', schemaAdmin: true }],
    { general: ['auth_type = "trust"'] },
  );
  ({ port } = configuration);
  const program = fileURLToPath(new URL('../../dist/bench/crowd-proxy.js', import.meta.url));
  proxy = fork(program, [configuration.files.config, configuration.files.users, 'app']);
  watch({ pid: proxy.pid ?? 0, signal: 'SIGKILL' });
  await until('it listens', () => loggedIn().then((socket) => socket.destroy()));
});

afterAll(async () => {
  const ended = once(proxy, 'exit');
  proxy.kill('SIGKILL');
  await ended;
  release(proxy.pid ?? 0);
  rmSync(directory, { recursive: true, force: true });
});

/** What the process of the proxy has, and what nobody has used for long in it is counted too. */
async function residentBytes(): Promise<number> {
  const answer = once(proxy, 'message');
  proxy.send('usage');
  return ((await answer)[0] as Told).rss;
}

async function loggedIn(): Promise<Socket> {
  const socket = connect({ host: LOOPBACK, port });
  socket.on('error', () => undefined);
  socket.write(startupMessage({ user, database: 'app' }));
  for await (const chunk of socket.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>)
    if (chunk.subarray(-READY_IDLE.length).equals(READY_IDLE)) return socket;
  throw new Error('the login failed');
}

/** Reads an answer to its end, after it has not read for a while. Answers its bytes, and the most that the proxy had meanwhile. */
async function readSlowly(
  text: string,
  rests: number,
): Promise<{ readonly bytes: number; readonly mostBytes: number }> {
  const socket = await loggedIn();
  onTestFinished(() => void socket.destroy());
  socket.write(query(text));
  let [bytes, mostBytes, rested] = [0, 0, 0];
  for await (const chunk of socket.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (chunk.subarray(-READY_IDLE.length).equals(READY_IDLE)) break;
    if (rested >= rests || bytes < rested * MEGABYTE) continue;
    rested += 1;
    await sleep(200);
    mostBytes = Math.max(mostBytes, await residentBytes());
  }
  return { bytes, mostBytes: Math.max(mostBytes, await residentBytes()) };
}

test('a large result for a client that reads slowly', TIMEOUT, async () => {
  const before = await residentBytes();
  const lines = TOTAL_BYTES / LINE.length;
  const text = `COPY (SELECT repeat('x', ${(LINE.length - 1).toString()}) FROM generate_series(1, ${lines.toString()})) TO STDOUT`;
  const { bytes, mostBytes } = await readSlowly(text, 10);
  expect(bytes).toBeGreaterThan(TOTAL_BYTES);
  expect(mostBytes - before).toBeLessThan(MORE_BYTES_MAX);
});

test('a row that is larger than all that may be kept', TIMEOUT, async () => {
  const before = await residentBytes();
  const { bytes, mostBytes } = await readSlowly(`SELECT repeat('x', ${ROW_BYTES.toString()})`, 5);
  expect(bytes).toBeGreaterThan(ROW_BYTES);
  expect(mostBytes - before).toBeLessThan(MORE_BYTES_MAX);
});

test('a large COPY to a server that does not read', TIMEOUT, async () => {
  const before = await residentBytes();
  const locker = await connectTo(clusters.server.endpoint('app'));
  onTestFinished(() => locker.end());
  await locker.query('BEGIN; LOCK TABLE public.line');
  const socket = await loggedIn();
  onTestFinished(() => void socket.destroy());
  socket.write(query('COPY public.line FROM STDIN'));
  const piece = frame('d', Buffer.from(LINE.repeat(64)));
  const pieces = TOTAL_BYTES / (64 * LINE.length);
  let mostBytes = 0;
  let held = false;
  for (let sent = 0; sent < pieces; sent += 1) {
    if (socket.write(piece)) continue;
    const drained = once(socket, 'drain');
    if (!held && (await Promise.race([drained, sleep(500, null)])) === null) {
      // Nobody takes more: the proxy, and every buffer on the way, has what it may have.
      held = true;
      mostBytes = await residentBytes();
      await locker.query('COMMIT');
    }
    await drained;
    if (sent % 64 === 0) mostBytes = Math.max(mostBytes, await residentBytes());
  }
  socket.write(frame('c'));
  await until('it is answered', async () => {
    for await (const chunk of socket.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>)
      if (chunk.subarray(-READY_IDLE.length).equals(READY_IDLE)) return true;
    return false;
  });
  expect(held).toBe(true);
  expect(mostBytes - before).toBeLessThan(MORE_BYTES_MAX);
  const [counted] = await clusters.server.query<{ count: string }>('app', 'SELECT count(*)::text FROM public.line');
  expect(Number(counted?.count)).toBe(TOTAL_BYTES / LINE.length);
});
