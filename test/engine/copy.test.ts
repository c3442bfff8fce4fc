/** One task: the copy takes the largest tables first, as many at once as it was told, and no faster than it was told. */
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest';
import type { EngineContext } from '../../activities/context.js';
import { copyTables } from '../../activities/copy.js';
import { claimMigration } from '../../activities/situation.js';
import { createForward } from '../../activities/streams.js';
import type { Migration } from '../../src/cutover/contract.js';
import { connect } from '../../src/postgres/connection.js';
import { streamName, tableSyncs } from '../../src/postgres/streams.js';
import { Pair } from '../support/pair.js';
import { until } from '../support/wait.js';

/** Rows of each table: sizes and names in opposite orders, each above the size below which tables go together. */
const ROWS = { zeta: 30_000, wide: 27_000, yard: 24_000, xray: 18_000, alpha: 12_000 };
/** Rounds of the copy after which it would have begun another table, had it wanted to. */
const ROUNDS = 4;

let pair: Pair;
let migration: Migration;

beforeAll(async () => {
  pair = await Pair.bare({ source: 17, destination: 18 });
  await pair.source.query('app', 'DROP TABLE public.item, public.parted');
  for (const [table, rows] of Object.entries(ROWS)) {
    const make = `CREATE TABLE public.${table} (id int PRIMARY KEY, v text)`;
    for (const cluster of [pair.source, pair.destination]) await cluster.query('app', make);
    await pair.source.query(
      'app',
      `INSERT INTO public.${table} SELECT i, repeat('x', 100) FROM generate_series(1, ${rows.toString()}) i`,
    );
  }
  migration = await claimMigration(pair.context, { source: 'prod', destination: 'prod_new' }, 'test');
  await createForward(pair.context, migration, { copyData: true });
});

afterAll(async () => {
  await pair.stop();
});

/** The engine with these keys of the copy. */
function withCopy(parallelCopies: number, copyBytesPerSecond: number | null): EngineContext {
  const config = pair.context.config();
  const cutover = { ...config.cutover, parallelCopies, copyBytesPerSecond };
  return { ...pair.context, config: () => ({ ...config, cutover }) };
}

/** The tables whose copy has begun, and whether they are copied. */
async function begun(): Promise<Readonly<Record<string, boolean>>> {
  const destination = await connect(pair.destination.endpoint('app'));
  try {
    const syncs = await tableSyncs(destination, streamName(migration.id, 'forward'));
    return Object.fromEntries(
      syncs.filter((sync) => sync.schema === 'public').map((sync) => [sync.table, sync.state === 'r']),
    );
  } finally {
    await destination.end();
  }
}

/** Nobody can copy into `table` until the answer is called. */
async function held(table: string): Promise<() => Promise<void>> {
  const holder = await connect(pair.destination.endpoint('app'));
  onTestFinished(() => holder.end());
  await holder.query(`BEGIN; LOCK TABLE public.${table} IN SHARE MODE`);
  return async () => {
    await holder.query('ROLLBACK');
  };
}

it('beyond its bytes per second, the copy begins no other table, and it has begun with the largest', async () => {
  let rounds = 0;
  const copy = copyTables(withCopy(1, 1), migration, (progress) => {
    if (progress.tablesReady > 0) rounds++;
    if (rounds > ROUNDS) throw new Error('seen enough');
  });
  await expect(copy).rejects.toThrow('seen enough');
  expect(await begun()).toEqual({ zeta: true });
});

it('a copy that makes no progress ends with the names of what is not copied', async () => {
  await until('the first is copied', async () => (await begun()).zeta === true);
  const letGo = await held('wide');
  const copy = copyTables(withCopy(1, null), migration, () => undefined, undefined, 2_000);
  await expect(copy).rejects.toMatchObject({
    code: 'copy_stalled',
    details: { database: 'prod_new', tables: 'public.wide, public.yard, public.xray, public.alpha' },
  });
  await letGo();
  await until('it is copied once it can be', async () => (await begun()).wide === true);
});

it('two are copied at once where two are allowed, the larger ones first, and the next when one is done', async () => {
  const letGo = new Map<string, () => Promise<void>>();
  for (const table of ['yard', 'xray', 'alpha']) letGo.set(table, await held(table));
  let rounds = 0;
  const copy = copyTables(withCopy(2, null), migration, () => {
    rounds++;
  });
  await until('two have begun', async () => 'xray' in (await begun()));
  const seen = rounds;
  await until('the copy has looked again', () => rounds > seen + ROUNDS);
  expect(await begun()).toEqual({ zeta: true, wide: true, yard: false, xray: false });
  await letGo.get('yard')?.();
  await until('the last one has begun', async () => 'alpha' in (await begun()));
  expect(await begun()).toEqual({ zeta: true, wide: true, yard: true, xray: false, alpha: false });
  for (const table of ['xray', 'alpha']) await letGo.get(table)?.();
  expect(await copy).toMatchObject({ tablesReady: 5, tablesTotal: 5 });
});
