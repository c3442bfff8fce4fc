/** One task: hold the seal to its order: the flag first, then whoever got past it, then the marker. */
import { afterEach, beforeEach, expect, it } from 'vitest';
import { connect, type Connection } from '../../src/postgres/connection.js';
import { applicationTables, armFence } from '../../src/postgres/fence.js';
import {
  abortEpoch,
  installRecord,
  readIdentity,
  releaseSource,
  seal,
  type Identity,
} from '../../src/postgres/record.js';
import { ensurePublication } from '../../src/postgres/streams.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { until } from '../support/wait.js';
import { begin } from './fenced-pair.js';

const clusters = useClusters({ server: { major: 17, settings: { fsync: 'off' } } });
const PUBLICATION = 'cutover_m1_forward';
const INSERT = `INSERT INTO public.item (name) VALUES ('new')`;
const WRITERS = 2;
const ROUNDS = 60;

let engine: Connection;
let other: Connection;
let writers: readonly Connection[];
let side: Identity;

beforeEach(async () => {
  const endpoint = clusters.server.endpoint(await freshDatabase(clusters.server));
  engine = await connect(endpoint);
  other = await connect(endpoint);
  writers = await Promise.all(Array.from({ length: WRITERS }, () => connect(endpoint)));
  await engine.query('CREATE TABLE public.item (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text)');
  await installRecord(engine, 'open');
  const tables = await applicationTables(engine);
  await armFence(engine, tables, 'always');
  await ensurePublication(engine, PUBLICATION, tables);
  side = await readIdentity(engine);
});

afterEach(async () => {
  await Promise.all([engine, other, ...writers].map((connection) => connection.end()));
});

/** Begins an epoch; answers how to seal it and how to take that back. */
async function begun(lockTimeoutMs: number): Promise<{ seal: () => Promise<unknown>; undo: () => Promise<unknown> }> {
  const { epoch, nonce } = await begin(engine, side, side);
  const request = { epoch, nonce, shard: 0, publication: PUBLICATION, lockTimeoutMs, stream: 'm1@1', events: [] };
  return {
    seal: () => seal(engine, side, request),
    undo: async () => {
      await abortEpoch(engine, side, epoch, 'test');
      await releaseSource(engine, side, epoch);
    },
  };
}

async function flagIsUp(): Promise<boolean> {
  const { rows } = await other.query<{ up: boolean }>('SELECT cutover.fence_is_up() AS up');
  return rows[0]?.up === true;
}

/** A seal that saw nobody write and stands before the flag, and a writer who has got past the flag since. */
async function overtaken(lockTimeoutMs: number): Promise<{ sealing: Promise<unknown>; writer: Connection }> {
  const [writer] = writers;
  if (!writer) throw new Error('there are writers');
  const epoch = await begun(lockTimeoutMs);
  await other.query('BEGIN; SELECT FROM cutover.fence FOR UPDATE');
  const sealing = epoch.seal();
  sealing.catch(() => undefined);
  await until('the seal waits for the fence row', async () => {
    const { rowCount } = await other.query(`SELECT FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted`);
    return rowCount === 1;
  });
  await writer.query(`BEGIN; ${INSERT}; SAVEPOINT one`);
  await other.query('COMMIT');
  return { sealing, writer };
}

it('a writer who got past the flag before it rose is waited for, and writes no more', async () => {
  const { sealing, writer } = await overtaken(10_000);
  await until('the seal waits for the writer', async () => {
    const { rowCount } = await other.query(`SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep'`, [
      (engine as unknown as { processID: number }).processID,
    ]);
    return rowCount === 1;
  });
  expect(await flagIsUp()).toBe(true);
  await expect(writer.query(INSERT)).rejects.toMatchObject({ code: 'CUT01' });
  await writer.query('ROLLBACK TO one; COMMIT');
  await sealing;
  const { rows } = await engine.query(`SELECT count(*)::int AS items FROM public.item`);
  expect(rows).toEqual([{ items: 1 }]);
});

it('a seal that gives up on such a writer takes its flag down', async () => {
  const { sealing, writer } = await overtaken(50);
  await expect(sealing).rejects.toMatchObject({ code: '55P03' });
  expect(await flagIsUp()).toBe(false);
  await writer.query(INSERT);
  await writer.query('COMMIT');
});

it('a seal that is refused because the tables changed takes its flag down', async () => {
  const epoch = await begun(1_000);
  await other.query('ALTER TABLE public.item DISABLE TRIGGER cutover_fence_write');
  await expect(epoch.seal()).rejects.toMatchObject({ code: 'CUT03' });
  expect(await flagIsUp()).toBe(false);
});

/** Writes until the fence refuses it, with rests between: half of the seals find nobody who writes. A write goes on behind its trigger. */
async function writeUntilRefused(writer: Connection): Promise<void> {
  for (;;) {
    try {
      await writer.query('SELECT pg_sleep(random() * 0.03)');
      await writer.query(`INSERT INTO public.item (name) SELECT 'new' FROM pg_sleep(0.004)`);
    } catch (error) {
      expect(error).toMatchObject({ code: 'CUT01' });
      return;
    }
  }
}

/** What the stream carries since the last time: the tables written, in the order of their commits (PostgreSQL documentation, 53.9). */
async function tablesStreamed(): Promise<readonly string[]> {
  const { rows } = await engine.query<{ name: string }>(
    `SELECT (get_byte(data, 1)::bigint << 24 | get_byte(data, 2) << 16 | get_byte(data, 3) << 8 | get_byte(data, 4))::oid::regclass::text AS name
     FROM pg_logical_slot_get_binary_changes('stream', NULL, NULL, 'proto_version', '1', 'publication_names', $1)
     WHERE get_byte(data, 0) = ascii('I')`,
    [PUBLICATION],
  );
  return rows.map(({ name }) => name);
}

it('the marker comes behind every write that was let through, whatever writes while it seals', async () => {
  await engine.query(`SELECT pg_create_logical_replication_slot('stream', 'pgoutput')`);
  for (let round = 1; round <= ROUNDS; round++) {
    const epoch = await begun(5_000);
    const writing = writers.map(writeUntilRefused);
    await until('they write', async () => (await other.query('SELECT FROM public.item')).rowCount !== 0);
    await epoch.seal();
    await Promise.all(writing);
    const streamed = await tablesStreamed();
    expect(streamed.indexOf('cutover.marker'), `round ${round.toString()}`).toBe(streamed.length - 1);
    expect(streamed.length).toBeGreaterThan(1);
    await epoch.undo();
    await engine.query('TRUNCATE public.item');
  }
});
