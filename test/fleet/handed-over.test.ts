/** One task: a node that takes no new clients any more, because another process does, tells who asks that it is being handed over. */
import { expect, onTestFinished, test } from 'vitest';
import { CutoverError } from '../../src/errors/errors.js';
import { requireNodes } from '../../activities/nodes.js';
import { runPreflight } from '../../activities/preparation.js';
import type { EngineContext } from '../../activities/context.js';
import { System } from '../support/served.js';

test('an engine beside it waits for the hand-over to end, and gives neither a cutover nor a new move up', async () => {
  const system = await System.start({ source: 18, destination: 18, worker: false });
  onTestFinished(() => system.stop());
  const { served } = system;
  if (!served) throw new Error('it serves');
  const { fleet, node, proxy } = served;
  const members = await node.members();
  node.service.share();
  await proxy.retire(0);

  expect(await node.members()).toEqual(members);
  const waitedFor = new Error('enough waited');
  const told: string[] = [];
  const context = { fleet, config: () => proxy.config } as unknown as EngineContext;
  const moment = requireNodes(context, 'prod', (waitingFor) => {
    told.push(waitingFor);
    return Promise.reject(waitedFor);
  });
  await expect(moment).rejects.toBe(waitedFor);
  expect(told).toEqual([new CutoverError('node_handed_over', { node: 'local' }).message]);

  const preflight = runPreflight(context, { source: 'prod', destination: 'prod_new' }, 'copy');
  await expect(preflight).rejects.toMatchObject({ code: 'node_handed_over' });
});
