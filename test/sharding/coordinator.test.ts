/** One task: hold the making, keeping and dropping of a coordinator database to its promises, on a real server. */
import { beforeAll, describe, expect, test } from 'vitest';
import { CutoverError } from '../../src/errors/errors.js';
import { withConnection, type Connection } from '../../src/postgres/connection.js';
import { analyzeCoordinator } from '../../src/postgres/coordinator/analyze.js';
import { dropCoordinator } from '../../src/postgres/coordinator/database.js';
import { coordinatorDifference, makeCoordinator } from '../../src/postgres/coordinator/make.js';
import type { CoordinatorSpec } from '../../src/postgres/coordinator/spec.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { APP_PASSWORD, APP_ROLE, OWNER_ROLE } from './coordinator-fixture.js';
import { connectApp, createDatabase, makeSharded, type Sharded } from './coordinator-setup.js';

const clusters = useClusters({ current: { major: 18, auth: 'scram', settings: { log_statement: 'all' } } });
let sharded: Sharded;

beforeAll(async () => {
  sharded = await makeSharded(clusters.current);
});

function onCoordinator<T>(work: (connection: Connection) => Promise<T>): Promise<T> {
  return withConnection(clusters.current.endpoint(sharded.coordinator), work);
}

async function onShards(sql: string): Promise<void> {
  for (const shard of sharded.shards) await clusters.current.query(shard, sql);
}

describe('a coordinator', () => {
  test('says what it goes without, and why', () => {
    expect(sharded.made.changed).toBe(true);
    expect(sharded.made.leftOut.map(({ object }) => object).sort()).toEqual([
      'primary key of table app.document',
      'table app.secret',
      'view app.only_base',
      'view app.secrets',
    ]);
  });

  test('made again is the same coordinator', async () => {
    expect(await onCoordinator((connection) => coordinatorDifference(connection, sharded.spec))).toEqual([]);
    const again = await onCoordinator((connection) => makeCoordinator(connection, sharded.spec));
    expect(again).toEqual({ changed: false, leftOut: sharded.made.leftOut });
  });

  test('made twice at once is made once', async () => {
    const name = `${sharded.coordinator}_twice`;
    await Promise.all([0, 1].map(() => createDatabase(clusters.current, name, sharded.shards[0] ?? '')));
    const endpoint = clusters.current.endpoint(name);
    await Promise.all([0, 1].map(() => withConnection(endpoint, (c) => makeCoordinator(c, sharded.spec))));
    expect(await withConnection(endpoint, (c) => coordinatorDifference(c, sharded.spec))).toEqual([]);
    await withConnection(clusters.current.endpoint('postgres'), async (maintenance) => {
      expect(await dropCoordinator(maintenance, name)).toBe(true);
      expect(await dropCoordinator(maintenance, name)).toBe(false);
    });
  });

  test('has the privileges of the shards, column by column', async () => {
    const app = await connectApp(clusters.current, sharded.coordinator);
    try {
      await expect(app.query('SELECT rate FROM rate')).rejects.toMatchObject({ code: '42501' });
      expect((await app.query('SELECT currency FROM rate')).rowCount).toBe(21);
      // The parts of what it may read, and none of what it may not: coordinator-answers.test.ts looks at every column.
      expect((await app.query('SELECT id FROM cutover_shard_0."app.tenant"')).rowCount).toBeGreaterThan(0);
      await expect(app.query('CREATE TABLE cutover_shard_0.mine ()')).rejects.toThrow(/permission denied|read-only/);
      await expect(app.query('SELECT * FROM cutover.coordinator')).rejects.toMatchObject({ code: '42501' });
    } finally {
      await app.end();
    }
  });

  test('takes no write, whatever the session says', async () => {
    const app = await connectApp(clusters.current, sharded.coordinator);
    try {
      const insert = `INSERT INTO country VALUES ('x', 'x', 1)`;
      await expect(app.query(insert)).rejects.toMatchObject({ code: '25006' });
      await app.query('SET default_transaction_read_only = off');
      for (const write of [
        insert,
        `INSERT INTO rate (at) VALUES (NULL)`,
        `INSERT INTO reading VALUES (1, 1)`,
        `UPDATE reading SET value = 1`,
        `TRUNCATE reading`,
        `INSERT INTO tenant VALUES (1000, 'x', 'x', now())`,
        `UPDATE tenant SET name = 'x'`,
        `DELETE FROM tenant`,
        `SELECT add_tenant(1000)`,
      ])
        await expect(app.query(write), write).rejects.toMatchObject({
          code: expect.stringMatching(/^(55000|42501|23514)$/) as unknown,
        });
    } finally {
      await app.end();
    }
    expect(await clusters.current.query(sharded.whole, 'SELECT count(*) FROM app.tenant')).toEqual([{ count: '40' }]);
  });

  test('is never made over a database that has tables', async () => {
    const endpoint = clusters.current.endpoint(sharded.whole);
    await expect(withConnection(endpoint, (c) => makeCoordinator(c, sharded.spec))).rejects.toMatchObject({
      code: 'coordinator_failed',
    });
    await withConnection(clusters.current.endpoint('postgres'), async (maintenance) => {
      await expect(dropCoordinator(maintenance, sharded.whole)).rejects.toMatchObject({ code: 'coordinator_failed' });
    });
    expect(await clusters.current.query(sharded.whole, 'SELECT count(*) FROM app.tenant')).toEqual([{ count: '40' }]);
  });

  test('has the locale of the shards, not that of its server', async () => {
    const locale = `SELECT encoding, datcollate, datctype, datlocprovider, datlocale FROM pg_database WHERE datname = current_database()`;
    const name = await freshDatabase(clusters.current, 'icu');
    await clusters.current.query('postgres', `DROP DATABASE ${name}`);
    await clusters.current.query(
      'postgres',
      `CREATE DATABASE ${name} TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'de-u-co-phonebk'`,
    );
    await createDatabase(clusters.current, `${name}_coordinator`, name);
    expect(await clusters.current.query(`${name}_coordinator`, locale)).toEqual(
      await clusters.current.query(name, locale),
    );
  });
});

