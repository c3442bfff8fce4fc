/** One task: what an engine says to a proxy about one database waits for nothing that it said about another, and a new password breaks nothing. */
import { expect, onTestFinished, test } from 'vitest';
import type { Config } from '../../src/config/config.js';
import { Fleet } from '../../src/fleet/fleet.js';
import type { FleetNode, PauseRequest, SwapRequest } from '../../src/fleet/node.js';
import type { AdminResult } from '../../src/proxy/contract.js';
import { configFor, proxyFor } from '../proxy/support.js';
import { until } from '../support/wait.js';

const SERVER = { systemIdentifier: '7300', databaseOid: 16_384 };
const swap = (database: string): SwapRequest => ({
  ...{ database, peer: 'new', epoch: 1, serving: SERVER, saveConfig: false },
});
const pause = (database: string, drainMs: number): PauseRequest => ({
  ...{ database, peer: 'new', epoch: 1, source: SERVER, destination: SERVER },
  ...{ leaseMs: 2_000, drainMs, drainAction: 'abort' },
});
/** Above the two seconds that a short question has. */
const LONG_DRAIN_MS = 3_000;

interface Setting {
  readonly node: FleetNode;
  /** the commands that it has got, in their order */
  readonly heard: string[];
  /** answers the oldest command of this kind that waits */
  readonly answer: (method: string) => void;
  readonly withPassword: (password: string) => FleetNode;
}

/** A proxy whose node answers `prepare` and `pause` when it is told to, and all else at once. */
async function setting(): Promise<Setting> {
  const heard: string[] = [];
  const waiting: { readonly method: string; readonly resolve: (result: AdminResult) => void }[] = [];
  const done: AdminResult = {
    columns: [{ name: 'result', type: 'text' }],
    rows: [['{"drained":true}']],
    tag: 'CUTOVER_NODE',
  };
  let config: Config = configFor([]);
  const proxy = await proxyFor({
    config,
    admin: {
      execute: (statement) => {
        const [, method = ''] = statement.split(' ');
        heard.push(method);
        if (method !== 'prepare' && method !== 'pause') return Promise.resolve(done);
        return new Promise((resolve) => waiting.push({ method, resolve }));
      },
    },
  });
  const { host, port } = proxy.address;
  const fleet = new Fleet({ config: () => config, own: null, row: null, fallback: { name: 'local', host, port } });
  onTestFinished(() => fleet.close());
  const nodeNow = (): FleetNode => {
    const [node] = fleet.nodes([{ name: 'local', host, port }]);
    if (node === undefined) throw new Error('every address has a node');
    return node;
  };
  return {
    node: nodeNow(),
    heard,
    answer: (method) => {
      const at = waiting.findIndex((entry) => entry.method === method);
      waiting.splice(at, 1)[0]?.resolve(done);
    },
    withPassword: (password) => {
      config = { ...config, admin: { ...config.admin, password } };
      proxy.apply(config);
      return nodeNow();
    },
  };
}

test('a database is switched while another one is made ready', async () => {
  const { node, heard, answer } = await setting();
  const prepared = node.prepare(swap('other'));
  await until('it is being made ready', () => heard.includes('prepare'));
  await node.swap(swap('prod'));
  answer('prepare');
  await prepared;
});

test('a long drain is not broken off by another database that is made ready', async () => {
  const { node, heard, answer } = await setting();
  const paused = node.pause(pause('prod', LONG_DRAIN_MS));
  await until('it drains', () => heard.includes('pause'));
  const prepared = node.prepare(swap('other'));
  await until('the other is being made ready', () => heard.includes('prepare'));
  answer('prepare');
  await prepared;
  answer('pause');
  expect(await paused).toMatchObject({ drained: true });
});

test('what the pause is told over is open before it, and a new password counts for what is opened then', async () => {
  const { node, heard, answer, withPassword } = await setting();
  const prepared = node.prepare(swap('prod'));
  await until('it is being made ready', () => heard.includes('prepare'));
  answer('prepare');
  await prepared;
  const paused = node.pause(pause('prod', LONG_DRAIN_MS));
  await until('it drains', () => heard.includes('pause'));
  expect(withPassword('another secret')).toBe(node);
  await node.renew('prod', 1, 2_000);
  await node.swap(swap('other'));
  answer('pause');
  expect(await paused).toMatchObject({ drained: true });
});
