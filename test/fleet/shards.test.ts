/** One task: an epoch between sides with several shards is brought to its end on every one of them, from the record of shard 0. */
import { randomUUID } from 'node:crypto';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { parseConfig } from '../../src/config/load.js';
import type { PinnedSide } from '../../src/cutover/side.js';
import { Directory } from '../../src/fleet/directory.js';
import { resolveEpoch, type Resolution } from '../../src/fleet/resolution.js';
import { Connections } from '../../src/postgres/connections.js';
import { beginEpoch, readRecord, releaseSource, seal, type Decision } from '../../src/postgres/record.js';
import { FencedPair, PUBLICATION, type FencedSide } from '../postgres/fenced-pair.js';
import { useClusters } from '../support/clusters.js';

const clusters = useClusters({ all: { major: 18 } });

/** Shards 0 and 1 of both sides. */
let shards: readonly [FencedPair, FencedPair];
let connections: Connections;

beforeEach(async () => {
  shards = [await FencedPair.make(clusters.all), await FencedPair.make(clusters.all)];
  connections = new Connections();
});

afterEach(async () => {
  await connections.close();
  await Promise.all(shards.map((pair) => pair.end()));
});

const SIDES = ['source', 'destination'] as const;

function pinned(side: 'source' | 'destination', timelineOfSecond?: number): PinnedSide {
  const [first, second] = shards.map(({ [side]: { identity } }) => ({
    systemIdentifier: identity.systemIdentifier,
    databaseOid: identity.databaseOid,
    timeline: identity.timeline,
  }));
  if (!first || !second) throw new Error('two shards');
  return { ...first, otherShards: [{ ...second, timeline: timelineOfSecond ?? second.timeline }] };
}

function begin(timelineOfSecond?: number): Promise<Decision> {
  return beginEpoch(shards[0].source.engine, {
    migration: 'm1',
    attempt: randomUUID(),
    nonce: randomUUID(),
    floorEpoch: 0,
    database: 'prod',
    peer: 'prod_new',
    source: pinned('source'),
    destination: pinned('destination', timelineOfSecond),
    fenced: true,
  });
}

async function sealAll({ epoch, nonce }: Decision): Promise<void> {
  for (const [shard, { source }] of shards.entries()) {
    const request = { epoch, nonce, shard, publication: PUBLICATION, lockTimeoutMs: 500, stream: 'm1@1', events: [] };
    await seal(source.engine, source.identity, request);
  }
}

/** @param unreachable shard 1 of the source is at an address where nobody answers */
function directory(unreachable = false): Directory {
  const { host, port, password } = clusters.all;
  const row = (name: string, shard: number, { engine }: FencedSide, at = port): string =>
    `[[databases]]\nname = "${name}"\nhost = "${host}"\nport = ${at.toString()}\nshard = ${shard.toString()}\ndatabase_name = "${engine.database ?? ''}"\n`;
  const rows = shards.flatMap(({ source, destination }, shard) => [
    row('prod', shard, source, unreachable && shard === 1 ? 1 : port),
    row('prod_new', shard, destination),
  ]);
  const user = `[[users]]\nname = "postgres"\npassword = "${password}"\ndatabases = ["prod", "prod_new"]\nschema_admin = true\n`;
  const config = parseConfig(
    { file: 'pgdog.toml', text: rows.join('') },
    { file: 'users.toml', text: user },
    { environment: {} },
  );
  return new Directory(() => config);
}

/** As a node asks whose engine is gone: it knows no more of the sides than their shards 0. */
function resolve({ epoch }: Decision, unreachable = false): Promise<Resolution> {
  const [source, destination] = SIDES.map((side) => shards[0][side].identity);
  if (!source || !destination) throw new Error('two sides');
  return resolveEpoch(directory(unreachable), connections, { database: 'prod', epoch, source, destination }, 'test');
}

/** `open` or why not, shard by shard. */
async function states(side: 'source' | 'destination'): Promise<readonly string[]> {
  const records = await Promise.all(shards.map((pair) => readRecord(pair[side].engine)));
  return records.map((record) => (record?.fence.state === 'open' && !record.fence.up ? 'open' : 'shut'));
}

test('what was not decided is aborted: every shard of the source is released, and a seal that comes late is refused', async () => {
  const decision = await begin();
  await sealAll(decision);
  expect(await states('source')).toEqual(['shut', 'shut']);
  expect(await resolve(decision)).toMatchObject({ outcome: 'aborted', serving: { otherShards: [expect.anything()] } });
  expect(await states('source')).toEqual(['open', 'open']);
  expect(await states('destination')).toEqual(['shut', 'shut']);
  await expect(sealAll(decision)).rejects.toMatchObject({ code: 'CUT02' });
});

test('a shard that did not answer holds nobody up, and is released by a later epoch', async () => {
  const decision = await begin();
  await sealAll(decision);
  expect((await resolve(decision, true)).outcome).toBe('aborted');
  expect(await states('source')).toEqual(['open', 'shut']);
  const later = await begin();
  // By its own epoch alone a release is strict.
  await releaseSource(shards[1].source.engine, shards[1].source.identity, later.epoch);
  expect(await states('source')).toEqual(['open', 'shut']);
  expect((await resolve(later)).outcome).toBe('aborted');
  expect(await states('source')).toEqual(['open', 'open']);
});

test('what was committed is opened on every shard of the destination', async () => {
  const decision = await begin();
  await sealAll(decision);
  for (const pair of shards) await pair.prove(decision);
  await shards[0].commit(decision);
  expect(await states('destination')).toEqual(['shut', 'shut']);
  expect((await resolve(decision)).outcome).toBe('committed');
  expect(await states('destination')).toEqual(['open', 'open']);
  expect(await states('source')).toEqual(['shut', 'shut']);
});

test('a shard that failed over opens only when it has the last writes of every shard of the source', async () => {
  const decision = await begin(99);
  await sealAll(decision);
  for (const pair of shards) await pair.prove(decision);
  await shards[0].commit(decision);
  await expect(resolve(decision)).rejects.toThrow('lacks the last writes');
  expect(await states('destination')).toEqual(['open', 'shut']);
  const marker = (shard: number): string =>
    `INSERT INTO cutover.marker (cluster, shard, epoch, nonce, kind) VALUES ('c', ${shard.toString()}, ${decision.epoch.toString()}, '${decision.nonce}', 'seal')`;
  await shards[1].destination.engine.query(marker(0));
  await expect(resolve(decision)).rejects.toThrow('lacks the last writes');
  await shards[1].destination.engine.query(marker(1));
  expect((await resolve(decision)).outcome).toBe('committed');
  expect(await states('destination')).toEqual(['open', 'open']);
});
