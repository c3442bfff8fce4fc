/** One task: what load balancers, scrapers and readers of the log are told of a real proxy, through a pause, a lost server and a shutdown. */
import { connect } from 'node:net';
import { expect, test } from 'vitest';
import { parseConfig } from '../../src/config/load.js';
import { ChaosProxy } from '../../src/dev/chaos-proxy.js';
import { LOOPBACK } from '../../src/dev/ports.js';
import { CutoverError } from '../../src/errors/errors.js';
import { Journal } from '../../src/proxy/journal.js';
import { useClusters } from '../support/clusters.js';
import { THOROUGH } from '../support/thorough.js';
import { leaksIn } from '../support/secrets.js';
import { until } from '../support/wait.js';
import { samplesOf, valueOf } from './exposition.js';
import {
  ADMIN_PASSWORD,
  get,
  ODD_USER,
  PASSWORD,
  readiness,
  recorder,
  scrape,
  watched,
  type LogLine,
  type Watched,
} from './watching.js';

const BOTH = 'healthcheck_port = 0\nopenmetrics_port = 0';
const clusters = useClusters({ main: { major: 17, auth: 'scram' } });

test('each path answers what it should, and nothing else does', async () => {
  const { served } = await watched(clusters.main, BOTH);
  const port = served.monitoring?.healthcheckPort ?? 0;
  expect(served.monitoring?.openmetricsPort).toBe(port);
  expect(await get(port, '/healthz')).toMatchObject({ status: 200, type: 'application/json' });
  expect(await readiness(port)).toEqual({ status: 200, reasons: [] });
  expect(await get(port, '/metrics?x=1')).toMatchObject({
    status: 200,
    type: 'application/openmetrics-text; version=1.0.0; charset=utf-8',
  });
  expect(await get(port, '/metrics', 'HEAD')).toMatchObject({ status: 200, body: '' });
  for (const path of ['/', '/metrics/', '/..', '/readyz/x'])
    expect(await get(port, path)).toMatchObject({ status: 404 });
  for (const method of ['POST', 'DELETE', 'OPTIONS'])
    expect(await get(port, '/readyz', method)).toMatchObject({ status: 405 });
});

test('nobody listens unless told to, and each port tells its own alone', async () => {
  const none = await watched(clusters.main, '');
  expect(none.served.monitoring).toMatchObject({ healthcheckPort: null, openmetricsPort: null });
  const { served } = await watched(clusters.main, 'openmetrics_port = 0\nopenmetrics_namespace = "pgdog."');
  const port = served.monitoring?.openmetricsPort ?? 0;
  expect(await get(port, '/healthz')).toMatchObject({ status: 404 });
  expect([...(await scrape(port)).keys()].every((name) => name.startsWith('pgdog_'))).toBe(true);
});

test('one who says too much, or opens too many connections, is cut off; the others are served', async () => {
  const { served } = await watched(clusters.main, BOTH);
  const port = served.monitoring?.healthcheckPort ?? 0;
  const talker = connect(port, LOOPBACK);
  talker.on('error', () => undefined);
  let heard = '';
  talker.on('data', (chunk: Buffer) => (heard += chunk.toString()));
  talker.write(`GET /healthz HTTP/1.1\r\nx: ${'a'.repeat(20_000)}`);
  await until('it was cut off', () => talker.destroyed || talker.readableEnded);
  expect(heard).toMatch(/^HTTP\/1\.1 431 /);
  let closed = 0;
  const many = Array.from({ length: 80 }, () => {
    const socket = connect(port, LOOPBACK);
    socket.on('error', () => undefined);
    socket.on('close', () => (closed += 1));
    return socket;
  });
  await until('those beyond the limit are closed', () => closed === 16);
  for (const socket of many) socket.destroy();
  await until('there is room again', async () => (await get(port, '/healthz')).status === 200);
});

if (THOROUGH)
  test('one who never comes to the end of its request is cut off', async () => {
    const { served } = await watched(clusters.main, BOTH);
    const slow = connect(served.monitoring?.healthcheckPort ?? 0, LOOPBACK);
    slow.on('error', () => undefined);
    slow.resume();
    slow.write('GET /healthz HTTP/1.1\r\n');
    const drip = setInterval(() => slow.write('x: y\r\n'), 200);
    await until('it was cut off', () => slow.destroyed || slow.readableEnded);
    clearInterval(drip);
  });

test('a pause does not take the proxy out of a load balancer, and the metrics tell of it', async () => {
  const { served, client, admin } = await watched(clusters.main, BOTH);
  const port = served.monitoring?.healthcheckPort ?? 0;
  const held = await client();
  await admin('PAUSE prod');
  const answer = held.query('SELECT 1');
  await until('the client is held', () => served.proxy.gate('prod').waitingCount === 1);
  expect(await readiness(port)).toEqual({ status: 200, reasons: [] });
  const inside = await scrape(port);
  expect(samplesOf(inside, 'gate_closed').flatMap(({ labels, value }) => (value === 1 ? [labels.reason] : []))).toEqual(
    ['pause'],
  );
  expect(valueOf(inside, 'gate_clients_held', { database: 'prod' })).toBe(1);
  expect(valueOf(inside, 'clients', { state: 'waiting' })).toBe(1);
  await admin('RESUME prod');
  await answer;
  const after = await scrape(port);
  expect(valueOf(after, 'gate_closed', { reason: 'pause' })).toBe(0);
  expect(valueOf(after, 'gate_clients_held', { database: 'prod' })).toBe(0);
  expect(samplesOf(after, 'gate_last_pause_seconds')).toEqual([]);
  await held.end();
});

