/** One task: a lease that is shorter than the network takes is refused before anything is touched, by the name of what is far. */
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it, onTestFinished, vi } from 'vitest';
import type { EngineContext } from '../../activities/context.js';
import { awaitMoment } from '../../activities/moment.js';
import { requireNodes } from '../../activities/nodes.js';
import { runPreflight } from '../../activities/preparation.js';
import { ChaosProxy } from '../../src/dev/chaos-proxy.js';
import { Directory } from '../../src/fleet/directory.js';
import { Connections } from '../../src/postgres/connections.js';
import { configFor, Pair } from '../support/pair.js';

/** The shortest that the configuration takes. */
const GENERAL = 'cutover_lease = 100';
/** One way; a sixth of the lease is less. */
const SLOW_MS = 40;
const TOO_SHORT = /answer(?:s|ed) after \d+(?:\.\d)? ms: cutover_lease is 100 ms and must be 6 times that/;

let pair: Pair;

beforeAll(async () => {
  pair = await Pair.bare({ source: 17, destination: 18, general: GENERAL });
});

afterAll(async () => {
  await pair.stop();
});

it('of a server: preflight fails, clients are served, and nothing was made', async () => {
  const { source, destination } = pair;
  const far = await ChaosProxy.listen(destination.port, { slowMs: SLOW_MS });
  onTestFinished(() => far.close());
  far.set('slow');
  const { host, password } = destination;
  const config = configFor(source, { host, password, port: far.port }, GENERAL);
  const context: EngineContext = { ...pair.context, config: () => config, directory: new Directory(() => config) };
  const request = { source: 'prod', destination: 'prod_new' };
  await expect(runPreflight(context, request, 'copy')).rejects.toMatchObject({
    code: 'preflight_failed',
    message: expect.stringMatching(new RegExp(`the destination ${TOO_SHORT.source}`)) as string,
  });
  const client = await pair.client();
  onTestFinished(() => client.end());
  await client.query(`INSERT INTO public.item (name) VALUES ('served')`);
  for (const cluster of [source, destination])
    expect(await cluster.query('app', `SELECT FROM pg_namespace WHERE nspname = 'cutover'`)).toEqual([]);
});

it('of a server that became far after preflight: the moment waits with that reason, and goes on when it is near again', async () => {
  const ready = await Pair.start({ source: 17, destination: 18, general: GENERAL });
  onTestFinished(() => ready.stop());
  const far = await ChaosProxy.listen(ready.destination.port, { slowMs: SLOW_MS });
  onTestFinished(() => far.close());
  const { host, password } = ready.destination;
  const config = configFor(ready.source, { host, password, port: far.port }, GENERAL);
  const connections = new Connections();
  onTestFinished(() => connections.close());
  const context: EngineContext = {
    ...ready.context,
    config: () => config,
    connections,
    directory: new Directory(() => config),
  };
  const waits: string[] = [];
  const report = (waitingFor: string): Promise<void> => {
    if (waitingFor !== '' && waits.at(-1) !== waitingFor) waits.push(waitingFor);
    // All was well: it becomes far at the first look without a reason, and near once that is said.
    far.set(waits.some((wait) => TOO_SHORT.test(wait)) || waitingFor !== '' ? 'calm' : 'slow');
    return Promise.resolve();
  };
  const request = { migration: ready.migration, heading: 'forward', attempt: 'far/1', acceptLoss: false } as const;
  expect(await awaitMoment(context, request, report)).toMatchObject({ epoch: 1, leaseMs: 100 });
  expect(waits.at(-1)).toMatch(new RegExp(`^the destination ${TOO_SHORT.source}$`));
});

it('of a node: the cutover is refused, naming the node', async () => {
  const { node, context } = pair;
  const state = node.state.bind(node);
  const far = vi.spyOn(node, 'state').mockImplementation(async (database) => {
    await delay(SLOW_MS);
    return state(database);
  });
  onTestFinished(() => {
    far.mockRestore();
  });
  await expect(requireNodes(context, 'prod', () => Promise.resolve())).rejects.toMatchObject({
    code: 'nodes_not_ready',
    message: expect.stringMatching(new RegExp(`node test ${TOO_SHORT.source}`)) as string,
  });
});

it('of a node that was held up once: it is asked again', async () => {
  const { node, context } = pair;
  const state = node.state.bind(node);
  const heldUp = vi.spyOn(node, 'state').mockImplementationOnce(async (database) => {
    await delay(SLOW_MS);
    return state(database);
  });
  onTestFinished(() => {
    heldUp.mockRestore();
  });
  expect(await requireNodes(context, 'prod', () => Promise.resolve())).toHaveLength(1);
  expect(heldUp).toHaveBeenCalledTimes(2);
});
