/** One task: moves of a database that is idle itself: nothing but the seal's marker tells that everything has arrived. */
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, it, onTestFinished } from 'vitest';
import { connect } from '../../src/postgres/connection.js';
import type { System } from '../support/served.js';
import { until } from '../support/wait.js';
import { expectSameContents } from './contents.js';
import { Moving } from './moving.js';

/** No server connection but the engine's own: the proxy keeps none ahead. */
const NO_POOL = 'min_pool_size = 0';
const QUIET = { autovacuum: 'off' };
/** Traffic enough that each look at the log's end finds another, and no load. */
const BETWEEN_NOISE_MS = 5;

/** There, back and there again, with no client of the application. */
async function moveIdle(moving: Moving): Promise<void> {
  const rows = await moving.system.source.query('app', 'SELECT count(*) FROM public.history');
  await moving.reshard();
  expect(await moving.rollback()).toMatchObject({ outcome: 'moved', attempts: 1 });
  expect(await moving.cutover()).toMatchObject({ outcome: 'moved', attempts: 1 });
  expect(await moving.system.destination.query('app', 'SELECT count(*) FROM public.history')).toEqual(rows);
  await expectSameContents(moving.system.source, moving.system.destination);
}

/** Connections of clients of the database, those of the program itself left out. */
async function strangers(system: System): Promise<readonly string[]> {
  const rows = await system.source.query<{ name: string }>(
    'app',
    `SELECT application_name AS name FROM pg_stat_activity
     WHERE datname = 'app' AND backend_type = 'client backend' AND application_name NOT LIKE 'cutover %'`,
  );
  return rows.map(({ name }) => name);
}

describe('an idle source', () => {
  it('reaches parity by the marker alone', { timeout: 240_000 }, async () => {
    const moving = await Moving.start({ source: 17, destination: 18, general: NO_POOL, settings: QUIET });
    onTestFinished(() => moving.stop());
    await until('only the program is connected', async () => (await strangers(moving.system)).length === 0);
    await moveIdle(moving);
    expect(await strangers(moving.system)).toEqual([]);
  });

  it('is not kept from parity by traffic in another database of its cluster', { timeout: 240_000 }, async () => {
    const moving = await Moving.start({ source: 17, destination: 18, general: NO_POOL, settings: QUIET });
    const { source } = moving.system;
    await source.createDatabase('other');
    await source.query('other', 'CREATE TABLE noise (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text)');
    const noise = await connect(source.endpoint('other'));
    let [stopping, written] = [false, 0];
    const writing = (async () => {
      for (; !stopping; written++) {
        await noise.query(
          `INSERT INTO public.noise (body) SELECT repeat(md5(i::text), 20) FROM generate_series(1, 50) i`,
        );
        await delay(BETWEEN_NOISE_MS);
      }
    })();
    onTestFinished(async () => {
      stopping = true;
      await writing;
      await noise.end();
      await moving.stop();
    });
    await until('the other database is written', () => written > 10);
    await moveIdle(moving);
    const before = written;
    await until('the other database was written all along', () => written > before);
  });
});
