/** One task: tell a subscription that somebody has altered from one that is as the engine left it, on every server and for every role. */
import { describe, expect, it, onTestFinished } from 'vitest';
import type { Cluster } from '../../src/dev/embedded-postgres.js';
import { applyTrouble } from '../../src/postgres/apply-health.js';
import { connect, type Connection } from '../../src/postgres/connection.js';
import { disableSubscription, dropSubscription, enableSubscription } from '../../src/postgres/streams.js';
import { stamped, STAMP_OF_S } from '../../src/postgres/subscription-stamp.js';
import { freshDatabase, useClusters } from '../support/clusters.js';

const clusters = useClusters({ c14: { major: 14 }, c15: { major: 15 }, c18: { major: 18 } });
const NAME = 'cutover_m1_forward';
/** It never connects: what is looked at is its row. */
const CREATE = `CREATE SUBSCRIPTION ${NAME} CONNECTION 'host=127.0.0.1 port=1 password=none' PUBLICATION p
  WITH (connect = false, enabled = false, slot_name = '${NAME}')`;

async function subscriber(cluster: Cluster): Promise<Connection> {
  const connection = await connect(cluster.endpoint(await freshDatabase(cluster)));
  onTestFinished(async () => {
    await connection.query('RESET ROLE');
    await dropSubscription(connection, NAME);
    await connection.end();
  });
  return connection;
}

const isAsLeft = async (connection: Connection): Promise<boolean | null | undefined> =>
  (
    await connection.query<{ same: boolean | null }>(
      `SELECT s.xmin::text = ${STAMP_OF_S} AS same FROM pg_subscription s WHERE s.subname = $1`,
      [NAME],
    )
  ).rows[0]?.same;

describe.each(['c14', 'c15', 'c18'] as const)('%s', (server) => {
  it('what the engine does is no alteration; what somebody does is one, and stays one whatever the engine does next', async () => {
    const connection = await subscriber(clusters[server]);
    await connection.query(stamped(NAME, CREATE));
    await enableSubscription(connection, NAME);
    await disableSubscription(connection, NAME);
    expect(await isAsLeft(connection)).toBe(true);
    await connection.query('VACUUM (FULL, FREEZE) pg_subscription');
    expect(await isAsLeft(connection)).toBe(true);
    await connection.query(`ALTER SUBSCRIPTION ${NAME} SET (binary = true)`);
    expect(await isAsLeft(connection)).toBe(false);
    await enableSubscription(connection, NAME);
    expect(await isAsLeft(connection)).toBe(false);
    // An alteration while no error is counted is nobody's harm: found once, it is taken as it is.
    if (server !== 'c14') expect(await applyTrouble(connection, [NAME])).toBeNull();
    expect(await isAsLeft(connection)).toBe(server !== 'c14');
  });

  it('a subscription of a program that left no note gets none, and its note goes with it', async () => {
    const connection = await subscriber(clusters[server]);
    await connection.query(CREATE);
    await enableSubscription(connection, NAME);
    expect(await isAsLeft(connection)).toBeNull();
    await dropSubscription(connection, NAME);
    await connection.query(stamped(NAME, CREATE));
    expect(await isAsLeft(connection)).toBe(true);
    await dropSubscription(connection, NAME);
    const notes = `SELECT FROM pg_description WHERE classoid = 'pg_subscription'::regclass`;
    expect((await connection.query(notes)).rows).toEqual([]);
  });
});

it('a role that is no superuser leaves its note where it may read xmin, and is not held back where it may not', async () => {
  const connection = await subscriber(clusters.c18);
  await connection.query('CREATE ROLE plain; GRANT pg_create_subscription TO plain');
  const { rows } = await connection.query<{ database: string }>('SELECT current_database() AS database');
  await connection.query(`GRANT CREATE ON DATABASE "${rows[0]?.database ?? ''}" TO plain`);
  await connection.query('SET ROLE plain');
  await connection.query(stamped(NAME, CREATE));
  await enableSubscription(connection, NAME);
  expect(await applyTrouble(connection, [NAME])).toBeNull();
  await connection.query('RESET ROLE');
  expect(await isAsLeft(connection)).toBeNull();
  await dropSubscription(connection, NAME);

  await connection.query('GRANT SELECT (xmin) ON pg_subscription TO plain; SET ROLE plain');
  await connection.query(stamped(NAME, CREATE));
  await enableSubscription(connection, NAME);
  expect(await applyTrouble(connection, [NAME])).toBeNull();
  expect(await isAsLeft(connection)).toBe(true);
});
