/** One task: a comparison finds every difference there is, by its key, and none that is not there, while clients write. */
import { loadavg } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { requireVerified, verifyTables, type VerifyRun } from '../../activities/verification.js';
import type { RowDifference, VerifyProgress, VerifyResult } from '../../src/cutover/verification.js';
import { withConnection } from '../../src/postgres/connection.js';
import { latestVerification } from '../../src/postgres/verification/record.js';
import { describeTable } from '../../src/postgres/verification/table.js';
import { move } from '../support/faults.js';
import { Pair } from '../support/pair.js';
import { until } from '../support/wait.js';

/** docs/evidence/verify.md tells of a million. */
const BIG_ROWS = Number(process.env.VERIFY_ROWS ?? 200_000);
const CHANGED = Math.floor(BIG_ROWS / 2) + 12_345;

/** Columns in another order, a dropped one in between, a collation that sorts differently: none of that is a difference. */
const COMMON = `
  CREATE TABLE public.big (id bigint PRIMARY KEY, amount int NOT NULL, body text NOT NULL);
  CREATE TABLE public.pairs (a int, b uuid, v int, PRIMARY KEY (a, b));
  CREATE TABLE public.coded (code int NOT NULL, note text);
  CREATE UNIQUE INDEX coded_code ON public.coded (code);
  ALTER TABLE public.coded REPLICA IDENTITY USING INDEX coded_code;
  CREATE TABLE public.bag (a int, b text);
  ALTER TABLE public.bag REPLICA IDENTITY FULL;
  CREATE TABLE public.doubled (id int PRIMARY KEY, n int, twice int GENERATED ALWAYS AS (n * 2) STORED);`;
const SOURCE = `${COMMON}
  CREATE TABLE public.typed (id int PRIMARY KEY, doc json, amount numeric, ratio float8, at timestamptz, lasts interval,
    raw bytea, price money, tags text[], ok boolean);
  CREATE TABLE public.named (name text COLLATE "C" PRIMARY KEY, v int);
  INSERT INTO public.big SELECT i, i, 'row number ' || i FROM generate_series(1, ${BIG_ROWS.toString()}) i;
  INSERT INTO public.pairs SELECT i % 7, gen_random_uuid(), i FROM generate_series(1, 3000) i;
  INSERT INTO public.coded SELECT i, CASE WHEN i % 3 = 0 THEN NULL ELSE 'n' || i END FROM generate_series(1, 3000) i;
  INSERT INTO public.bag SELECT i % 50, CASE WHEN i % 5 = 0 THEN NULL ELSE 'b' || (i % 9) END FROM generate_series(1, 3000) i;
  INSERT INTO public.doubled SELECT i, i FROM generate_series(1, 500) i;
  INSERT INTO public.typed SELECT i, '{"a": 1}', 1.0, 'NaN', '2026-01-01 00:00:00+00', '1 day 02:03:04', '\\x00ff', '12.34', '{a,NULL,"b c"}', true
    FROM generate_series(1, 500) i;
  INSERT INTO public.named SELECT (CASE WHEN i % 2 = 0 THEN 'Ä-' ELSE 'a_' END) || md5(i::text), i FROM generate_series(1, 5000) i;
  ALTER DATABASE app SET DateStyle = 'German, DMY'; ALTER DATABASE app SET extra_float_digits = 0;`;
const DESTINATION = `${COMMON}
  CREATE TABLE public.typed (gone int, ok boolean, tags text[], price money, raw bytea, lasts interval, at timestamptz, ratio float8,
    amount numeric, doc json, id int PRIMARY KEY);
  ALTER TABLE public.typed DROP COLUMN gone;
  CREATE TABLE public.named (v int, name text COLLATE "und-x-icu" PRIMARY KEY);
  ALTER DATABASE app SET TimeZone = 'Asia/Tokyo'; ALTER DATABASE app SET bytea_output = 'escape'; ALTER DATABASE app SET IntervalStyle = 'iso_8601';`;

let pair: Pair;
let runs = 0;
/** the last id that a writer has inserted: each once, over all tests */
let inserted = 1_000_000;

beforeAll(async () => {
  pair = await Pair.start({ source: 17, destination: 18, schema: { source: SOURCE, destination: DESTINATION } });
});

afterAll(async () => {
  await pair.stop();
});

