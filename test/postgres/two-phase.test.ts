/** One task: hold the commit on several databases to all or nothing, whoever dies at whichever step. */
import { afterEach, beforeEach, expect, it } from 'vitest';
import { connect, type Connection } from '../../src/postgres/connection.js';
import {
  commitOnAll as commitParts,
  resolveLeftBehind,
  TWO_PHASE_DDL,
  type Participant,
  type TwoPhaseStep,
} from '../../src/postgres/two-phase.js';
import { freshDatabase, useClusters } from '../support/clusters.js';

const clusters = useClusters({ server: { major: 17 } });
const SHARDS = 3;
const DEADLINE_MS = 30_000;

type OnStep = (step: TwoPhaseStep) => void | Promise<void>;

const part = (connection: Connection, shard: number): Participant => ({
  shard,
  execute: async (sql) => {
    await connection.query(sql);
  },
});
const commitOnAll = (first: Connection, others: readonly Connection[], onStep?: OnStep): Promise<void> =>
  commitParts(
    part(first, 0),
    others.map((other, index) => part(other, index + 1)),
    onStep,
  );

let databases: string[];
let opened: Connection[];

const connectAs = async (database: string, user = 'postgres'): Promise<Connection> => {
  const connection = await connect({ ...clusters.server.endpoint(database), user });
  opened.push(connection);
  return connection;
};

const connectAll = (user?: string): Promise<Connection[]> =>
  Promise.all(databases.map((database) => connectAs(database, user)));

beforeEach(async () => {
  opened = [];
  databases = [];
  for (let shard = 0; shard < SHARDS; shard++) databases.push(await freshDatabase(clusters.server));
  for (const [shard, connection] of (await connectAll()).entries()) {
    if (shard === 0) await connection.query(TWO_PHASE_DDL);
    await connection.query(`CREATE TABLE public.row (id int CONSTRAINT positive CHECK (id > 0), UNIQUE (id) DEFERRABLE INITIALLY DEFERRED);
      GRANT ALL ON public.row TO PUBLIC`);
  }
});

afterEach(async () => {
  await Promise.all(opened.map((connection) => connection.end().catch(() => undefined)));
});

/** An open transaction on each shard that has written its row. */
async function written(user?: string, id = 1): Promise<{ first: Connection; others: Connection[]; all: Connection[] }> {
  const all = await connectAll(user);
  for (const connection of all) await connection.query(`BEGIN; INSERT INTO public.row VALUES (${id.toString()})`);
  const [first, ...others] = all;
  if (!first) throw new Error('there is a first shard');
  return { first, others, all };
}

/** How many rows each shard has, and what is left of the commit. */
async function left(): Promise<{ rows: number[]; prepared: number; decisions: string[] }> {
  const rows: number[] = [];
  for (const database of databases)
    rows.push(Number((await clusters.server.query(database, 'SELECT count(*) AS n FROM public.row'))[0]?.n));
  const [first = ''] = databases;
  const [prepared] = await clusters.server.query(first, 'SELECT count(*)::int AS n FROM pg_prepared_xacts');
  const decisions = await clusters.server.query(first, 'SELECT outcome FROM cutover_shards.decision');
  return { rows, prepared: Number(prepared?.n), decisions: decisions.map(({ outcome }) => String(outcome)) };
}

async function resolve(user?: string): Promise<{ committed: number; aborted: number }> {
  const [first, ...others] = await connectAll(user);
  if (!first) throw new Error('there is a first shard');
  return resolveLeftBehind(0, first, others, 0);
}

it('what is committed is on all of them, and nothing is left of how', async () => {
  const { first, others } = await written();
  await commitOnAll(first, others);
  expect(await left()).toEqual({ rows: [1, 1, 1], prepared: 0, decisions: [] });
});

const DEATHS: readonly (readonly [step: TwoPhaseStep, rows: number, prepared: number])[] = [
  ['decide', 0, 0],
  ['prepare', 0, 0],
  ['commit', 0, 2],
  ['commitPrepared', 1, 2],
  ['forget', 1, 0],
];