describe('a password', () => {
  test('is in no log, error, view or answer that a role of the application can read', async () => {
    expect(clusters.current.log).toContain('LOG:  statement: ');
    expect(clusters.current.log).not.toContain('CREATE USER MAPPING');
    const app = await connectApp(clusters.current, sharded.coordinator);
    try {
      const { rows } = await app.query<{ umoptions: string[] | null }>('SELECT umoptions FROM pg_user_mappings');
      expect(rows.length).toBeGreaterThan(0);
      expect(rows.filter(({ umoptions }) => umoptions !== null)).toEqual([]);
      await expect(app.query('SELECT * FROM pg_user_mapping')).rejects.toMatchObject({ code: '42501' });
      const alter = `ALTER USER MAPPING FOR ${APP_ROLE} SERVER cutover_shard_0 OPTIONS (SET user 'postgres')`;
      await app.query('SET default_transaction_read_only = off');
      await expect(app.query(alter)).rejects.toMatchObject({ code: '42501' });
    } finally {
      await app.end();
    }
    const stored = await clusters.current.query(sharded.coordinator, 'SELECT * FROM cutover.coordinator');
    expect(JSON.stringify(stored)).not.toContain(APP_PASSWORD);
  });

  test('that is wrong fails without being told', async () => {
    const password = 'wrong-but-secret';
    const users = [{ role: APP_ROLE, logins: sharded.shards.map(() => ({ user: APP_ROLE, password })) }];
    await onCoordinator((connection) => makeCoordinator(connection, { ...sharded.spec, users }));
    const app = await connectApp(clusters.current, sharded.coordinator);
    const error: unknown = await app.query('SELECT count(*) FROM tenant').catch((cause: unknown) => cause);
    await app.end();
    expect(error).toMatchObject({ code: '08001' });
    expect(JSON.stringify(error)).not.toContain(password);
    expect((error as Error).message).not.toContain(password);
    // Known again: the mappings alone are changed.
    const again = await onCoordinator((connection) => makeCoordinator(connection, sharded.spec));
    expect(again.changed).toBe(false);
    const { rows } = await countTenants();
    expect(rows).toEqual([{ count: '40' }]);
    expect(clusters.current.log).not.toContain(password);
  });
});