function verify(
  options: Partial<VerifyRun> & { report?: (progress: VerifyProgress) => void } = {},
): Promise<VerifyResult> {
  const { report = () => undefined, ...run } = options;
  const own = { run: `test ${(++runs).toString()}`, earlier: null, stopped: new AbortController().signal };
  return verifyTables(pair.context, pair.migration, { ...own, ...run }, report);
}

/** What only a broken stream, or a stray writer, would do: changed at the destination, past its fence, unseen by the way back. */
async function plant(statement: string): Promise<void> {
  const [, table = ''] = /(public\.\w+)/.exec(statement) ?? [];
  await withConnection(pair.destination.endpoint('app'), async (connection) => {
    const origin = `SELECT FROM pg_replication_origin WHERE roname = 'planted'`;
    if ((await connection.query(origin)).rows.length === 0)
      await connection.query(`SELECT pg_replication_origin_create('planted')`);
    await connection.query(`SELECT pg_replication_origin_session_setup('planted')`);
    await connection.query(`ALTER TABLE ${table} DISABLE TRIGGER cutover_fence_write`);
    await connection.query(statement);
    await connection.query(`ALTER TABLE ${table} ENABLE ALWAYS TRIGGER cutover_fence_write`);
  });
}

const planted: string[] = [];

afterEach(async () => {
  for (const statement of planted.splice(0)) await plant(statement);
});

/** Plants a difference for one test. */
async function differ(change: string, back: string): Promise<void> {
  planted.unshift(back);
  await plant(change);
}

/** After each turn of a writer, so that the processors are left to what is compared. */
const TURN_MS = 20;

/** Clients that insert, change and delete all along, in every table. */
async function underWrites<T>(work: () => Promise<T>): Promise<T> {
  let stopping = false;
  let written = 0;
  const writers = [0, 1, 2].map(async (n) => {
    const client = await pair.client();
    for (let i = 0; !stopping; i++) {
      const id = 1 + ((i * 7919 + n * 104_729) % BIG_ROWS);
      const fresh = ++inserted;
      await client.query(`UPDATE public.big SET amount = amount + 1 WHERE id IN (${id.toString()}, 100)`);
      await client.query(`INSERT INTO public.big VALUES (${fresh.toString()}, 1, 'new')`);
      if (i % 2 === 0) await client.query(`DELETE FROM public.big WHERE id = ${fresh.toString()}`);
      await client.query(
        `UPDATE public.named SET v = v + 1 WHERE name = (SELECT min(name) FROM public.named WHERE v > ${(i % 5000).toString()})`,
      );
      await client.query(`UPDATE public.coded SET note = 'w' WHERE code = ${(1 + (i % 3000)).toString()}`);
      await client.query(`INSERT INTO public.bag VALUES (${n.toString()}, 'w')`);
      await client.query(
        `UPDATE public.typed SET amount = amount + 0.10, at = now() WHERE id = ${(1 + (i % 500)).toString()}`,
      );
      written++;
      await delay(TURN_MS);
    }
    await client.end();
  });
  await until('clients write', () => written > 20);
  try {
    return await work();
  } finally {
    stopping = true;
    await Promise.all(writers);
  }
}

const samplesOf = ({ samples }: VerifyResult): readonly RowDifference[] => samples;

test('each table is compared by the key it has', async () => {
  const modes = await withConnection(pair.source.endpoint('app'), (source) =>
    withConnection(pair.destination.endpoint('app'), async (destination) => {
      const names = ['big', 'pairs', 'coded', 'named', 'bag', 'typed', 'parted_1'];
      const found: Record<string, unknown> = {};
      for (const table of names) {
        const described = await describeTable(source, destination, { schema: 'public', table });
        found[table] = typeof described === 'string' ? described : [described.mode, described.key.map((k) => k.name)];
      }
      return found;
    }),
  );
  expect(modes).toEqual({
    big: ['range', ['id']],
    pairs: ['range', ['a', 'b']],
    coded: ['range', ['code']],
    named: ['lookup', ['name']],
    bag: ['whole', []],
    typed: ['range', ['id']],
    parted_1: ['range', ['id']],
  });
});

test('nothing differs while clients write all along', { timeout: 120_000 }, async () => {
  const result = await underWrites(() => verify());
  expect(samplesOf(result)).toEqual([]);
  expect(result).toMatchObject({ differences: 0, undecided: 0, heading: 'forward', tables: 9 });
  expect(result.rows).toBeGreaterThan(BIG_ROWS + 15_000);
});

