/**
 * One task: generated writes of every class have the answer and the effect of one PostgreSQL before, while and after their database is moved to two
 * shards, back, and there again. WRITES says how many of each class; docs/evidence/sharded-moves.md has a long run.
 */
import { expect, test } from 'vitest';
import { RawClient } from '../proxy/support.js';
import { useClusters } from '../support/clusters.js';
import { shardNames, useSystem, type TaskLine } from '../support/served.js';
import { until } from '../support/wait.js';
import { Exchange, type Answer, type Sent } from '../writes/exchange.js';
import { Comparison, type Place } from '../writes/held.js';
import { KEY_COLUMNS, writesSchema } from '../writes/schema.js';
import { CLASSES, FAILING, nothingTold, refusedShare, summaryOf, WriteStream, type Told } from '../writes/stream.js';
import { runningStreams, streaming, turned } from './running-streams.js';

const OF_EACH = Number(process.env.WRITES ?? '500');
const REFUSED_SHARE_MAX = 0.05;
/** Streams of writes beside each other, each with tables of its own. */
const SCHEMAS = ['w1', 'w2'];
const SCHEMA = `${SCHEMAS.map(writesSchema).join('\n')} CREATE PUBLICATION writes FOR TABLES IN SCHEMA ${SCHEMAS.join(', ')};`;

const SHARDING = Object.entries(KEY_COLUMNS)
  .map(([column, type]) => `[[sharded_tables]]\ndatabase = "prod_new"\ncolumn = "${column}"\ndata_type = "${type}"\n`)
  .join('\n');

const clusters = useClusters({ whole: { major: 18 } });
const system = useSystem({
  source: 18,
  destination: 18,
  schema: SCHEMA,
  shards: { destination: 2 },
  general: 'auth_type = "trust"',
  settings: { max_prepared_transactions: '10', max_logical_replication_workers: '16', max_worker_processes: '32' },
  sharding: SHARDING,
});

/** It is too long for `npm test`, which has the writes and the moves each by themselves. */
test('generated writes, through a move to shards, back, and there again', { timeout: 3_600_000 }, async () => {
  await clusters.whole.createDatabase('whole');
  await clusters.whole.query('whole', SCHEMA);
  const told = nothingTold();
  const streams = await Promise.all(SCHEMAS.map((schema, index) => streamOf(schema, index + 1, told)));
  const work = new Work(streams, told);
  await work.during(async () => {
    await system().admin('RESHARD prod prod_new writes');
    await streaming(system(), ' (reverse)');
  });
  await same(SHARDS());
  await work.during(() => turned(system(), ''));
  await same(SOURCE());
  await work.during(() => turned(system(), ' (reverse)'));
  await same(SHARDS());
  await system().admin(`STOP_TASK ${(await runningStreams(system())).id ?? ''} SAVE`);
  await until('the move has ended', async () =>
    (await system().admin<TaskRow>('SHOW TASKS')).every(({ status }) => status !== 'running'),
  );
  await work.until(OF_EACH);
  await same(SHARDS());
  console.log(summaryOf(told));
  expect(refusedShare(told)).toBeLessThanOrEqual(REFUSED_SHARE_MAX);
  for (const name of Object.keys(CLASSES)) {
    const { done, failed } = told.counts.get(name) ?? { done: 0, failed: 0 };
    expect(FAILING.has(name) ? failed : done, name).toBeGreaterThanOrEqual(OF_EACH);
  }
});

type TaskRow = TaskLine & Record<string, string | null>;

const SOURCE = (): readonly Place[] => [{ cluster: system().source, database: 'app' }];
const SHARDS = (): readonly Place[] => shardNames(2).map((database) => ({ cluster: system().destination, database }));

/** While a database with several shards belongs to a migration it must not be truncated: docs/resharding.md. */
function isTruncateRefused({ text }: Sent, { error }: Answer): boolean {
  return error?.code === '55000' && text.includes('TRUNCATE');
}

async function streamOf(schema: string, seed: number, told: Told): Promise<WriteStream> {
  const [here, whole] = await Promise.all([
    RawClient.loggedIn(system(), 'prod', { user: 'app' }),
    RawClient.loggedIn({ address: clusters.whole }, 'whole'),
  ]);
  const exchanges = [new Exchange(here), new Exchange(whole)] as const;
  for (const exchange of exchanges) expect((await exchange.run(`SET search_path = ${schema}`)).error).toBeNull();
  return new WriteStream(...exchanges, told, seed, isTruncateRefused);
}

/** All streams, side by side. */
class Work {
  readonly #streams: readonly WriteStream[];
  readonly #told: Told;

  constructor(streams: readonly WriteStream[], told: Told) {
    this.#streams = streams;
    this.#told = told;
  }

  /** Goes on while something else is done, and a little longer. */
  async during(other: () => Promise<unknown>): Promise<void> {
    let over = false;
    const finished = other().finally(() => (over = true));
    await Promise.all([finished, this.#rounds(() => over)]);
    let more = this.#streams.length * 2;
    await this.#rounds(() => (more -= 1) < 0);
  }

  /** Until so many units of each class are done. */
  async until(ofEach: number): Promise<void> {
    const enough = (name: string): boolean => {
      const { done = 0, failed = 0 } = this.#told.counts.get(name) ?? {};
      return (FAILING.has(name) ? failed : done) >= ofEach;
    };
    await this.#rounds(() => Object.keys(CLASSES).every(enough));
  }

  async #rounds(over: () => boolean): Promise<void> {
    await Promise.all(
      this.#streams.map(async (stream) => {
        while (!over() && this.#told.different.length === 0) await stream.round(() => Promise.resolve(true));
      }),
    );
    expect(this.#told.different).toEqual([]);
  }
}

/** Nobody writes: the side that serves has what one PostgreSQL has, and each row is on the shard of its key. */
async function same(places: readonly Place[]): Promise<void> {
  const comparison = await Comparison.open({ cluster: clusters.whole, database: 'whole' }, places);
  for (const schema of SCHEMAS) expect(await comparison.differences(schema)).toEqual([]);
  await comparison.close();
}