async function countTenants(): Promise<{ rows: unknown[] }> {
  const app = await connectApp(clusters.current, sharded.coordinator);
  try {
    return await app.query('SELECT count(*) FROM tenant');
  } finally {
    await app.end();
  }
}

describe('a change of the schema', () => {
  test('is told by name, and is there after the coordinator was made again, for sessions that stayed too', async () => {
    const app = await connectApp(clusters.current, sharded.coordinator);
    try {
      await app.query('SELECT count(*) FROM base');
      await onShards(`ALTER TABLE app.base ADD COLUMN added integer DEFAULT 5;
        CREATE OR REPLACE VIEW app.big_tenants AS SELECT * FROM app.tenant_report WHERE total > 100;
        REVOKE SELECT ON app.tenant FROM ${OWNER_ROLE}`);
      const told = await onCoordinator((connection) => coordinatorDifference(connection, sharded.spec));
      expect(told).toHaveLength(4);
      expect(told).toContain('table app.base column 3 added is missing at the coordinator, "integer" at the shards');
      const again = await onCoordinator((connection) => makeCoordinator(connection, sharded.spec));
      expect(again.changed).toBe(true);
      expect(await onCoordinator((connection) => coordinatorDifference(connection, sharded.spec))).toEqual([]);
      expect((await app.query('SELECT DISTINCT added FROM base')).rows).toEqual([{ added: 5 }]);
    } finally {
      await app.end();
    }
  });

  test('on one shard alone makes no coordinator, and leaves the one there was', async () => {
    const [, second = ''] = sharded.shards;
    await clusters.current.query(second, 'ALTER TABLE app.rate ADD COLUMN here integer');
    const problem = /the shards differ: table app\.rate column 4 here is missing on shard 0, "integer" on shard 1/;
    await expect(onCoordinator((connection) => makeCoordinator(connection, sharded.spec))).rejects.toThrow(problem);
    expect(await onCoordinator((connection) => coordinatorDifference(connection, sharded.spec))).toHaveLength(1);
    expect((await countTenants()).rows).toEqual([{ count: '40' }]);
    await clusters.current.query(second, 'ALTER TABLE app.rate DROP COLUMN here');
    expect(await onCoordinator((connection) => coordinatorDifference(connection, sharded.spec))).toEqual([]);
  });

  test('that cannot be carried over leaves the coordinator there was', async () => {
    const broken: CoordinatorSpec = {
      ...sharded.spec,
      placementOf: (table) =>
        table.name === 'tenant'
          ? { partitionBy: 'PARTITION BY HASH (nothing)', partitions: [] }
          : sharded.spec.placementOf(table),
    };
    const made = onCoordinator((connection) => makeCoordinator(connection, broken));
    await expect(made).rejects.toBeInstanceOf(CutoverError);
    await expect(made).rejects.toThrow(/table app\.tenant: column "nothing"/);
    expect((await countTenants()).rows).toEqual([{ count: '40' }]);
  });
});

describe('statistics', () => {
  test('are taken within the limits, and what is not reached is named', async () => {
    await onCoordinator(async (connection) => {
      const none = await analyzeCoordinator(connection, { deadlineMs: 0, tableMs: 1_000 });
      expect(none.tables).toBe(0);
      expect(none.skipped).toContain('app.tenant');
      const all = await analyzeCoordinator(connection, { deadlineMs: 30_000, tableMs: 10_000 });
      expect(all.skipped).toEqual([]);
      const { rows } = await connection.query<{ rows: number }>(
        `SELECT sum(reltuples)::int AS rows FROM pg_class WHERE relname = 'app.orders' AND relkind = 'f'`,
      );
      expect(rows).toEqual([{ rows: 408 }]);
    });
  });
});

test('what a definer reads is read by the engine, as far as the definer may', async () => {
  const app = await connectApp(clusters.current, sharded.coordinator);
  try {
    const [whole] = await clusters.current.query(sharded.whole, 'SELECT app.all_balances() AS all_balances');
    expect((await app.query('SELECT all_balances()')).rows).toEqual([whole]);
    // Since the change of the schema above.
    await expect(app.query('SELECT * FROM tenant_report')).rejects.toMatchObject({ code: '42501' });
  } finally {
    await app.end();
  }
});