test('one changed byte in many rows is found while clients write', { timeout: 600_000 }, async () => {
  const id = CHANGED.toString();
  await differ(
    `UPDATE public.big SET body = 'row number x' || substr(body, 13) WHERE id = ${id}`,
    `UPDATE public.big SET body = 'row number ${id}' WHERE id = ${id}`,
  );
  const start = performance.now();
  const result = await underWrites(() => verify());
  if (process.env.VERIFY_ROWS !== undefined) tell(result, performance.now() - start);
  expect(samplesOf(result)).toEqual([{ table: 'public.big', key: `["${id}"]`, problem: 'changed' }]);
  expect(result.differences).toBe(1);
});

/** For the evidence. */
function tell({ rows, bytes, busyMs, differences }: VerifyResult, tookMs: number): void {
  console.log(JSON.stringify({ rows, bytes, differences, tookMs: Math.round(tookMs), busyMs, loadAverage: loadavg() }));
}

/** What is planted, how it is taken back, and how it is told. */
const PLANTED: readonly (readonly [string, string, string, RowDifference])[] = [
  [
    'a missing row',
    'DELETE FROM public.big WHERE id = 77',
    `INSERT INTO public.big SELECT 77, 77, 'row number 77'`,
    { table: 'public.big', key: '["77"]', problem: 'missing' },
  ],
  [
    'an extra row, past the last one',
    `INSERT INTO public.big VALUES (999999999, 1, 'stray')`,
    'DELETE FROM public.big WHERE id = 999999999',
    { table: 'public.big', key: '["999999999"]', problem: 'extra' },
  ],
  [
    'white space in a json',
    `UPDATE public.typed SET doc = '{"a":1}' WHERE id = 7`,
    `UPDATE public.typed SET doc = '{"a": 1}' WHERE id = 7`,
    { table: 'public.typed', key: '["7"]', problem: 'changed' },
  ],
  [
    '1.00 for 1.0',
    'UPDATE public.typed SET amount = 9.00 WHERE id = 501',
    'UPDATE public.typed SET amount = 9.0 WHERE id = 501',
    { table: 'public.typed', key: '["501"]', problem: 'changed' },
  ],
  [
    'a number for NaN',
    'UPDATE public.typed SET ratio = 0 WHERE id = 9',
    `UPDATE public.typed SET ratio = 'NaN' WHERE id = 9`,
    { table: 'public.typed', key: '["9"]', problem: 'changed' },
  ],
  [
    'the last digit of a float',
    'UPDATE public.typed SET ratio = 0.30000000000000004 WHERE id = 502',
    'UPDATE public.typed SET ratio = 0.3 WHERE id = 502',
    { table: 'public.typed', key: '["502"]', problem: 'changed' },
  ],
  [
    'a microsecond',
    `UPDATE public.typed SET at = '2026-02-03 04:05:06.000001+00' WHERE id = 503`,
    `UPDATE public.typed SET at = '2026-02-03 04:05:06+00' WHERE id = 503`,
    { table: 'public.typed', key: '["503"]', problem: 'changed' },
  ],
  [
    'an empty text for a NULL',
    `UPDATE public.coded SET note = '' WHERE code = 3001`,
    'UPDATE public.coded SET note = NULL WHERE code = 3001',
    { table: 'public.coded', key: '["3001"]', problem: 'changed' },
  ],
  [
    'a row of a composite key',
    `UPDATE public.pairs SET v = -1 WHERE a = 3 AND b = '00000000-0000-0000-0000-000000000001'`,
    `UPDATE public.pairs SET v = 1 WHERE a = 3 AND b = '00000000-0000-0000-0000-000000000001'`,
    { table: 'public.pairs', key: '["3","00000000-0000-0000-0000-000000000001"]', problem: 'changed' },
  ],
  [
    'a row missing where the servers sort differently',
    `DELETE FROM public.named WHERE name = 'Ä-middle'`,
    `INSERT INTO public.named (name, v) SELECT 'Ä-middle', 0`,
    { table: 'public.named', key: '["Ä-middle"]', problem: 'missing' },
  ],
  [
    'a row extra where the servers sort differently',
    `INSERT INTO public.named (name, v) VALUES ('a_stray', 0)`,
    `DELETE FROM public.named WHERE name = 'a_stray'`,
    { table: 'public.named', key: '["a_stray"]', problem: 'extra' },
  ],
];

