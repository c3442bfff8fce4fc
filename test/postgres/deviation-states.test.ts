/** One task: a shard's state of a deviation is read as PostgreSQL wrote it, and is used nowhere where it cannot be. */
import { expect, test } from 'vitest';
import { connect, withConnection } from '../../src/postgres/connection.js';
import { handsOnStates, mayTakeStates } from '../../src/postgres/coordinator/deviation-proof.js';
import { COORDINATOR_STATES_DDL, DEVIATION_STATES_DDL } from '../../src/postgres/coordinator/deviation-states.js';
import { TWO_PHASE_DDL } from '../../src/postgres/two-phase.js';
import { freshDatabase, useClusters } from '../support/clusters.js';

const clusters = useClusters({ old: { major: 14 }, first: { major: 15 }, newest: { major: 18 } });
const DDL = TWO_PHASE_DDL + DEVIATION_STATES_DDL;

/** Of numbers with up to so many digits before and behind the point. */
const NUMBERS = `
  SELECT g.seed, n.value FROM generate_series(1, 400) g (seed), LATERAL (
    SELECT CASE WHEN hashint4(g.seed * 31 + i) % 11 = 0 THEN NULL ELSE
      round((hashint8extended(g.seed * 1000 + i, 7)::numeric * (10::numeric ^ (hashint4(g.seed + i) % 40))) / 1e19, abs(hashint4(g.seed) % 30)) END
    FROM generate_series(1, 1 + abs(hashint4(g.seed)) % 9) i) n (value)`;
const EDGES = `
  SELECT * FROM (VALUES (1, 0::numeric), (2, 0.0000), (2, -0.5), (3, 9999), (3, 10000), (4, 100000000), (5, 1e-5), (6, 1e2000), (7, 1e-3000),
    (8, -99999999.9999), (8, 0.0001), (9, 1e131000 / 1e66000), (10, 1e-8100), (10, 7e60000), (12, 1e-8192), (13, 3e-9000), (13, 2), (11, NULL)) v (seed, value)`;

test.each(['first', 'newest'] as const)(
  '%s: count, sum and squares are what PostgreSQL has of the numbers themselves, to the last zero',
  async (name) => {
    const cluster = clusters[name];
    const database = await freshDatabase(cluster);
    await cluster.query(database, COORDINATOR_STATES_DDL + COORDINATOR_STATES_DDL);
    for (const numbers of [NUMBERS, EDGES]) {
      const rows = await cluster.query(
        database,
        `SELECT seed, cutover_shards.squares_of(cutover_shards.deviation_state(value))::text AS squares, coalesce(sum(value * value), 0)::text AS expected,
         cutover_shards.deviation_sum(value)::text AS sum, sum(value)::text AS "expectedSum",
         cutover_shards.count_of(cutover_shards.deviation_state(value))::int AS count, count(value)::int AS "expectedCount"
       FROM (${numbers}) n GROUP BY seed ORDER BY seed`,
      );
      expect(rows.length).toBeGreaterThan(10);
      for (const { seed, squares, expected, sum, expectedSum, count, expectedCount } of rows)
        expect({ seed, squares, sum, count }).toEqual({
          seed,
          squares: expected,
          sum: expectedSum,
          count: expectedCount,
        });
    }
    for (const odd of ['NaN', 'Infinity', '-Infinity'])
      expect(
        await cluster.query(
          database,
          `SELECT cutover_shards.squares_of(s)::text AS squares, cutover_shards.count_of(s)::int AS count
           FROM (SELECT cutover_shards.deviation_state(v) AS s FROM unnest('{1,${odd},2,NULL}'::numeric[]) v) x`,
        ),
      ).toEqual([{ squares: 'NaN', count: 3 }]);
  },
);

test('only a shard whose states have the known form hands them on: 14 has another', async () => {
  for (const [name, expected] of [
    ['old', false],
    ['first', true],
    ['newest', true],
  ] as const) {
    const database = await freshDatabase(clusters[name]);
    await withConnection(clusters[name].endpoint(database), async (shard) => {
      expect(await handsOnStates(shard)).toBe(false);
      await shard.query(DDL);
      await shard.query(DDL);
      expect(await handsOnStates(shard), name).toBe(expected);
    });
  }
});

test('a role that is no superuser makes none, and takes none', async () => {
  const cluster = clusters.newest;
  const database = await freshDatabase(cluster);
  await cluster.query(
    'postgres',
    `CREATE ROLE states_engine LOGIN PASSWORD 'states'; ALTER DATABASE "${database}" OWNER TO states_engine`,
  );
  const shard = await connect({ ...cluster.endpoint(database), user: 'states_engine', password: 'states' });
  try {
    await shard.query(DDL);
    expect(await handsOnStates(shard)).toBe(false);
    expect(await mayTakeStates(shard)).toBe(false);
  } finally {
    await shard.end();
  }
});

test('what merely bears their names is not called, and what not everybody may use is not used', async () => {
  const cluster = clusters.newest;
  const database = await freshDatabase(cluster);
  await cluster.query(
    database,
    `CREATE SCHEMA cutover_shards;
     CREATE FUNCTION cutover_shards.spy(numeric, numeric) RETURNS numeric LANGUAGE plpgsql AS $$ BEGIN RAISE 'called'; END $$;
     CREATE AGGREGATE cutover_shards.deviation_state(numeric) (SFUNC = cutover_shards.spy, STYPE = numeric);`,
  );
  await withConnection(cluster.endpoint(database), async (shard) => {
    await shard.query(DDL);
    expect(await handsOnStates(shard)).toBe(false);
    await shard.query(`DROP AGGREGATE cutover_shards.deviation_state(numeric); ${DDL}`);
    expect(await handsOnStates(shard)).toBe(true);
    await shard.query('REVOKE EXECUTE ON FUNCTION cutover_shards.deviation_sum(numeric) FROM PUBLIC');
    expect(await handsOnStates(shard)).toBe(false);
  });
});

test('any role may use them, with any settings, also where functions are given to nobody by default', async () => {
  const cluster = clusters.newest;
  const database = await freshDatabase(cluster);
  await cluster.query(database, 'ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC');
  await cluster.query(database, DDL + COORDINATOR_STATES_DDL);
  await cluster.query('postgres', `CREATE ROLE states_reader LOGIN PASSWORD 'states'`);
  const reader = { ...cluster.endpoint(database), user: 'states_reader', password: 'states' };
  const { rows } = await withConnection(reader, async (connection) => {
    await connection.query('SET standard_conforming_strings = off');
    return connection.query(
      `SELECT cutover_shards.squares_of(cutover_shards.deviation_state(v))::text AS squares, cutover_shards.deviation_sum(v)::text AS sum
       FROM unnest('{1.5,-2}'::numeric[]) v`,
    );
  });
  expect(rows).toEqual([{ squares: '6.25', sum: '-0.5' }]);
});