test('figures move when queries run, labels are escaped, and no secret is among them', async () => {
  const { served, client } = await watched(clusters.main, BOTH);
  const port = served.monitoring?.openmetricsPort ?? 0;
  const before = await scrape(port);
  const odd = { database: 'prod', user: ODD_USER };
  expect(valueOf(before, 'total_query_count', odd)).toBe(0);
  const one = await client({ user: ODD_USER });
  for (let count = 0; count < 3; count += 1) await one.query('SELECT 1');
  await expect(one.query('SELECT 1 / 0')).rejects.toThrow('division by zero');
  await one.query('BEGIN');
  await until('all of it is counted', async () => valueOf(await scrape(port), 'total_query_count', odd) === 5);
  const { body } = await get(port, '/metrics');
  const after = await scrape(port);
  const expected = { total_xact_count: 4, total_connect_count: 1, max_connections: 10, sv_idle_xact: 1, sv_idle: 0 };
  for (const [family, value] of Object.entries(expected)) expect(valueOf(after, family, odd), family).toBe(value);
  for (const family of ['total_received', 'total_sent', 'total_query_time', 'total_xact_time', 'total_connect_time'])
    expect(valueOf(after, family, odd), family).toBeGreaterThan(0);
  expect(valueOf(after, 'total_query_count', { user: 'app' })).toBe(0);
  expect(valueOf(after, 'clients', { state: 'idle in transaction' })).toBe(1);
  expect(valueOf(after, 'server_up', { database: 'prod' })).toBe(1);
  expect(valueOf(after, 'client_connections')).toBe(1);
  expect(leaksIn({ metrics: body }, [PASSWORD, ADMIN_PASSWORD, clusters.main.password])).toEqual([]);
  await one.end();
});

test('without a server it is not ready and says why; when the server is back it is ready by itself', async () => {
  const chaos = await ChaosProxy.listen(clusters.main.port);
  try {
    chaos.set('reset');
    const { served } = await watched(clusters.main, BOTH, chaos.port);
    const port = served.monitoring?.healthcheckPort ?? 0;
    const { status, reasons } = await readiness(port);
    expect({ status, reasons: reasons.length }).toEqual({ status: 503, reasons: 1 });
    expect(reasons[0]).toContain(`prod has no server that can be reached: ${LOOPBACK}:${chaos.port.toString()} `);
    expect(valueOf(await scrape(port), 'server_up')).toBe(0);
    expect(await get(port, '/healthz')).toMatchObject({ status: 200 });
    // As in a cutover: the server may be away, and clients wait for another one.
    served.proxy.gate('prod').close('cutover');
    expect(await readiness(port)).toEqual({ status: 200, reasons: [] });
    served.proxy.gate('prod').open('cutover');
    expect(await readiness(port)).toMatchObject({ status: 503 });
    chaos.set('calm');
    await until('it is ready', async () => (await readiness(port)).status === 200);
    expect(valueOf(await scrape(port), 'server_up')).toBe(1);
  } finally {
    await chaos.close();
  }
});

test('clients held while the record is read do not make it not ready; a record that nobody can read does', async () => {
  const { served } = await watched(clusters.main, BOTH);
  const port = served.monitoring?.healthcheckPort ?? 0;
  const gate = served.proxy.gate('prod');
  gate.close('recovery');
  expect(await readiness(port)).toMatchObject({ status: 200 });
  const { CutoverError } = await import('../../src/errors/errors.js');
  gate.fail({
    problem: new CutoverError('undecided', { database: 'prod', problem: 'nobody answers' }),
    patienceMs: 100,
  });
  expect(await readiness(port)).toMatchObject({ status: 503, reasons: [expect.stringContaining('nobody answers')] });
});

test('while it shuts down it is not ready from the first moment on, and answers until the last transaction has ended', async () => {
  const { served, client } = await watched(clusters.main, BOTH);
  const port = served.monitoring?.healthcheckPort ?? 0;
  const last = await client();
  await last.query('BEGIN');
  const closed = served.close(10_000);
  expect(await readiness(port)).toEqual({ status: 503, reasons: ['shutting down'] });
  expect(await get(port, '/healthz')).toMatchObject({ status: 503 });
  expect(valueOf(await scrape(port), 'clients', { state: 'idle in transaction' })).toBe(1);
  await last.query('COMMIT');
  await closed;
  await expect(get(port, '/healthz')).rejects.toThrow('ECONNREFUSED');
});

test('a port that is taken ends the start, and leaves nothing open', async () => {
  const { served } = await watched(clusters.main, BOTH);
  const port = served.monitoring?.healthcheckPort ?? 0;
  const taken = `healthcheck_port = 0\nopenmetrics_port = ${port.toString()}`;
  await expect(watched(clusters.main, taken)).rejects.toThrow('EADDRINUSE');
});