describe('what differs is told by table and key', () => {
  let found: readonly RowDifference[] = [];

  beforeAll(async () => {
    // Rows that no writer of another test touches.
    await pair.source.query('app', FIXED);
    await level();
    for (const [, change] of PLANTED) await plant(change);
    found = samplesOf(await verify());
    for (const [, , back] of PLANTED) await plant(back);
  });

  test.each(PLANTED)('%s', (_, __, ___, difference) => {
    expect(found).toContainEqual(difference);
  });

  test('and nothing else', async () => {
    expect(found).toHaveLength(PLANTED.length);
    expect(await verify()).toMatchObject({ differences: 0 });
  });

  test('one of three equal rows of a table without a key', async () => {
    await pair.source.query('app', `INSERT INTO public.bag VALUES (77, 'same'), (77, 'same'), (77, 'same')`);
    await level();
    await plant(`DELETE FROM public.bag WHERE ctid = (SELECT max(ctid) FROM public.bag WHERE a = 77)`);
    planted.push(`INSERT INTO public.bag SELECT 77, 'same'`);
    expect(samplesOf(await verify())).toMatchObject([{ table: 'public.bag', problem: 'changed' }]);
  });

  test('a table and a column that are not there', async () => {
    await withConnection(pair.destination.endpoint('app'), async (destination) => {
      await destination.query('ALTER TABLE public.doubled RENAME COLUMN twice TO thrice');
      await destination.query('ALTER TABLE public.parted_1 RENAME TO parted_2');
      const result = await verify();
      await destination.query('ALTER TABLE public.doubled RENAME COLUMN thrice TO twice');
      await destination.query('ALTER TABLE public.parted_2 RENAME TO parted_1');
      expect(samplesOf(result)).toEqual([
        { table: 'public.doubled', key: 'columns are missing: twice', problem: 'structure' },
        { table: 'public.parted_1', key: 'the table is missing', problem: 'structure' },
      ]);
    });
  });
});

const FIXED = `
  INSERT INTO public.typed (id, amount, ratio, at) VALUES (501, 9.0, 1, NULL), (502, 0, 0.3, NULL),
    (503, 0, 1, '2026-02-03 04:05:06+00') ON CONFLICT DO NOTHING;
  INSERT INTO public.coded VALUES (3001, NULL) ON CONFLICT DO NOTHING;
  INSERT INTO public.pairs VALUES (3, '00000000-0000-0000-0000-000000000001', 1) ON CONFLICT DO NOTHING;
  INSERT INTO public.named VALUES ('Ä-middle', 0) ON CONFLICT DO NOTHING`;

/** Waits until the destination has what the source has. */
async function level(): Promise<void> {
  const nonce = `level ${(++runs).toString()}`;
  const systems = await pair.source.query<{ id: string }>(
    'app',
    'SELECT system_identifier::text AS id FROM pg_control_system()',
  );
  const id = systems[0]?.id ?? '';
  await pair.source.query('app', `INSERT INTO cutover.marker VALUES ('${id}', 0, 0, '${nonce}', 'seal')`);
  const arrived = `SELECT FROM cutover.marker WHERE nonce = '${nonce}'`;
  await until('the destination is level', async () => (await pair.destination.query('app', arrived)).length > 0);
}

describe('a comparison that was interrupted', () => {
  test('goes on after the last chunk that was told, and counts each row once', { timeout: 60_000 }, async () => {
    const whole = await verify();
    let last: VerifyProgress | null = null;
    let told = 0;
    const dying = verify({
      report: (progress) => {
        last = progress;
        if (progress.position?.table === 'public.big' && ++told > 5) throw new Error('the worker dies');
      },
    });
    await expect(dying).rejects.toThrow('the worker dies');
    // As told by every version: a worker of another one may go on with it.
    expect(last).toMatchObject({ position: { table: 'public.big', pass: 'there', after: [expect.any(String)] } });
    expect(JSON.stringify(last)).not.toContain('between');
    const tablesDone: number[] = [];
    const result = await verify({ earlier: last, report: (progress) => tablesDone.push(progress.tablesDone) });
    expect(result).toMatchObject({ rows: whole.rows, bytes: whole.bytes, tables: whole.tables, differences: 0 });
    // The table before it was not read again.
    expect(tablesDone[0]).toBe(1);
  });

  test('that had told its last chunk is not begun anew', async () => {
    let last: VerifyProgress | null = null;
    const first = await verify({ report: (progress) => (last = progress) });
    const again = await verify({ earlier: last });
    expect(again).toMatchObject({ rows: first.rows, startedAt: first.startedAt });
  });

  test('ends at once when it is cancelled', async () => {
    const stop = new AbortController();
    const stopped = verify({
      stopped: stop.signal,
      report: ({ position }) => {
        if (position?.table === 'public.big') stop.abort();
      },
    });
    await expect(stopped).rejects.toThrow();
    await expect(verify()).resolves.toMatchObject({ differences: 0 });
  });

  test('does not run beside another one', async () => {
    let second: Promise<VerifyResult> | null = null;
    await verify({
      report: () => {
        second ??= verify();
        second.catch(() => undefined);
      },
    });
    await expect(second).rejects.toMatchObject({ code: 'refused_now' });
  });
});

