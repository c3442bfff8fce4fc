/** One task: defects that others paid for, at the proxy alone (docs/evidence/defects.md). */
import { expect, it } from 'vitest';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { until } from '../support/wait.js';
import { clientOf, configFor, proxyFor } from '../proxy/support.js';

const clusters = useClusters({ only: { major: 18 } });
const WAITING = 60;

it('queueing on unrelated databases while one is paused: the other one answers as if nothing were', async () => {
  const [paused, unrelated] = [await freshDatabase(clusters.only), await freshDatabase(clusters.only)];
  const target = (name: string, databaseName: string) => ({ name, cluster: clusters.only, databaseName });
  const proxy = await proxyFor({ config: configFor([target('prod', paused), target('other', unrelated)]) });
  const other = await clientOf(proxy, 'other');
  await other.query('SELECT 1');
  proxy.gate('prod').close('cutover');
  // Many more than a pool has connections, of the same user on the same server.
  const waiting = await Promise.all(Array.from({ length: WAITING }, () => clientOf(proxy, 'prod')));
  const answers = waiting.map((client) => client.query('SELECT 1'));
  await until('all of them wait', () => proxy.gate('prod').waitingCount === WAITING);
  const newcomer = await clientOf(proxy, 'other');
  for (let turn = 0; turn < 20; turn++) {
    await other.query('SELECT 1');
    await newcomer.query('BEGIN; SELECT 1; COMMIT');
  }
  expect(proxy.gate('other').waitingCount).toBe(0);
  expect(proxy.gate('prod').waitingCount).toBe(WAITING);
  proxy.gate('prod').open('cutover');
  await Promise.all(answers);
});
