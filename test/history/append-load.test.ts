/** One task: the load tells the truth about answers it lost, and the checker finds what a real server really lost. */
import { connect as connectSocket, createServer, type AddressInfo, type Socket } from 'node:net';
import { once } from 'node:events';
import { expect, it, onTestFinished } from 'vitest';
import type { Cluster } from '../../src/dev/embedded-postgres.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { until } from '../support/wait.js';
import { startAppendLoad, type AppendLoad } from './append-load.js';
import { check } from './checker.js';
import { describeFindings } from './findings.js';
import { countsOf } from './history.js';
import { LISTS_SCHEMA, readLists } from './lists.js';

const SEED = 4;

const clusters = useClusters({
  careful: { major: 18 },
  // Acknowledges what it has not written yet, and leaves that to a process that sleeps (PostgreSQL documentation, 28.4).
  careless: { major: 18, settings: { synchronous_commit: 'off', wal_writer_delay: '10s' } },
});

async function listsOn(cluster: Cluster): Promise<string> {
  const database = await freshDatabase(cluster, 'lists');
  await cluster.query(database, LISTS_SCHEMA);
  await cluster.query(database, 'CHECKPOINT');
  return database;
}

async function acknowledges(load: AppendLoad, count: number): Promise<void> {
  const enough = load.acknowledged + count;
  await until('transactions are acknowledged', () => load.acknowledged >= enough, 30_000);
}

async function crash(cluster: Cluster): Promise<void> {
  await cluster.kill();
  await cluster.start();
}

interface Way {
  readonly port: number;
  /** Cuts every connection; others may be made. */
  readonly cut: () => void;
  /** Cuts every connection, for good. */
  readonly close: () => void;
}

/** Passes bytes on to a server until it is told not to. */
async function wayTo(cluster: Cluster): Promise<Way> {
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const upstream = connectSocket({ host: cluster.host, port: cluster.port });
    for (const [one, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(one);
      one.on('error', () => undefined);
      one.on('close', () => {
        sockets.delete(one);
        other.destroy();
      });
      one.pipe(other);
    }
  });
  server.listen(0, cluster.host);
  await once(server, 'listening');
  const cut = (): void => {
    for (const socket of sockets) socket.destroy();
  };
  const close = (): void => {
    server.close();
    cut();
  };
  onTestFinished(close);
  return { port: (server.address() as AddressInfo).port, cut, close };
}

it('a server that crashes loses nothing it had acknowledged, and the load agrees', async () => {
  const { careful } = clusters;
  const endpoint = careful.endpoint(await listsOn(careful));
  const load = await startAppendLoad({ endpoints: [endpoint], seed: SEED });
  onTestFinished(async () => {
    await load.stop();
  });
  for (let crashes = 0; crashes < 3; crashes++) {
    await acknowledges(load, 500);
    await crash(careful);
  }
  await acknowledges(load, 500);
  const history = await load.stop();
  expect(describeFindings(check(history, await readLists(endpoint)))).toBe('');
  expect(countsOf(history)).toMatchObject({ unknown: expect.toSatisfy((count) => count > 0) as number });
});

it('a server that acknowledges before it writes loses appends in a crash, and they are found', async () => {
  const { careless } = clusters;
  const endpoint = careless.endpoint(await listsOn(careless));
  const load = await startAppendLoad({ endpoints: [endpoint], seed: SEED });
  onTestFinished(async () => {
    await load.stop();
  });
  await acknowledges(load, 500);
  await crash(careless);
  await acknowledges(load, 500);
  const findings = check(await load.stop(), await readLists(endpoint));
  expect(findings.map((f) => f.anomaly)).toEqual(expect.arrayContaining(['lost append', 'stale read']));
});

it('what PostgreSQL allows under REPEATABLE READ is found: the load is sharp enough to meet it', async () => {
  const { careful } = clusters;
  const endpoint = careful.endpoint(await listsOn(careful));
  const load = await startAppendLoad({ endpoints: [endpoint], seed: SEED, level: 'REPEATABLE READ' });
  onTestFinished(async () => {
    await load.stop();
  });
  // Four times what it takes on an idle machine: on a busy one its transactions overlap less often.
  await acknowledges(load, 8_000);
  const findings = check(await load.stop(), await readLists(endpoint));
  expect(findings.map((f) => f.anomaly)).toContain('anti-dependency cycle');
  // Nothing worse: in each cycle somebody read what another then changed, and was read from in the same way (README.md).
  const cycles = findings.filter((f) => !f.message.startsWith('and '));
  for (const { message } of cycles) expect(message).toMatch(/\(rw\)(.|\n)*\(rw\)/);
});

it('a connection that breaks may hide a commit, and its client goes on elsewhere', async () => {
  const { careful } = clusters;
  const direct = careful.endpoint(await listsOn(careful));
  const [one, other] = [await wayTo(careful), await wayTo(careful)];
  const endpoints = [one, other].map(({ port }) => ({ ...direct, port }));
  const load = await startAppendLoad({ endpoints, seed: SEED });
  onTestFinished(async () => {
    await load.stop();
  });
  for (let cuts = 0; cuts < 30; cuts++) {
    await acknowledges(load, 50);
    one.cut();
    other.cut();
  }
  one.close();
  await acknowledges(load, 200);
  const history = await load.stop();
  const finalState = await readLists(direct);
  expect(describeFindings(check(history, finalState))).toBe('');
  // Some of them took effect, or the load would call a lost answer a failure and nobody would notice.
  const there = new Set([...finalState.values()].flat());
  const unknown = history.transactions.filter((t) => t.outcome === 'unknown').flatMap((t) => t.steps);
  expect(unknown.some((step) => step.kind === 'append' && there.has(step.value))).toBe(true);
});