test('a cutover may require a comparison that is clean and fresh', async () => {
  const required = (verifyWindowMs: number): Promise<void> => {
    const { cutover, ...config } = pair.context.config();
    const context = {
      ...pair.context,
      config: () => ({ ...config, cutover: { ...cutover, verify: 'require' as const, verifyWindowMs } }),
    };
    return requireVerified(context, pair.migration, 'forward');
  };
  await pair.source.query('app', FIXED);
  await level();
  await verify();
  await required(60_000);
  await expect(required(0)).rejects.toThrow(/the last comparison is \d+ s old/);
  await differ('DELETE FROM public.coded WHERE code = 3001', 'INSERT INTO public.coded SELECT 3001, NULL');
  await verify();
  await expect(required(60_000)).rejects.toMatchObject({ code: 'verify_required', details: { source: 'prod' } });
  await expect(required(60_000)).rejects.toThrow('found 1 differences and 0 undecided');
});

test('a destination that is behind is waited for, and nothing is told as different', { timeout: 60_000 }, async () => {
  await level();
  const written = `SELECT count(*)::int AS n FROM cutover.marker WHERE nonce LIKE 'verify/%'`;
  const markers = async (): Promise<number> => {
    const [here, there] = await Promise.all([pair.source, pair.destination].map((c) => c.query('app', written)));
    return Number(here?.[0]?.n) - Number(there?.[0]?.n);
  };
  await withConnection(pair.destination.endpoint('app'), async (holder) => {
    // The apply worker waits for this row, and everything after it waits for the apply worker.
    await holder.query('BEGIN; SELECT FROM public.coded WHERE code = 5 FOR UPDATE');
    await pair.source.query('app', `UPDATE public.coded SET note = 'held' WHERE code = 5`);
    await pair.source.query('app', `UPDATE public.big SET body = 'behind' WHERE id = 5`);
    const comparing = verify();
    await until('a marker waits', async () => (await markers()) === 1);
    // It waits for this one, and does not look again before it has come.
    for (let looks = 0; looks < 50; looks++) expect(await markers()).toBe(1);
    await holder.query('ROLLBACK');
    expect(await comparing).toMatchObject({ differences: 0, undecided: 0 });
  });
});

test('a row that never stands still is held for a moment, and decided', { timeout: 60_000 }, async () => {
  let stopping = false;
  const hot = async (): Promise<void> => {
    const client = await pair.client();
    while (!stopping) await client.query('UPDATE public.big SET amount = amount + 1 WHERE id = 100');
    await client.end();
  };
  const writers = [hot(), hot(), hot()];
  try {
    expect(await verify()).toMatchObject({ differences: 0, undecided: 0 });
  } finally {
    stopping = true;
    await Promise.all(writers);
  }
});

test('during a soak the side that serves is compared with the one that served', { timeout: 60_000 }, async () => {
  const { epoch } = await move(pair, 'forward');
  const result = await underWrites(() => verify());
  expect(result).toMatchObject({ heading: 'reverse', differences: 0, undecided: 0 });
  const known = await pair.destination.query(
    'app',
    'SELECT heading, differences FROM cutover.verification ORDER BY finished_at',
  );
  expect(known.at(-1)).toEqual({ heading: 'reverse', differences: '0' });
  await withConnection(pair.destination.endpoint('app'), async (connection) => {
    expect(await latestVerification(connection, pair.migration.id, 'forward')).toMatchObject({ epoch: 0 });
    expect(await latestVerification(connection, pair.migration.id, 'reverse')).toMatchObject({ epoch });
  });
});