// ---- the log: a line for each client that comes and goes and for each error it is told, and never a secret

const of = (lines: readonly LogLine[], message: string): LogLine[] => lines.filter((line) => line.message === message);
const gone = async (lines: readonly LogLine[], count: number): Promise<readonly LogLine[]> =>
  until('they have left', () => {
    const left = of(lines, 'client disconnected');
    return left.length === count && left;
  });

test('a client that comes and goes', async () => {
  const { lines, client } = await watched(clusters.main, '');
  const one = await client({ application_name: 'a'.repeat(200) });
  const [connected] = of(lines, 'client connected');
  expect(connected).toMatchObject({ level: 'info', user: 'app', database: 'prod', tls: 'no' });
  expect(connected?.application).toBe(`${'a'.repeat(63)}…`);
  expect(connected?.address).toMatch(/^127\.0\.0\.1:\d+$/);
  await one.query('SELECT 1');
  await expect(one.query('SELECT 1 / 0')).rejects.toThrow();
  await one.end();
  const [left] = await gone(lines, 1);
  expect(left).toMatchObject({ client: connected?.client, address: connected?.address, user: 'app', database: 'prod' });
  expect(left).toMatchObject({ queries: 2, transactions: 2, errors: 1 });
  for (const field of ['durationMs', 'bytesReceived', 'bytesSent'])
    expect(Number(left?.[field]), field).toBeGreaterThanOrEqual(0);
});

test('the two keys say which lines are written, from the next RELOAD on', async () => {
  const { lines, client, admin, rewrite, served } = await watched(clusters.main, 'log_connections = false');
  await (await client()).end();
  await gone(lines, 1);
  expect(of(lines, 'client connected')).toEqual([]);
  rewrite('log_connections = true\nlog_disconnections = false\nopenmetrics_port = 1');
  await admin('RELOAD');
  expect(of(lines, 'where monitoring listens has changed in the files: that is read at the start only')).toHaveLength(
    1,
  );
  const before = lines.length;
  await (await client()).end();
  await until('nobody is left', () => served.proxy.clients().length === 0);
  expect(lines.slice(before).map(({ message }) => message)).toEqual(['client connected']);
});

async function makeEveryError({ client, admin }: Watched): Promise<void> {
  await expect(client({ password: 'the wrong secret' })).rejects.toThrow('password authentication failed');
  await expect(client({ database: 'nowhere' })).rejects.toThrow();
  await expect(admin(`PROBE 'postgresql://u:a secret in a command@h/d' ???`)).rejects.toThrow();
}

test('each error that a client is told by the proxy, with its code, who was told, and no secret', async () => {
  const program = await watched(clusters.main, 'healthcheck_port = 0\nopenmetrics_port = 0\nquery_timeout = 60000');
  const { lines, served, client } = program;
  await makeEveryError(program);
  const one = await client();
  await one.query({ text: 'SELECT $1::text', values: ['a secret parameter'] });
  await one.query(`SELECT 'a secret in a text'`);
  await expect(one.query(`SELECT int 'a secret that is no number'`)).rejects.toThrow();
  await one.query('BEGIN');
  await served.close(0);
  const told = of(lines, 'error told to a client');
  expect(told.map(({ code, severity, level }) => `${String(code)} ${String(severity)} ${level}`)).toEqual([
    'login_failed FATAL warn',
    'database_unknown FATAL warn',
    'admin_syntax ERROR info',
    'shutting_down FATAL info',
  ]);
  expect(told[0]).toMatchObject({
    sqlstate: '28P01',
    user: 'app',
    address: expect.stringContaining('127.0.0.1:') as string,
  });
  expect(told[0]?.problem).toContain('password authentication failed for user "app"');
  expect(told[2]).not.toHaveProperty('problem');
  expect(told[3]).toMatchObject({ user: 'app', database: 'prod', client: expect.any(Number) as number });
  const secrets = ['a secret', 'wrong secret', PASSWORD, ADMIN_PASSWORD, clusters.main.password];
  expect(leaksIn({ log: lines }, secrets)).toEqual([]);
});

test('who repeats an error does not fill the log: what is left out is counted', async () => {
  const { lines, logger } = recorder();
  const { logging } = parseConfig({ file: 'c', text: '' }, { file: 'u', text: '' }, { environment: {} });
  const journal = new Journal(logger, () => logging);
  const error = new CutoverError('admin_simple_only');
  for (let count = 0; count < 300; count += 1) journal.told(error, 'ERROR', {});
  expect(journal.counts.errors).toEqual([{ code: 'admin_simple_only', count: 300 }]);
  expect(of(lines, 'error told to a client').length).toBeLessThan(300);
  await until('every error is accounted for', () => {
    journal.sweep();
    const leftOut = of(lines, 'more errors were told to clients than are logged').map((line) => Number(line.lines));
    return of(lines, 'error told to a client').length + leftOut.reduce((sum, each) => sum + each, 0) === 300;
  });
});