it.each(DEATHS)(
  'a process that dies before %s leaves the row on all of them or on none',
  { timeout: DEADLINE_MS },
  async (step, rows, prepared) => {
    const { first, others, all } = await written();
    let death: Promise<void> | null = null;
    const die = async (): Promise<void> => {
      const pids = await Promise.all(
        all.map(async (c) => (await c.query('SELECT pg_backend_pid() AS pid')).rows[0] as { pid: number }),
      );
      for (const { pid } of pids)
        await clusters.server.query('postgres', `SELECT pg_terminate_backend(${pid.toString()}, 5000)`);
    };
    // What two parts do at the same time, a dead process does not do either.
    const dies = (at: TwoPhaseStep): void | Promise<void> => {
      if (at === step) death ??= die();
      return death ?? undefined;
    };
    await commitOnAll(first, others, dies).catch(() => undefined);
    expect((await left()).prepared).toBe(prepared);
    expect(await resolve()).toEqual(
      rows === 1 ? { committed: prepared, aborted: 0 } : { committed: 0, aborted: prepared },
    );
    expect(await left()).toMatchObject({ rows: [rows, rows, rows], prepared: 0 });
    expect(await resolve()).toEqual({ committed: 0, aborted: 0 });
  },
);

it('a decision is kept as long as a part of it is prepared, and forgotten by whoever finds none', async () => {
  const { first, others } = await written();
  await commitOnAll(first, others, (step) => {
    if (step === 'commitPrepared') throw new Error('the process stops here');
  }).catch(() => undefined);
  const [deciding, near, far] = await connectAll();
  if (!deciding || !near || !far) throw new Error('there are three shards');
  expect(await resolveLeftBehind(0, deciding, [near, far], 600_000)).toEqual({ committed: 0, aborted: 0 });
  expect(await left()).toEqual({ rows: [1, 0, 0], prepared: 2, decisions: ['committed'] });
  expect(await resolve()).toEqual({ committed: 2, aborted: 0 });
  expect(await resolve()).toEqual({ committed: 0, aborted: 0 });
  expect(await left()).toEqual({ rows: [1, 1, 1], prepared: 0, decisions: [] });
});

it('a part that fails while another one prepares takes back what the other one has prepared', async () => {
  const { first, others } = await written();
  let prepares = 0;
  const commit = commitOnAll(first, others, async (step) => {
    if (step !== 'prepare' || ++prepares !== 2) return;
    for (let polls = 0; polls < 500 && (await left()).prepared === 0; polls++)
      await new Promise((again) => setTimeout(again, 10));
    expect((await left()).prepared).toBe(1);
    throw new Error('it is full');
  });
  await expect(commit).rejects.toMatchObject({ code: 'shards_not_committed' });
  expect(await left()).toEqual({ rows: [0, 0, 0], prepared: 0, decisions: [] });
});

it('a commit that comes after it was aborted fails, and takes everything back', async () => {
  const { first, all } = await written();
  const [resolving] = await connectAll();
  await resolving?.query(`SELECT cutover_shards.abort('late')`);
  await expect(first.query(`SELECT cutover_shards.commit('late')`)).rejects.toThrow(/duplicate key/);
  for (const connection of all) await connection.query('ROLLBACK');
  expect(await left()).toEqual({ rows: [0, 0, 0], prepared: 0, decisions: ['aborted'] });
  // The next one that ends well clears away what no transaction can ask for any more.
  const next = await written();
  await commitOnAll(next.first, next.others);
  expect(await left()).toEqual({ rows: [1, 1, 1], prepared: 0, decisions: [] });
});

