/** One task: the ledger is moved to shards, from shards, and back while clients transfer money between them, and every balance is right. */
import { describe, expect, test } from 'vitest';
import { coordinator } from '../../src/cli/coordinator.js';
import type { Place } from '../../src/dev/embedded-postgres.js';
import { startLedger, type Ledger } from '../../src/dev/ledger/ledger.js';
import { prepareLedger, PUBLICATION, type LoadedHistory } from '../../src/dev/ledger/prepare.js';
import { invariant } from '../../src/errors/invariant.js';
import { sameContents } from '../faults-run/contents.js';
import { DIRECT_TABLE, EXTRA_TABLES } from '../faults-run/direct-writers.js';
import { KEYS, NOTICES, SPREAD_SCHEMA, spreadRules, spreadWrites } from '../faults-run/spread.js';
import { spreadContents } from '../faults-run/spread-contents.js';
import { shardNames, useSystem, type System } from '../support/served.js';
import { THOROUGH } from '../support/thorough.js';
import { until } from '../support/wait.js';
import { streaming, turned } from './running-streams.js';

const WRITERS = 6;
/** Of each writer: every kind of write in every style. */
const TURNS = 21;
const SIZES = [
  [1, 2],
  [1, 4],
  [2, 2],
  [2, 3],
  [3, 2],
] as const;

describe.each(THOROUGH ? SIZES : SIZES.slice(-1))('from %i to %i shards', (from, to) => {
  const system = useSystem({
    source: 18,
    destination: 18,
    shards: { source: from, destination: to },
    general: 'default_pool_size = 12',
    settings: {
      max_connections: '300',
      max_prepared_transactions: '20',
      max_replication_slots: '40',
      max_wal_senders: '40',
      max_logical_replication_workers: '40',
      max_worker_processes: '60',
    },
    sharding: (from > 1 ? spreadRules('prod') : '') + spreadRules('prod_new'),
  });

  test('there, back, and there again: nothing is lost, doubled or refused', { timeout: 240_000 }, async () => {
    const history = await prepared(system(), from);
    const ledger = await startLedger({
      ...{ endpoint: system().endpoint(), writers: WRITERS, thinkMs: 30 },
      writeOfTurn: spreadWrites(from, to),
    });
    await more(ledger);
    await system().admin(`RESHARD prod prod_new ${PUBLICATION}`);
    await streaming(system(), ' (reverse)');
    await more(ledger);
    for (const heading of ['', ' (reverse)']) {
      await turned(system(), heading);
      await more(ledger);
    }
    await ledger.stop();
    expect(ledger).toMatchObject({ refused: [], unknown: [], reader: { wentBack: 0, missed: [] } });
    const [here, there] = [places(system().source, from), places(system().destination, to)];
    expect(await sameContents(here, there, [NOTICES])).toBe(true);
    for (const side of [here, there]) expect(await spreadContents(side, ledger, history)).toEqual([]);
  });
});

/** Of several shards each has the rows that are its own, and numbers that no other one gives. */
async function prepared(served: System, shards: number): Promise<LoadedHistory> {
  const { source } = served;
  let history: LoadedHistory | null = null;
  for (const [shard, database] of shardNames(shards).entries()) {
    await source.query(database, DIRECT_TABLE);
    history = await prepareLedger(source.endpoint(database), { rows: 500, extraTables: EXTRA_TABLES });
    await source.query(database, SPREAD_SCHEMA);
    if (shards > 1) await source.query(database, onlyOwn(shard, shards));
  }
  invariant(history, 'there is a shard');
  if (shards > 1) {
    await coordinator({ files: served.files, database: 'prod', write: () => undefined });
    await served.admin('RELOAD');
  }
  return history;
}

function onlyOwn(shard: number, shards: number): string {
  const parents = ['bigint', 'uuid'].map(
    (type) => `CREATE TEMPORARY TABLE key_${type} (key ${type}) PARTITION BY HASH (key);`,
  );
  const others = KEYS.map(([table, column, type]) => {
    const own = `satisfies_hash_partition('pg_temp.key_${type}'::regclass, ${shards.toString()}, ${shard.toString()}, ${column}::${type})`;
    return `DELETE FROM public.${table} WHERE NOT ${own};`;
  });
  const numbers = `DO $$ DECLARE t regclass; BEGIN
    FOR t IN SELECT attrelid FROM pg_attribute WHERE attidentity <> '' AND attrelid::regclass::text !~ 'cutover' LOOP
      EXECUTE format('ALTER TABLE %s ALTER COLUMN id SET INCREMENT BY ${shards.toString()} RESTART WITH ${(shard + 1).toString()}', t);
    END LOOP; END $$;`;
  return [...parents, ...others, numbers].join('\n');
}

/** Every writer has made every kind of write once more. */
async function more(ledger: Ledger): Promise<void> {
  const before = ledger.acknowledged.length;
  const { reads } = ledger.reader;
  const done = (): boolean =>
    ledger.refused.length > 0 ||
    (ledger.acknowledged.length >= before + TURNS * WRITERS && ledger.reader.reads > reads);
  await until('every kind of write goes on', done, 60_000);
  expect(ledger.refused).toEqual([]);
}

function places(cluster: Place['cluster'], shards: number): readonly Place[] {
  return shardNames(shards).map((database) => ({ cluster, database }));
}
