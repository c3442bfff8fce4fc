/** One task: give the tests of the fence two fenced databases on one server, and the steps of an epoch between them. */
import { randomUUID } from 'node:crypto';
import { sideOf } from '../../src/cutover/side.js';
import type { Cluster } from '../../src/dev/embedded-postgres.js';
import { connect, type Connection } from '../../src/postgres/connection.js';
import { applicationTables, armFence } from '../../src/postgres/fence.js';
import { insertMigration } from '../../src/postgres/migrations.js';
import {
  beginEpoch,
  commitEpoch,
  installRecord,
  namePeer,
  openDestination,
  readIdentity,
  ready,
  seal,
  type Decision,
  type Identity,
} from '../../src/postgres/record.js';
import { ensurePublication } from '../../src/postgres/streams.js';
import { freshDatabase } from '../support/clusters.js';

export const PUBLICATION = 'cutover_m1_forward';
export const PEER = 'db2.example:5432/app';
const SCHEMA = `
  CREATE TABLE public.item (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text);
  CREATE TABLE public.parted (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
  CREATE TABLE public.parted_1 PARTITION OF public.parted FOR VALUES FROM (0) TO (1000);
  CREATE TABLE public.child (id int PRIMARY KEY, item bigint REFERENCES public.item ON DELETE CASCADE ON UPDATE SET NULL);
  INSERT INTO public.item (name) VALUES ('old'); INSERT INTO public.child VALUES (1, 1);`;

export interface FencedSide {
  readonly engine: Connection;
  readonly writer: Connection;
  readonly identity: Identity;
}

/** Begins an epoch of the migration `m1`, each time another. */
export function begin(engine: Connection, source: Identity, destination: Identity): Promise<Decision> {
  return beginEpoch(engine, {
    migration: 'm1',
    attempt: randomUUID(),
    nonce: randomUUID(),
    floorEpoch: 0,
    database: 'prod',
    peer: 'prod_new',
    source,
    destination,
    fenced: true,
  });
}

export class FencedPair {
  readonly source: FencedSide;
  readonly destination: FencedSide;

  private constructor(source: FencedSide, destination: FencedSide) {
    this.source = source;
    this.destination = destination;
  }

  /** Two fresh databases of `cluster`, the record of a migration between them in the first. The caller ends the pair. */
  static async make(cluster: Cluster): Promise<FencedPair> {
    const pair = new FencedPair(await side(cluster, 'open'), await side(cluster, 'closed'));
    const { source, destination } = pair;
    const sides = { source: sideOf(source.identity), destination: sideOf(destination.identity) };
    const row = { id: 'm1', owner: 'test', operation: null, database: 'prod', peer: 'prod_new', publication: '' };
    await insertMigration(source.engine, { ...row, ...sides });
    return pair;
  }

  async end(): Promise<void> {
    for (const { engine, writer } of [this.source, this.destination]) {
      await engine.end();
      await writer.end();
    }
  }

  begin(): Promise<Decision> {
    return begin(this.source.engine, this.source.identity, this.destination.identity);
  }

  async seal({ epoch, nonce }: Decision, lockTimeoutMs = 500): Promise<void> {
    const request = { epoch, nonce, shard: 0, publication: PUBLICATION, lockTimeoutMs, stream: 'm1@1', events: [] };
    await seal(this.source.engine, this.source.identity, request);
  }

  prove({ epoch, nonce }: Decision): Promise<unknown> {
    const request = { epoch, nonce, shard: 0, subscription: PUBLICATION, fenced: true };
    return ready(this.destination.engine, this.destination.identity, request);
  }

  commit({ epoch, nonce }: Decision): Promise<Decision> {
    return commitEpoch(this.source.engine, this.source.identity, epoch, nonce, 'm1@1', []);
  }

  /** The destination serves, the source has moved away. */
  async move(): Promise<void> {
    const decision = await this.begin();
    await this.seal(decision);
    await this.prove(decision);
    await openDestination(this.destination.engine, await this.commit(decision));
  }
}

/** A database whose tables are fenced; the publication has all of them. */
async function side(cluster: Cluster, initial: 'open' | 'closed'): Promise<FencedSide> {
  const endpoint = cluster.endpoint(await freshDatabase(cluster));
  const engine = await connect(endpoint);
  await engine.query(SCHEMA);
  await installRecord(engine, initial);
  await namePeer(engine, PEER);
  const tables = await applicationTables(engine);
  await armFence(engine, tables, 'always');
  const published = tables.filter(({ table }) => table !== 'parted');
  await ensurePublication(engine, PUBLICATION, published);
  return { engine, writer: await connect(endpoint), identity: await readIdentity(engine) };
}