it('a commit under way is waited for, not taken for dead', async () => {
  const { first, others } = await written();
  let resolving: Promise<unknown> = Promise.resolve();
  await commitOnAll(first, others, async (step) => {
    if (step !== 'commit') return;
    resolving = resolve();
    resolving.catch(() => undefined);
    const waits = `SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%cutover_shards.abort%'`;
    for (let polls = 0; polls < 100 && (await clusters.server.query('postgres', waits)).length === 0; polls++)
      await new Promise((again) => setTimeout(again, 10));
  });
  await resolving;
  expect(await left()).toMatchObject({ rows: [1, 1, 1], prepared: 0 });
});

it('a commit that takes longer than anybody waits keeps nobody from resolving the others', async () => {
  const stuck = await written();
  const dead = await written(undefined, 2);
  const stops = (): never => {
    throw new Error('the process stops here');
  };
  let go = (): void => undefined;
  const waits = new Promise<void>((resolved) => (go = resolved));
  const commit = commitOnAll(stuck.first, stuck.others, async (step) => {
    if (step === 'commit') await waits;
  });
  await commitOnAll(dead.first, dead.others, (step) => (step === 'commitPrepared' ? stops() : undefined));
  expect(await resolve()).toEqual({ committed: 2, aborted: 0 });
  expect((await left()).prepared).toBe(2);
  go();
  await commit;
  expect(await left()).toMatchObject({ rows: [2, 2, 2], prepared: 0 });
});

it('a constraint that fails at the end of one part fails all of them', async () => {
  const { first, others, all } = await written();
  // Deferred: found by the commit of the first one, when the others are prepared.
  await first.query('INSERT INTO public.row VALUES (1)');
  await expect(commitOnAll(first, others)).rejects.toMatchObject({ code: 'shards_not_committed' });
  expect(await left()).toEqual({ rows: [0, 0, 0], prepared: 0, decisions: [] });
  for (const connection of all) await connection.query('BEGIN; INSERT INTO public.row VALUES (2)');
  await others[1]?.query('INSERT INTO public.row VALUES (2)');
  await expect(commitOnAll(first, others)).rejects.toThrow(/duplicate key/);
  expect(await left()).toEqual({ rows: [0, 0, 0], prepared: 0, decisions: [] });
});

it('a part that has failed already is not committed elsewhere', async () => {
  const { first, others } = await written();
  await expect(first.query('INSERT INTO public.row VALUES (-1)')).rejects.toMatchObject({ code: '23514' });
  await expect(commitOnAll(first, others)).rejects.toMatchObject({ code: 'shards_not_committed' });
  expect(await left()).toEqual({ rows: [0, 0, 0], prepared: 0, decisions: [] });
});

it('a connection that is lost while it decides: nobody is told that it was, or was not', async () => {
  const { first, others } = await written();
  const pid = ((await first.query('SELECT pg_backend_pid() AS pid')).rows[0] as { pid: number }).pid;
  const commit = commitOnAll(first, others, async (step) => {
    if (step === 'commit')
      await clusters.server.query('postgres', `SELECT pg_terminate_backend(${pid.toString()}, 5000)`);
  });
  await expect(commit).rejects.toMatchObject({ code: 'shards_undecided' });
  expect(await resolve()).toEqual({ committed: 0, aborted: 2 });
  expect(await left()).toMatchObject({ rows: [0, 0, 0], prepared: 0 });
});

it('nobody decides for another role', async () => {
  await clusters.server.query('postgres', 'CREATE ROLE one LOGIN; CREATE ROLE two LOGIN');
  const { first, others } = await written('one');
  const commit = commitOnAll(first, others, async (step) => {
    if (step !== 'commit') return;
    expect(await resolve('two')).toEqual({ committed: 0, aborted: 0 });
    const [gid] = await clusters.server.query(
      'postgres',
      `SELECT regexp_replace(gid, '_\\d+$', '') AS gid FROM pg_prepared_xacts LIMIT 1`,
    );
    const stranger = await connectAs(databases[0] ?? '', 'two');
    await stranger.query('SELECT cutover_shards.abort($1)', [gid?.gid]);
  });
  await commit;
  expect((await left()).rows).toEqual([1, 1, 1]);
});
