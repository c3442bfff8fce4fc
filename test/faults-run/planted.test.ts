/** One task: plant in a healthy system each thing that must never be, and see that the checks after a fault find it. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { contents, leftBehind, oneWriter, stalls, wrongSide } from './checks.js';
import { Load, type Seen } from './load.js';
import { FaultSystem } from './system.js';
import { until } from '../support/wait.js';

const LEASE_MS = 2_000;

let system: FaultSystem;
let load: Load;
let seen: Seen;

beforeAll(async () => {
  system = await FaultSystem.start('apart', LEASE_MS);
  load = new Load(system);
  await load.start();
  expect(await system.resultOf(await system.startMove(false))).toMatchObject({ moved: true });
  await load.flows();
  seen = await load.stop();
  await Promise.all(system.directWriters.map((writer) => writer.stop()));
});

afterAll(async () => {
  await system.stop();
});

const violations = (): Promise<readonly string[]> => contents(system, load, 'destination');
const atDestination = (sql: string): Promise<unknown> => system.destination.query('app', sql);

test('nothing is found where nothing was planted', async () => {
  expect(await violations()).toEqual([]);
  expect(await oneWriter(system, 'destination')).toEqual([]);
  expect(await wrongSide(system)).toEqual([]);
  expect(await leftBehind(system)).toEqual([]);
});

test('a write that a client believes in and that is gone', async () => {
  const [write] = load.acknowledged.filter(({ table }) => table === 'documents');
  await atDestination(`DELETE FROM public.documents WHERE token = '${write?.token ?? ''}'`);
  expect(await violations()).toEqual([`1 lost: ${write?.token ?? ''}`]);
  await atDestination(`INSERT INTO public.documents (token, body) VALUES ('${write?.token ?? ''}', 'again')`);
  expect(await violations()).toEqual([]);
});

test('a write that is there twice', async () => {
  const token = load.acknowledged.find(({ table }) => table === 'documents')?.token ?? '';
  await atDestination(`INSERT INTO public.documents SELECT * FROM public.documents WHERE token = '${token}'`);
  expect(await violations()).toEqual([`1 doubled: ${token}`]);
  await atDestination(
    `DELETE FROM public.documents WHERE ctid = (SELECT max(ctid) FROM public.documents WHERE token = '${token}')`,
  );
});

test('half of a transfer', async () => {
  await atDestination('UPDATE public.accounts SET balance = balance - 1 WHERE id = 1');
  expect(await violations()).toEqual(['the balances are wrong']);
  await atDestination('UPDATE public.accounts SET balance = balance + 1 WHERE id = 1');
});

test('a row at one side only', async () => {
  const change = `UPDATE public.history SET note = note || '!' WHERE id = 1`;
  const fence = (verb: string): string => `ALTER TABLE public.history ${verb} TRIGGER ALL`;
  // A change with an origin does not travel: the streams carry what has none (PostgreSQL documentation, 48.6 and CREATE SUBSCRIPTION).
  await system.source.query('app', `SELECT pg_replication_origin_create('planted')`);
  const alone = `SELECT pg_replication_origin_session_setup('planted')`;
  await system.source.query('app', `${alone}; ${fence('DISABLE')}; ${change}; ${fence('ENABLE')}`);
  // No change travels any more: however long it waits, it finds the same.
  expect(await contents(system, load, 'destination', 1_000)).toEqual(['the two sides differ in history']);
});

test('a direct write that a side accepted though it did not serve', async () => {
  const mark = '00000000-0000-4000-8000-000000000001';
  await atDestination(`INSERT INTO public.direct_writes (mark, side) VALUES ('${mark}', 'source')`);
  expect(await wrongSideSoon()).toMatch(/^1 direct writes were accepted by a side that did not serve: source at/);
});

/** What is written at the destination has to flow back before it is seen at the source. */
async function wrongSideSoon(): Promise<string> {
  let found: readonly string[] = [];
  await expect.poll(async () => (found = await wrongSide(system)).length, { timeout: 10_000 }).toBe(1);
  return found[0] ?? '';
}

test('two sides that accept writes at once, also for whoever looks at them later', async () => {
  const fence = async (verb: string): Promise<void> => {
    for (const table of ['accounts', 'direct_writes'])
      await system.source.query('app', `ALTER TABLE public.${table} ${verb} TRIGGER cutover_fence_write`);
  };
  const writer = system.directWriters.find(({ side }) => side === 'source');
  const before = writer?.acknowledged.length ?? 0;
  await fence('DISABLE');
  writer?.start();
  await until('the old side accepts a write', () => (writer?.acknowledged.length ?? 0) > before);
  await writer?.stop();
  expect(await oneWriter(system, 'destination')).toEqual(['writes are accepted by: source, destination']);
  await fence('ENABLE ALWAYS');
  expect(await oneWriter(system, 'destination')).toEqual([]);
  // The one of the test before is still there.
  const accepted = (writer?.acknowledged.length ?? 0) - before + 1;
  expect((await wrongSide(system))[0]).toContain(
    `${accepted.toString()} direct writes were accepted by a side that did not serve`,
  );
});

test('a slot, a prepared transaction and a process that are not what was there before', async () => {
  await atDestination(`SELECT pg_create_physical_replication_slot('forgotten')`);
  await atDestination(`BEGIN; SELECT 1; PREPARE TRANSACTION 'forgotten'`);
  await system.process('worker').kill();
  const left = await leftBehind(system);
  expect(left).toHaveLength(3);
  expect(left[0]).toContain('forgotten');
  expect(left[1]).toBe('prepared transactions at the destination');
  expect(left[2]).toContain('process worker has ended');
});

test('a client that heard nothing for too long, unless what it talks to was gone', () => {
  const fromMs = seen.acknowledged[0]?.atMs ?? 0;
  // The first writer is at the first node. It wrote once and then heard nothing for ten seconds.
  const silent = {
    ...seen,
    fromMs,
    toMs: fromMs + 10_000,
    acknowledged: [],
    refused: Array.from({ length: 100 }, (_, i) => [2, 3, 4].map((n) => refusal(n, fromMs + i * 100))).flat(),
  };
  const outage = (nodes: readonly string[]): Parameters<typeof stalls>[2] => ({ nodes, fromMs, toMs: fromMs + 9_000 });
  expect(stalls(load, silent, outage([]), LEASE_MS)).toMatchObject({
    bystanderMs: 10_000,
    violations: [expect.stringContaining('ledger writer 1')],
  });
  expect(stalls(load, silent, outage(['b']), LEASE_MS).violations).toHaveLength(1);
  expect(stalls(load, silent, outage(['a']), LEASE_MS)).toMatchObject({ affectedMs: 1_000, violations: [] });
});

function refusal(writer: number, atMs: number): Seen['refused'][number] {
  return { client: `ledger writer ${writer.toString()}`, atMs, message: 'refused' };
}
